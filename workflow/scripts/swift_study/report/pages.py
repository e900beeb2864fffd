"""Tables for people: the same rows as Parquet, CSV, Markdown and a plain HTML page for the report."""

import html
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa

from swift_study.influence.confounds import disagreements, overview, panel, power_panel
from swift_study.io.tables import write_table
from swift_study.io.work import publish

STYLE = """body{font:14px/1.5 system-ui,sans-serif;margin:2em;color:#222;max-width:1200px}
table{border-collapse:collapse;margin:1em 0;width:100%}th,td{padding:.35em .7em;border-bottom:1px solid #ddd;text-align:left;
vertical-align:top}
th{border-bottom:2px solid #888}td.n{text-align:right;font-variant-numeric:tabular-nums}
.helps{color:#00684d;font-weight:600}.hurts{color:#a33d00;font-weight:600}.none{color:#666}
h1{font-size:1.35em}h2{font-size:1.1em;margin-top:1.6em}
pre{background:#f6f6f6;padding:1em;overflow:auto}"""


# Classes of STYLE for verdicts, and for the outcomes of claims.
COLOURS = {"helps": "helps", "hurts": "hurts", "no evidence": "none", "holds": "helps", "fails": "hurts", "cannot tell": "none"}


def write_formats(folder: Path, name: str, frame: pl.DataFrame, schema: pa.Schema) -> None:
    """``{name}.parquet``, ``.csv`` and ``.md`` in ``folder``."""
    frame = frame.select(schema.names)
    write_table(folder / f"{name}.parquet", frame, schema)
    with publish(folder / f"{name}.csv") as part:
        frame.write_csv(part)
    with publish(folder / f"{name}.md") as part:
        part.write_text(markdown(frame))


def markdown(frame: pl.DataFrame) -> str:
    """A Markdown table; numbers with four significant digits, a bar in a text escaped."""
    rows = [frame.columns, ["---"] * frame.width, *([text(v) for v in row] for row in frame.iter_rows())]
    return "".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |\n" for row in rows)


def text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


def page(title: str, *parts: str) -> str:
    """A self-contained HTML page."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><h1>{html.escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def write_page(path: Path, content: str) -> None:
    with publish(path) as part:
        part.write_text(content)


def paragraph(content: str) -> str:
    return f"<p>{html.escape(content)}</p>"


def heading(content: str) -> str:
    return f"<h2>{html.escape(content)}</h2>"


def preformatted(content: str) -> str:
    return f"<pre>{html.escape(content)}</pre>"


def html_table(frame: pl.DataFrame) -> str:
    """An HTML table. Cell texts are escaped: replies of models are data."""
    head = "".join(f"<th>{html.escape(c.replace('_', ' '))}</th>" for c in frame.columns)
    body = "".join("<tr>" + "".join(_cell(v) for v in row) + "</tr>" for row in frame.iter_rows())
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    shown = html.escape(text(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="n">{shown}</td>'
    kind = COLOURS.get(shown)
    return f'<td class="{kind}">{shown}</td>' if kind else f"<td>{shown}</td>"


POWER_NOTE = (
    "How often such a study would tell an effect from zero, drawn from its own tasks: the observed effect, and one of half a standard "
    "deviation between tasks. For as many tasks as there are, the observed effect's share says no more than its p does."
)


def verdict_page(
    verdicts: pl.DataFrame, confounds: pl.DataFrame, power: pl.DataFrame, questions: Sequence[tuple[str, str]], rule: str
) -> str:
    """The report's first page: which verdicts do not stand by every check; then of every study question, verdicts, checks and power."""
    parts = [paragraph(overview(confounds)), *map(paragraph, disagreements(confounds)), paragraph(rule)]
    for study, question in questions:
        rows = verdicts.filter(pl.col("study") == study)
        shown = rows.select(
            "strategy",
            "context",
            pl.col("target_set").alias("target"),
            "verdict",
            pl.format("{} [{}, {}]", *(pl.col(c).round_sig_figs(2) for c in ("effect", "ci_low", "ci_high"))).alias(
                "effect over the control [interval]"
            ),
            pl.col("p_value").round_sig_figs(2).alias("p"),
            pl.col("strategy_rel_inf").round_sig_figs(2).alias("strategy RelInf"),
            pl.col("control_rel_inf").round_sig_figs(2).alias("control RelInf"),
            pl.col("effective").alias("above 0 throughout"),
            pl.col("n_tasks").alias("tasks"),
        )
        parts += [heading(f"{study}: {question}"), html_table(shown)]
        parts += [paragraph("The same verdicts again:"), html_table(panel(confounds.filter(pl.col("study") == study)))]
        told = power.filter(pl.col("study") == study)
        if len(told):
            parts += [paragraph(POWER_NOTE), html_table(power_panel(told))]
    return page("Verdicts", *parts)
