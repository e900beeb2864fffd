"""The proof: tables of what training with and without the data did, the paper's claims, and how the swift scores agree with it."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from swift_study.config import MAIN, Statistics, Validation
from swift_study.evaluation.scorers import read_statistics
from swift_study.io import cli
from swift_study.io.tables import (
    AGREEMENT,
    PAIRS,
    RANK_AGREEMENT,
    RIVALS,
    VERDICTS,
    read_examples,
    read_table,
)
from swift_study.io.work import publish
from swift_study.report.figures import draw_agreement, draw_validation
from swift_study.report.pages import heading, html_table, page, paragraph, write_formats
from swift_study.studies.validation import (
    Measured,
    Queries,
    SwiftStudy,
    agreement_items,
    agreement_table,
    claims_schema,
    claims_table,
    curves_of,
    draw_queries,
    load_claims,
    measured,
    nats_per_token,
    query_values,
    rank_agreement,
    summary,
    usable_claims,
    validation_schema,
    validation_table,
)


def main(a: Namespace) -> None:
    settings, statistics = Validation.model_validate_json(a.settings), Statistics.model_validate_json(a.statistics)
    folder, figures = Path(a.tables), Path(a.figures)
    examples = read_examples(Path(a.evaluation))
    queries = draw_queries([e.example_id for e in examples], [e.task for e in examples], statistics)
    by_table = read_runs(cli.unpack(a.runs), settings, queries)
    studies = {name: read_study(entry) for name, entry in cli.unpack(a.studies).items()}
    proxies = {
        context: {name: nats_per_token(read_statistics(Path(path)), queries, path) for name, path in paths.items()}
        for context, paths in cli.unpack(a.proxies).items()
    }

    tables = {name: validation_table(name, by_model, queries, settings, statistics) for name, by_model in by_table.items()}
    for name, frame in tables.items():
        write_formats(folder, name, frame, validation_schema(settings))
        draw_validation(frame, settings.tables[name].question, figures / f"{name}.svg", figures / f"{name}.png")

    claims = load_claims(Path(a.claims))
    rows = {name: settings.tables[name].runs for name in by_table}
    usable = usable_claims(claims, rows, {name: curves_of(study.pairs) for name, study in studies.items()}, a.claims)
    pairs = {name: study.pairs for name, study in studies.items()}
    claimed = claims_table(usable, by_table, pairs, queries, settings, statistics)
    write_formats(folder, "claims", claimed, claims_schema(settings))

    model = MAIN if MAIN in settings.models else settings.models[0]
    of_model = {name: next(m for m in by_model if m.model == model) for name, by_model in by_table.items()}
    predictions = {name: p for name, p in settings.predictions.items() if p.study in studies}
    items = agreement_items(predictions, studies, of_model, proxies, queries, settings, statistics)
    agreement, ranks = agreement_table(items), rank_agreement(items, statistics)
    write_formats(folder, "agreement", agreement, AGREEMENT)
    write_formats(folder, "rank_agreement", ranks, RANK_AGREEMENT)
    draw_agreement(agreement, "Measured gain against swift score", figures / "agreement.svg", figures / "agreement.png")

    sentences = summary(agreement, claimed, len(claims) - len(usable))
    for sentence in sentences:
        cli.say(sentence)
    with publish(Path(a.page)) as part:
        part.write_text(validation_page(sentences, tables, claimed, agreement, ranks, settings, statistics, model))


def read_runs(entries: list[dict[str, str]], settings: Validation, queries: Queries) -> dict[str, list[Measured]]:
    """Every table's runs by model. A run that stands in several tables is read once."""
    values = {}
    for entry in entries:
        paths = entry["labels"], entry["likelihoods"]
        if paths not in values:
            labels, likelihoods = read_statistics(Path(paths[0])), read_statistics(Path(paths[1]))
            values[paths] = query_values(labels, likelihoods, queries, paths)
    found: dict[str, list[Measured]] = {}
    for table, given in settings.tables.items():
        found[table] = []
        for model in settings.models:
            own = {
                (e["row"], int(e["seed"])): values[e["labels"], e["likelihoods"]]
                for e in entries
                if e["table"] == table and e["model"] == model
            }
            found[table].append(measured(table, model, given.runs, settings.seeds, own))
    return found


def read_study(entry: dict[str, str]) -> SwiftStudy:
    pairs, verdicts, rivals = (
        read_table(Path(entry[name]), schema) for name, schema in (("pairs", PAIRS), ("verdicts", VERDICTS), ("rivals", RIVALS))
    )
    return SwiftStudy(entry["baseline"], pairs, verdicts, rivals)


