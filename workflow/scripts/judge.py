"""Judge responses, by the key points that a machine can check or by a language model."""

import json
from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.errors import UserError
from swift_study.evaluation.judging import KEY_POINTS, judge_by_checks, judge_by_model, read_instructions, without_response
from swift_study.io import cli
from swift_study.io.endpoint import JudgeSettings
from swift_study.io.tables import ACCOUNTS, JUDGEMENTS, RESPONSES, read_examples, read_table, write_table


def main(a: Namespace) -> None:
    by_id = {e.example_id: e for e in read_examples(Path(a.dataset))}
    rows = read_table(Path(a.responses), RESPONSES).to_dicts()
    for row in rows:
        if row["query_id"] not in by_id:
            raise UserError(f"{a.responses}: the query {row['query_id']} is not in {a.dataset}. Delete the responses and run again.")
    given = [row for row in rows if row["response"] is not None]  # a server may have refused a query
    examples, responses = [by_id[row["query_id"]] for row in given], [row["response"] for row in given]
    name = Path(a.dataset).stem
    costs = []
    if a.scorer == KEY_POINTS:
        judged = judge_by_checks(examples, responses)
    else:
        settings = JudgeSettings(**json.loads(a.judge), **(json.loads(a.judge_limits) or {}))
        instructions = read_instructions(Path(a.instructions))
        progress = cli.Progress(f"judge {name}")
        judged, account = judge_by_model(settings, examples, responses, instructions, Path(a.cache) / "replies", progress)
        costs = [{"dataset": name, **account.__dict__}]
    judge = KEY_POINTS if a.scorer == KEY_POINTS else settings.model
    labels = {row["query_id"]: row for row in judged}
    judged = [labels.get(row["query_id"]) or without_response(row["query_id"], judge) for row in rows]
    frame = pl.DataFrame(judged, schema=JUDGEMENTS.names, schema_overrides={"label": pl.Int64, "raw": pl.String}, infer_schema_length=None)
    write_table(Path(a.output), frame, JUDGEMENTS)
    if a.account:
        write_table(Path(a.account), pl.DataFrame(costs, schema=dict.fromkeys(ACCOUNTS.names)), ACCOUNTS)
    without = "not checkable" if a.scorer == KEY_POINTS else "without a label"
    cli.say(f"judge {name}: {frame['label'].sum()} of {len(frame)} satisfactory, {frame['label'].null_count()} {without}")


if __name__ == "__main__":
    p = cli.parser(__doc__, dataset="Parquet file", responses="Parquet file", output="Parquet file")
    p.add_argument("--scorer", choices=[KEY_POINTS, "judge"], default=KEY_POINTS, help="by the key points' checks or by a language model")
    p.add_argument("--judge", default="null", help="the keys of `judge` that affect a reply as JSON; for the scorer judge")
    p.add_argument("--judge-limits", default="null", help="its other keys as JSON, or null")
    p.add_argument("--instructions", default="workflow/prompts/judge.txt", help="text file of the judge's system message")
    p.add_argument("--cache", default=".cache", help="folder of the cache")
    p.add_argument("--account", help="Parquet file of what the judge cost; empty for the scorer key_points")
    cli.run(main, p)
