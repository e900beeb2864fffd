"""Choose negatives and positives from the base model's judged responses."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import Selection
from swift_study.evaluation.responses import Chain, Judged, select
from swift_study.examples import Example
from swift_study.io import cli
from swift_study.io.tables import JUDGEMENTS, RESPONSES, read_examples, read_table, write_examples


def judged(folder: Path, responses: Path, judgements: Path, dataset: str) -> dict[str, Judged]:
    """Every example of the dataset with its response and label, by id."""
    texts = dict(read_table(responses / f"{dataset}.parquet", RESPONSES).select("query_id", "response").iter_rows())
    labels = dict(read_table(judgements / dataset / "key_points.parquet", JUDGEMENTS).select("query_id", "label").iter_rows())
    examples = read_examples(folder / f"{dataset}.parquet")
    return {e.example_id: Judged(e, texts[e.example_id], labels[e.example_id]) for e in examples}


def by_parent(examples: list[Example]) -> dict[str, Example]:
    return {e.parent_id: e for e in examples if e.parent_id}


def main(a: Namespace) -> None:
    data, responses, judgements = Path(a.data), Path(a.responses), Path(a.judgements)
    selection = Selection.model_validate_json(a.settings)
    sets = {
        d: judged(data, responses, judgements, d)
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
    for name, examples in select(chains, selection.tasks, selection.positive_response).items():
        write_examples(data / f"{name}.parquet", examples)
    unsatisfactory = sum(j.label == 0 for j in sets["candidates"].values())
    cli.say(
        f"selection: {unsatisfactory} of {len(sets['candidates'])} candidates have an unsatisfactory response; "
        f"{selection.tasks} tasks chosen"
    )


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        settings="the section `selection` as JSON",
        data="folder of the datasets",
        responses="folder of the responses",
        judgements="folder of the judgements",
    )
    cli.run(main, p)