def validation_page(
    sentences: list[str],
    tables: Mapping[str, pl.DataFrame],
    claims: pl.DataFrame,
    agreement: pl.DataFrame,
    ranks: pl.DataFrame,
    settings: Validation,
    statistics: Statistics,
    model: str,
) -> str:
    level = f"{statistics.confidence:.0%}"
    parts = [
        paragraph(" ".join(sentences)),
        paragraph(
            f"Intervals are {level} bootstrap intervals over tasks and their queries, paired by query. They do not speak of other "
            f"trainings: {_seeds(settings)} At this confidence one in {round(1 / (1 - statistics.confidence))} intervals misses its number "
            "by chance, so of many claims some will hold or fail by chance."
        ),
    ]
    for name, frame in tables.items():
        parts += [heading(f"{name}: {settings.tables[name].question}"), html_table(shown_table(frame))]
        parts.append(
            paragraph(
                f"Gains are over {settings.tables[name].baseline}. Log-likelihoods are those of the golden answers, in nats per token; p "
                "is that of a paired sign-flip test over queries (McNemar's exact test for the labels of one seed), which takes queries as "
                "independent; the interval allows for the likeness of those of one task, and is what claims go by."
            )
        )
    near = settings.near
    rule = (
        f"A claim that one thing is above (below) another holds if the {level} interval of the difference lies above (below) 0, and "
        "fails if it lies on the other side; that it is near holds if the interval lies within "
        f"±{near.accuracy:g} (accuracy), ±{near.log_likelihood:g} (nats per token), ±{near.rel_inf:g} (RelInf), and fails if it lies "
        "outside. Everything else cannot be told. The columns `paper` say what the paper's own accuracies make of the claim, without an "
        "interval, near being one percentage point."
    )
    parts += [heading("The paper's claims"), paragraph(rule), html_table(shown_claims(claims))]
    note = (
        "Scores are the strategy's minus plain data's: of the swift study RelInf (or its mean-loss form, or the cosine) over the baseline "
        "probes', of its rivals embedding similarity, loss change, and proxy training (nats per token over a short run on plain data). "
        f"Gains are over the table's control row, on the model {model}."
    )
    parts += [heading("Swift scores and measured gains"), paragraph(note), html_table(shown_agreement(agreement))]
    rule = (
        "Kendall's τ-b between score and gain, and the share of pairs that the score orders as the gain does; plain data stand among the "
        "strategies with score and gain 0, and a tie counts half. Pairs are within a context; `all` pools them. With few strategies the "
        "intervals (both sides resampled) are wide: read them first."
    )
    parts += [heading("Rank agreement"), paragraph(rule), html_table(shown_ranks(ranks))]
    return page("Validation", *parts)


def _seeds(settings: Validation) -> str:
    if len(settings.seeds) == 1:
        return "each run was made with one seed, and how much another seed would change is unknown."
    return f"the standard deviation over {len(settings.seeds)} seeds stands beside each mean."


def with_interval(value: str, name: str, low: str | None = None, high: str | None = None) -> pl.Expr:
    """One cell `value [low, high]`; empty without a value, and with a dash for an end that is not known."""
    columns = (pl.col(c).round_sig_figs(3).cast(pl.String).fill_null("–") for c in (value, low or f"{value}_low", high or f"{value}_high"))
    return pl.when(pl.col(value).is_not_null()).then(pl.format("{} [{}, {}]", *columns)).alias(name)


def shown_table(frame: pl.DataFrame) -> pl.DataFrame:
    several = frame["n_seeds"].max() != 1
    papers = [c for c in frame.columns if c.startswith("paper_")]
    return frame.select(
        *(["model"] if frame["model"].n_unique() > 1 else []),
        "training_data",
        "n",
        "unparsed",
        with_interval("accuracy", "accuracy [interval]"),
        *([pl.col("accuracy_sd").alias("sd over seeds")] if several else []),
        with_interval("accuracy_gain", "gain [interval]"),
        pl.col("accuracy_gain_p").round_sig_figs(2).alias("p"),
        pl.col("ll_token").alias("log-likelihood"),
        *([pl.col("ll_token_sd").alias("its sd")] if several else []),
        with_interval("ll_token_gain", "its gain [interval]"),
        pl.col("ll_token_gain_p").round_sig_figs(2).alias("its p"),
        *papers,
    )


def shown_claims(claims: pl.DataFrame) -> pl.DataFrame:
    papers = [c for c in claims.columns if c.startswith("paper_")]
    return claims.select(
        "source",
        "claim",
        *(["model"] if claims["model"].n_unique() > 1 else []),
        "measure",
        "this",
        pl.col("that").fill_null("0"),
        with_interval("estimate", "this minus that [interval]", "ci_low", "ci_high"),
        "outcome",
        *papers,
    )


def shown_agreement(agreement: pl.DataFrame) -> pl.DataFrame:
    scores = [c.removesuffix("_low") for c in AGREEMENT.names if c.endswith("_low")]
    return agreement.select("strategy", "context", "verdict", *(with_interval(c, c) for c in scores))


def shown_ranks(ranks: pl.DataFrame) -> pl.DataFrame:
    return ranks.select(
        "context",
        "predictor",
        "measure",
        pl.col("n_items").alias("items"),
        with_interval("kendall_tau", "Kendall τ [interval]", "tau_low", "tau_high"),
        pl.col("n_decisions").alias("pairs"),
        with_interval("decision_accuracy", "pairs ordered right [interval]", "decision_low", "decision_high"),
    )


if __name__ == "__main__":
    cli.run(
        main,
        cli.parser(
            __doc__,
            settings="the section `validation` as JSON",
            statistics="the section `statistics` as JSON",
            evaluation="Parquet file of the evaluation set",
            runs="JSON list of {table, row, model, seed, run, labels, likelihoods}, the last two Parquet files of scores",
            proxies="JSON: by context, and then `control` or a strategy, the Parquet file of likelihood scores",
            studies="JSON: by study, its baseline and the Parquet files pairs, verdicts and rivals",
            claims="YAML file of the paper's claims",
            tables="folder of the tables",
            figures="folder of the figures",
            page="HTML file of the report",
        ),
    )
