"""Test the judge itself: its agreement with known labels, with itself, and whether a response can talk it round."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from swift_study.config import Audit
from swift_study.evaluation.judging import (
    KEY_POINTS,
    audit,
    judge_by_checks,
    judge_by_model,
    labelled_responses,
    read_instructions,
    summarise,
)
from swift_study.examples import Example
from swift_study.io import cli
from swift_study.io.endpoint import Account, JudgeSettings
from swift_study.io.tables import ACCOUNTS, AUDIT, AUDIT_SUMMARY, CONFUSION, read_examples, write_table


def main(a: Namespace) -> None:
    settings = Audit.model_validate_json(a.settings)
    labelled = labelled_responses(settings, read_examples(Path(a.dataset)), a.seed)
    accounts: list[Account] = []
    has_answered = False  # a server may refuse every hostile text, which says nothing about the settings

    def by_checks(examples: Sequence[Example], responses: Sequence[str], repeat: int) -> list[dict[str, Any]]:
        return judge_by_checks(examples, responses)

    def by_model(examples: Sequence[Example], responses: Sequence[str], repeat: int) -> list[dict[str, Any]]:
        nonlocal has_answered
        judge = JudgeSettings(**json.loads(a.judge), **(json.loads(a.judge_limits) or {}))
        if judge.budget_usd is not None:  # one for all three passes
            before = sum(c.cost_usd + c.lost_usd + judge.price(c.cached_prompt_tokens, c.cached_completion_tokens) for c in accounts)
            judge = judge.model_copy(update={"budget_usd": max(0.0, judge.budget_usd - before)})
        instructions, cache = read_instructions(Path(a.instructions)), Path(a.cache) / "replies"
        progress = cli.Progress("audit of the judge")
        rows, account = judge_by_model(judge, examples, responses, instructions, cache, progress, repeat, has_answered)
        accounts.append(account)
        has_answered |= any(row["raw"] is not None for row in rows)
        return rows

    rows = audit(by_checks if a.scorer == KEY_POINTS else by_model, labelled)
    summary, confusion = summarise(rows, settings.reference, a.seed)
    for path, table, schema in ((a.rows, rows, AUDIT), (a.summary, summary, AUDIT_SUMMARY), (a.confusion, confusion, CONFUSION)):
        write_table(Path(path), pl.DataFrame(table, schema=schema.names, infer_schema_length=None), schema)
    costs = [{"dataset": f"audit of {rows[0]['judge']}", **account.__dict__} for account in accounts]
    totals = pl.DataFrame(costs, schema=dict.fromkeys(ACCOUNTS.names))
    write_table(Path(a.account), totals.group_by("dataset").sum() if costs else totals, ACCOUNTS)
    for row in summary:
        value = "–" if row["value"] is None else f"{row['value']:.3f}"
        if row["ci_low"] is not None:
            value += f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
        beside = f" (reference {row['reference']:g})" if row["reference"] is not None else ""
        cli.say(f"audit of {row['judge']}: {row['measure']} {value} of {row['n']}, {row['unparsed']} without a label{beside}")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        settings="the section `validation.audit` as JSON",
        dataset="Parquet file of the evaluation set",
        rows="Parquet file: a response and the labels that it got",
        summary="Parquet file: the measures",
        confusion="Parquet file: expected and given labels",
        account="Parquet file of what the judge cost; empty for the scorer key_points",
    )
    p.add_argument("--scorer", choices=[KEY_POINTS, "judge"], required=True, help="which judge is tested")
    p.add_argument("--judge", default="null", help="the keys of `judge` that affect a reply as JSON; for the scorer judge")
    p.add_argument("--judge-limits", default="null", help="its other keys as JSON, or null")
    p.add_argument("--instructions", default="workflow/prompts/judge.txt", help="text file of the judge's system message")
    p.add_argument("--cache", default=".cache", help="folder of the cache")
    p.add_argument("--seed", type=int, required=True, help="of the draw of responses and of the bootstrap")
    cli.run(main, p)
