"""Judge responses by the key points that a machine can check."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study import cli
from swift_study.examples import judge_by_key_points
from swift_study.tables import JUDGEMENTS, RESPONSES, read_examples, read_table, write_table


def main(a: Namespace) -> None:
    examples = {e.example_id: e for e in read_examples(Path(a.dataset))}
    rows = []
    for response in read_table(Path(a.responses), RESPONSES).to_dicts():
        label, reason = judge_by_key_points(response["response"], examples[response["query_id"]].key_points)
        rows.append({"query_id": response["query_id"], "label": label, "reason": reason, "judge": "key_points"})
    empty = {"raw": None, "prompt_hash": None, "tokens": 0, "cost": 0.0}
    frame = pl.DataFrame([r | empty for r in rows], schema_overrides={"label": pl.Int64})
    write_table(Path(a.output), frame, JUDGEMENTS)
    met = frame["label"].sum()
    cli.say(f"judge {Path(a.dataset).stem}: {met} of {len(frame)} satisfactory, {frame['label'].null_count()} not checkable")


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__, dataset="Parquet file", responses="Parquet file", output="Parquet file"))
