"""The tables that people read: verdicts, datasets with their counts, rejects, and certificates; and the report's pages of them."""

import json
from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study import __version__
from swift_study.config import Section, Statistics
from swift_study.data.datasets import describe
from swift_study.evaluation.scorers import read_statistics
from swift_study.gradients.files import CERTIFICATE
from swift_study.io import cli
from swift_study.io.tables import (
    ACCOUNTS,
    CERTIFICATES,
    CONFOUNDS,
    DATASETS,
    LEAKAGE,
    POWER,
    REJECTS,
    TOKENS,
    VERDICTS,
    read_tables,
)
from swift_study.models.checkpoints import last_checkpoint
from swift_study.models.lengths import about_lengths
from swift_study.report.pages import heading, html_table, page, paragraph, preformatted, verdict_page, write_formats, write_page


class Settings(Section):
    statistics: Statistics
    questions: dict[str, str]
    """By study."""
    after_step: dict[str, int]
    """By study the step after which checkpoints count."""


def main(a: Namespace) -> None:
    tables, pages = Path(a.tables), Path(a.pages)
    settings = cli.settings(Settings, a)
    statistics = settings.statistics
    verdicts = read_tables(a.verdicts, VERDICTS)
    confounds = read_tables(a.confounds, CONFOUNDS)
    write_formats(tables, "verdicts", verdicts, VERDICTS)
    write_formats(tables, "confounds", confounds, CONFOUNDS)
    power = read_tables(a.power, POWER)
    write_formats(tables, "power", power, POWER)
    steps = settings.after_step
    after = ", ".join(dict.fromkeys(f"{n}{'' if len({*steps.values()}) == 1 else f' ({study})'}" for study, n in steps.items()))
    rule = (
        f"A strategy helps (hurts) where its RelInf, averaged over the checkpoints after step {after}, lies above (below) "
        f"the control's: the {statistics.confidence:.0%} bootstrap interval of the paired difference excludes 0 and the sign-flip test "
        f"over tasks has p ≤ {1 - statistics.confidence:.2g}. Everything else is no evidence. For "
        f"responses that one does not want (Neg) it is the other way round: pushing towards them less helps."
    )
    write_page(pages / "verdicts.html", verdict_page(verdicts, confounds, power, list(settings.questions.items()), rule))

    rejects = read_tables(a.rejects, REJECTS)
    datasets = pl.DataFrame([describe(Path(p), rejects) for p in a.datasets])
    write_formats(tables, "datasets", datasets, DATASETS)
    write_formats(tables, "rejects", rejects, REJECTS)
    leakage = read_tables(a.leakage, LEAKAGE)
    outcomes = pl.DataFrame([outcome(Path(p)) for p in a.scores])
    accounts = read_tables(a.accounts, ACCOUNTS)
    parts = [heading("Datasets"), html_table(datasets)]
    parts += [heading("Leak check"), html_table(leakage)]
    if len(outcomes):
        parts += [heading("The base model's responses by which selections choose"), html_table(outcomes)]
    parts += [heading("Rejects"), html_table(rejects) if len(rejects) else paragraph("Nothing was rejected.")]
    tokens = about_lengths(a.lengths)
    write_formats(tables, "tokens", tokens, TOKENS)
    parts += [heading("Lengths, in tokens"), html_table(tokens)]
    if len(accounts):
        parts += [heading("What the teacher cost"), html_table(accounts)]
    write_page(pages / "data.html", page("Data and reject counts", *parts))

    certificates = pl.DataFrame([certificate_row(json.loads((Path(g) / CERTIFICATE).read_text())) for g in a.gradients])
    write_formats(tables, "certificates", certificates, CERTIFICATES)
    note = (
        "Errors are those of inner products, relative to the product of the two norms: sampled examples were computed again one at a "
        "time through autograd, in the run's own type and in float64. `reference` is float32 where the model has an operation that is not "
        "available in float64."
    )
    write_page(pages / "certificate.html", page("Numerics certificate", paragraph(note), html_table(certificates)))

    checkpoints = filter(None, [last_checkpoint(Path(folder)) for folder in a.checkpoints])
    runs = [json.loads((c / "run.json").read_text()) for c in checkpoints]
    versions = {k: v for run in runs[:1] for k, v in run.items() if k not in ("settings", "model", "run", "step", "schedule")}
    versions["report written by swift_study"] = __version__
    rows = pl.DataFrame({"what": list(versions), "version": [str(v) for v in versions.values()]})
    parts = [heading("Versions"), html_table(rows), heading("Configuration"), preformatted(Path(a.config).read_text())]
    write_page(pages / "configuration.html", page("Configuration and versions", *parts))


def outcome(path: Path) -> dict[str, object]:
    labels = read_statistics(path)["right"]
    return {
        "queries": path.parents[1].name.partition("=")[2],
        "responses": len(labels),
        "satisfactory": int((labels == 1).sum()),
        "unsatisfactory": int((labels == 0).sum()),
        "not_checkable": labels.null_count(),
    }


def certificate_row(c: dict[str, object]) -> dict[str, object]:
    duplicates, checked = c["duplicates"], c["examples_checked"]
    assert isinstance(duplicates, list)
    assert isinstance(checked, list)
    return {"reference": "float64"} | c | {"duplicates": len(duplicates), "examples_checked": len(checked)}


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        tables="folder of the tables",
        pages="folder of the report's pages",
        settings="JSON of Settings",
        config="the whole configuration, a YAML file",
    )
    lists = "verdicts confounds power datasets rejects leakage lengths scores accounts gradients checkpoints"
    for name in lists.split():
        p.add_argument(f"--{name}", nargs="*", default=[], help="files of that kind")
    cli.run(main, p)
