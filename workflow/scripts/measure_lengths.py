"""How long a dataset's examples are for a model; what its chat template or its context refuses is told here, before anything is trained."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Model
from swift_study.data.datasets import model_folder
from swift_study.io import cli
from swift_study.io.tables import LENGTHS, read_examples, write_table
from swift_study.models.lengths import measure
from swift_study.models.rendering import load_renderer


def main(a: Namespace) -> None:
    dataset = Path(a.dataset)
    renderer = load_renderer(model_folder(Path(a.model)), cli.settings(Model, a))
    lengths = measure(read_examples(dataset), renderer, dataset.stem, a.name)
    write_table(Path(a.output), lengths, LENGTHS)
    out = lengths["reason"].count()
    cli.say(f"{dataset.stem} for the model {a.name}: {len(lengths)} examples" + (f", {out} of them too long and left out" if out else ""))


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        name="the model's name",
        model="model.json",
        settings="the keys of `model` that affect tokens, as JSON",
        dataset="Parquet file of the dataset",
        output="Parquet file",
    )
    cli.run(main, p)
