"""Test a scorer that labels: its agreement with known labels, with itself, and whether a response can talk it round."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from swift_study.config import Audit, Scoring, Section, Seed
from swift_study.data.designs import load_design
from swift_study.evaluation.audit import audit, labelled_responses, summarise
from swift_study.evaluation.judging import read_instructions
from swift_study.evaluation.scorers import Item, Scored, load_scorer, read_back, score_by_endpoint, score_items
from swift_study.io import cli
from swift_study.io.endpoint import Account
from swift_study.io.tables import ACCOUNTS, AUDIT, AUDIT_SUMMARY, CONFUSION, read_examples, write_table


class Settings(Section):
    audit: Audit
    scoring: Scoring
    seed: Seed
    """Of the draw of responses and of the bootstrap."""


def main(a: Namespace) -> None:
    settings, scorer = cli.settings(Settings, a), load_scorer(Path(a.scorer))
    scoring = settings.scoring
    labelled = labelled_responses(settings.audit, read_examples(Path(a.dataset)), settings.seed)
    design = None if a.design is None else load_design(a.design)
    accounts: list[Account] = []
    has_answered = False  # a server may refuse every hostile text, which says nothing about the settings

    def score(items: Sequence[Item], repeat: int) -> list[Scored]:
        nonlocal has_answered
        endpoint = scoring.endpoint
        if design is not None:
            items = read_back(items, design, scoring.design_options)
        if endpoint is None:
            return score_items(scorer, items)
        if endpoint.budget_usd is not None:  # one for all three passes
            before = sum(c.cost_usd + c.lost_usd + endpoint.price(c.cached_prompt_tokens, c.cached_completion_tokens) for c in accounts)
            endpoint = endpoint.model_copy(update={"budget_usd": max(0.0, endpoint.budget_usd - before)})
        cache, place = Path(a.cache) / "replies", f"endpoints.{scoring.endpoint_name}"
        progress = cli.Progress(f"audit of {scoring.name}")
        scored, account = score_by_endpoint(scorer, items, endpoint, cache, progress, place, repeat, has_answered)
        accounts.append(account)
        has_answered |= any(s.score.raw is not None for s in scored)
        return scored

    instructions = read_instructions(Path(a.instructions)) if a.instructions else ""
    rows = audit(score, labelled, instructions, scoring.options)
    summary, confusion = summarise(rows, settings.audit.reference, settings.seed)
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
        scorer="the scorer's file",
        settings="JSON of Settings",
        dataset="Parquet file of the evaluation's queries",
        rows="Parquet file: a response and the labels that it got",
        summary="Parquet file: the measures",
        confusion="Parquet file: expected and given labels",
        account="Parquet file of what the endpoint cost; empty for a scorer that asks none",
    )
    p.add_argument("--instructions", help="text file of what the endpoint is told")
    p.add_argument("--design", type=Path, help="file of the design in which the queries stand, which reads responses back")
    p.add_argument("--cache", default=".cache", help="folder of the cache")
    cli.run(main, p)
