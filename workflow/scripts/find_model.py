"""Find the configured model, fetch or convert it if need be, and write down where it is and what it is."""

import json
from argparse import Namespace
from pathlib import Path

from swift_study import cli
from swift_study.config import Model
from swift_study.models import find_model
from swift_study.rendering import load_renderer
from swift_study.work import hash_files, publish


def main(a: Namespace) -> None:
    settings = Model.model_validate_json(a.settings)
    folder = find_model(settings, Path(a.cache))
    renderer = load_renderer(folder, settings)
    weights = sorted(folder.glob("*.safetensors"))
    date = str(settings.template_date) if renderer.depends_on_date() else None
    about = {"name": settings.name, "folder": str(folder), "weights": hash_files(*weights), "template_date": date}
    with publish(Path(a.output)) as part:
        part.write_text(json.dumps(about, indent=2) + "\n")
    cli.say(f"model: {settings.name} in {folder}" + (f"; its chat template is given the date {date}" if date else ""))


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__, settings="the section `model` as JSON", cache="folder of the cache", output="JSON file"))
