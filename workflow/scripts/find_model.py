"""Find the configured model, fetch or convert it if need be, and write down where it is and what it is.

Runs whose adapter does not fit the model, or whose gradients the engine cannot compute, are refused here where the names and kinds of the
model's modules tell it, before anything is made.
"""

import json
from argparse import Namespace
from pathlib import Path

from swift_study.config import Gradients, Model, Run
from swift_study.io import cli
from swift_study.io.work import hash_files, publish
from swift_study.models.loading import find_model, outline
from swift_study.models.rendering import load_renderer
from swift_study.models.weights import train_weights


def main(a: Namespace) -> None:
    settings = cli.settings(Model, a)
    folder = find_model(settings, Path(a.cache))
    renderer = load_renderer(folder, settings)
    outline(folder, settings)
    for run, gradients in json.loads(a.runs):
        chosen = None if gradients is None else Gradients.model_validate(gradients)
        train_weights(outline(folder, settings), Run.model_validate(run), chosen, pass_through=False)
    weights = sorted(folder.glob("*.safetensors"))
    date = str(settings.template_date) if renderer.depends_on_date() else None
    about = {"name": settings.name, "folder": str(folder), "weights": hash_files(*weights), "template_date": date}
    with publish(Path(a.output)) as part:
        part.write_text(json.dumps(about, indent=2) + "\n")
    cli.say(f"model: {settings.name} in {folder}" + (f"; its chat template is given the date {date}" if date else ""))


if __name__ == "__main__":
    p = cli.parser(__doc__, settings="the section `model` as JSON", cache="folder of the cache", output="JSON file")
    p.add_argument("--runs", default="[]", help="for each run that is to be trained on it [settings, gradients or null], as JSON")
    cli.run(main, p)
