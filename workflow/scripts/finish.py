"""After a run: write Snakemake's report if it is older than the tables, print the verdicts and where the report is."""

import io
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from swift_study.influence.confounds import disagreements, overview
from swift_study.io import cli
from swift_study.io.tables import COMPARISON, CONFOUNDS, VERDICTS, read_table
from swift_study.io.work import publish

COLOURS = {"helps": "green", "hurts": "red", "no evidence": "dim"}

SNAKEFILE = Path(__file__).resolve().parents[2] / "Snakefile"


def main(a: Namespace) -> None:
    results = Path(a.results)
    tables, report = results / "tables" / "verdicts.parquet", results / "report.html"
    folders = {study: results / "studies" / study for study in a.studies}
    made = [study for study, folder in folders.items() if (folder / "page.html").is_file()]
    targets = [*(["all"] if tables.is_file() else []), *made]
    if not targets or not (results / "config.yaml").is_file():
        return  # only a part was asked for
    newest = max(p.stat().st_mtime for kind in ("tables/*", "pages/*", "studies/*/*", "studies/*/figures/*") for p in results.glob(kind))
    if not report.is_file() or report.stat().st_mtime < newest:
        write_report(report, targets)
    if tables.is_file():
        show(read_table(tables, VERDICTS))
        confounds = read_table(results / "tables" / "confounds.parquet", CONFOUNDS)
        for sentence in (overview(confounds), *disagreements(confounds)):
            cli.say(sentence)
    for study in made:
        if (path := folders[study] / "table.parquet").is_file() and {*COMPARISON.names} <= {*pl.read_parquet_schema(path)}:
            show_comparison(study, read_table(path, COMPARISON))
    if report.is_file():
        cli.say(f"Report: {report}")


def write_report(report: Path, targets: list[str]) -> None:
    """Beside its place, since Snakemake puts the values of environment variables into the report's path, and half a report would be newer
    than the tables."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "report.html"
        command = [sys.executable, "-m", "snakemake", *targets, "--snakefile", str(SNAKEFILE), "--report", str(made)]
        command += ["--configfile", str(report.parent / "config.yaml")]
        done = subprocess.run([*command, "--nolock", "--cores", "1"], capture_output=True, text=True, check=False)
        if done.returncode:
            # Not all of the targets are up to date: tables of the parts that are there remain readable.
            print(done.stderr, file=sys.stderr)
            cli.say(f"{report} was not written: {(done.stderr.strip() or 'Snakemake gave no reason').splitlines()[-1]}")
            return
        with publish(report) as part:
            shutil.copyfile(made, part)


def show(verdicts: pl.DataFrame) -> None:
    table = Table(title="Verdicts: does the strategy's data help more than the control's?", title_justify="left")
    for column in ("study", "strategy", "context", "target", "verdict", "effect over the control [interval]", "p", "mean loss", "cosine"):
        table.add_column(column, justify="right" if column == "p" else "left")
    for r in verdicts.iter_rows(named=True):
        colour = COLOURS[r["verdict"]]
        effect = f"{r['effect']:+.3f} [{r['ci_low']:+.3f}, {r['ci_high']:+.3f}]"
        verdict = f"[{colour}]{r['verdict']}[/]"
        table.add_row(
            r["study"], escape(r["strategy"]), r["context"], escape(r["target_set"]), verdict, effect.replace("[", r"\["),
            f"{r['p_value']:.3f}", r["verdict_mean_loss"], r["verdict_cosine"],
        )  # fmt: skip
    print_table(table)


def show_comparison(name: str, rows: pl.DataFrame) -> None:
    table = Table(title=f"{name}: gains are paired by query", title_justify="left")
    for column in ("block", "row", "evaluation", "metric", "value", "gain [interval]", "over", "n", "unscored"):
        table.add_column(column)
    for r in rows.iter_rows(named=True):
        gain, low, high = (r[f"gain{part}"] for part in ("", "_low", "_high"))
        shown = "" if gain is None or low is None else rf"{gain:+.3f} \[{low:+.3f}, {high:+.3f}]"
        value = "" if r["value"] is None else f"{r['value']:.3f}"
        texts = (r["block"] or "", r["row"], r["evaluation"], r["metric"])
        table.add_row(*map(escape, texts), value, shown, escape(r["against"] or ""), str(r["n"]), str(r["unscored"]))
    print_table(table)


def print_table(table: Table) -> None:
    text = io.StringIO()
    Console(file=text, width=140, force_terminal=sys.stderr.isatty()).print(table)
    cli.say(text.getvalue().rstrip())


if __name__ == "__main__":
    p = cli.parser(__doc__, results="folder of the results")
    p.add_argument("--studies", nargs="*", default=[], help="studies of scores, which are shown where they are made")
    cli.run(main, p)
