"""Choose negatives and positives from the base model's judged responses."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.config import Model, Selection
from swift_study.data.datasets import fit, write_rejects
from swift_study.evaluation.responses import Chain, Judged, select
from swift_study.evaluation.scorers import read_responses, read_statistics
from swift_study.examples import Example
from swift_study.io import cli
from swift_study.io.tables import read_examples, write_examples


def judged(folder: Path, responses: Path, scores: Path, dataset: str) -> dict[str, Judged]:
    """Every example of the dataset with its response and label, by id."""
    texts = read_responses(responses / f"evaluation={dataset}" / "responses.parquet")
    scored = read_statistics(scores / f"evaluation={dataset}" / "scorer=key_points" / "scores.parquet")
    labels = dict(scored.select("query_id", pl.col("right").cast(pl.Int64)).iter_rows())
    examples = read_examples(folder / f"{dataset}.parquet")
    return {e.example_id: Judged(e, texts[e.example_id], labels[e.example_id]) for e in examples}


def by_parent(examples: list[Example]) -> dict[str, Example]:
    return {e.parent_id: e for e in examples if e.parent_id}


def main(a: Namespace) -> None:
    data, responses, scores = Path(a.data), Path(a.responses), Path(a.scores)
    selection = Selection.model_validate_json(a.settings)
    sets = {
        d: judged(data, responses, scores, d)
        for d in ("candidates", "candidates.similar", "candidates.revised", "candidates.similar.revised")
    }
    similar = {j.example.parent_id: j for j in sets["candidates.similar"].values()}
    revised = {j.example.parent_id: j for name in ("candidates.revised", "candidates.similar.revised") for j in sets[name].values()}
    clarifications = by_parent(read_examples(data / "candidates.clarify.parquet"))
    chains = []
    for example_id, original in sets["candidates"].items():
        analogue = similar.get(example_id)
        if analogue is None or example_id not in clarifications or analogue.example.example_id not in revised:
            continue  # rejected by a strategy; counted in its rejects table
        chains.append(Chain(original, revised[example_id], clarifications[example_id], analogue, revised[analogue.example.example_id]))
    rejects = []
    for name, examples in select(chains, selection.tasks, selection.positive_response).items():
        kept, overlong = fit(examples, Path(a.model), Model.model_validate_json(a.model_settings), name)
        write_examples(data / f"{name}.parquet", kept)
        rejects += overlong
    write_rejects(Path(a.rejects), rejects)
    unsatisfactory = sum(j.label == 0 for j in sets["candidates"].values())
    cli.say(
        f"selection: {unsatisfactory} of {len(sets['candidates'])} candidates have an unsatisfactory response; "
        f"{selection.tasks} tasks chosen"
    )


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        settings="the section `selection` as JSON",
        model="model.json",
        model_settings="the section `model` as JSON",
        data="folder of the datasets",
        responses="folder of the responses",
        scores="folder of the scores",
        rejects="Parquet file of what was left out",
    )
    cli.run(main, p)
