"""Pages of comparisons, agreements, sweeps and correlations."""

from collections.abc import Iterable, Sequence

import polars as pl

from swift_study.config import AgreementStudy, ComparisonStudy, CorrelationStudy, ScoredStudy, Statistics, SweepStudy
from swift_study.report.pages import heading, html_table, page, paragraph


def with_interval(value: str, name: str, low: str | None = None, high: str | None = None) -> pl.Expr:
    """One cell `value [low, high]`; empty without a value, and with a dash for an end that is not known."""
    columns = (pl.col(c).round_sig_figs(3).cast(pl.String).fill_null("–") for c in (value, low or f"{value}_low", high or f"{value}_high"))
    return pl.when(pl.col(value).is_not_null()).then(pl.format("{} [{}, {}]", *columns)).alias(name)


def without_empty_columns(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(c for c in frame.columns if frame[c].null_count() < len(frame))


def intervals_note(study: ScoredStudy, statistics: Statistics, n_seeds: Iterable[int] = ()) -> str:
    """What the intervals draw, and what they do not speak of."""
    drawn = " and ".join(study.unit) + (f" within each {study.within}" if study.within else "")
    several = "each run was made with one seed, and how much another seed would change is unknown."
    if (seeds := max(n_seeds, default=1)) > 1:
        several = f"the standard deviation over up to {seeds} seeds stands beside each mean."
    return (
        f"Intervals are {statistics.confidence:.0%} bootstrap intervals; drawn are: {drawn}. They do not speak of other trainings: "
        f"{several} One in {round(1 / (1 - statistics.confidence))} of them misses its number by chance."
    )


# ---- comparisons ----


def comparison_page(
    study: ComparisonStudy,
    table: pl.DataFrame,
    claims: pl.DataFrame,
    sentences: Sequence[str],
    statistics: Statistics,
) -> str:
    parts = [paragraph(sentence) for sentence in [*sentences, intervals_note(study, statistics, table["n_seeds"])]]
    for evaluation in table["evaluation"].unique(maintain_order=True):
        parts += [heading(f"{evaluation}"), html_table(shown_comparison(table.filter(pl.col("evaluation") == evaluation)))]
    parts.append(
        paragraph(
            "Gains are paired by query. p is that of a paired sign-flip test over queries (McNemar's exact test for the labels of one "
            "seed); of a metric that is no mean it comes from swapping the two rows' scores by query, and of a mean of evaluations from "
            "the bootstrap. It takes queries as independent; the interval allows for the likeness of those of one task, and is what "
            "claims go by. Holm's p is adjusted over the gains in one metric. A relative gain is left out where the start is near zero."
        )
    )
    if len(claims):
        near = ", ".join(f"±{value:g} ({metric})" for metric, value in study.near.items())
        rule = (
            f"A claim that one row is above (below) another holds if the {statistics.confidence:.0%} interval of the difference lies above "
            f"(below) 0, and fails if it lies on the other side; that it is near holds if the interval lies within {near}, and fails if it "
            "lies outside. Everything else cannot be told. The columns `published` say what the published values make of the claim, "
            f"without an interval, near being {study.published_near:g}."
        )
        parts += [heading("Claims"), paragraph(rule), html_table(shown_claims(claims))]
    return page(study.question, *parts)


def shown_comparison(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of one evaluation as people read them: empty columns are left out."""
    frame = table.select(
        "block",
        "row",
        "metric",
        "n",
        "unscored",
        with_interval("value", "value [interval]", "low", "high"),
        pl.col("sd").alias("sd over seeds"),
        "against",
        with_interval("gain", "gain [interval]"),
        pl.col("gain_p").round_sig_figs(2).alias("p"),
        pl.col("gain_p_holm").round_sig_figs(2).alias("Holm's p"),
        with_interval("relative_gain", "relative gain"),
        with_interval("over_control", "over the control"),
        pl.col("over_control_p").round_sig_figs(2).alias("its p"),
        *(c for c in table.columns if c.startswith("published_")),
    )
    return without_empty_columns(frame)


def shown_claims(claims: pl.DataFrame) -> pl.DataFrame:
    frame = claims.select(
        "source",
        "claim",
        "block",
        "metric",
        "this",
        "that",
        with_interval("estimate", "this minus that [interval]", "ci_low", "ci_high"),
        "outcome",
        *(c for c in claims.columns if c.startswith("published_")),
    )
    return without_empty_columns(frame)


# ---- agreement ----


def agreement_page(
    study: AgreementStudy, table: pl.DataFrame, ranks: pl.DataFrame, decisions: pl.DataFrame, sentences: Sequence[str]
) -> str:
    over = "Numbers are differences from each study's control. " if study.over_control else ""
    note = f"{over}Predictors: {', '.join(study.predictors)}. Outcomes: {', '.join(study.outcomes)}."
    control = "the control stands among the items with 0, and " if study.over_control else ""
    rule = (
        "Kendall's τ-b between predictor and outcome, and the share of pairs of items that the predictor orders as the outcome does; "
        f"{control}a tie counts half. Pairs are within a group; `all` pools them. A pair is decided where the interval of its difference "
        "in the outcome excludes 0. The rows `ceiling` have the outcome itself as predictor, of another seed's training or on the other "
        "half of the queries: no predictor can be expected to do better. With few items the intervals (both sides resampled) are wide: "
        "read them first."
    )
    numbers = [*study.predictors, *study.outcomes]
    shown = table.select("group", "item", "verdict", *(with_interval(c, c) for c in numbers))
    missed = decisions.filter(pl.col("decided") & (pl.col("right") < 1))
    parts = [*map(paragraph, sentences), heading("Numbers of the items"), paragraph(note), html_table(shown)]
    parts += [heading("Agreement"), paragraph(rule), html_table(shown_ranks(ranks))]
    if len(missed):
        parts += [heading("Decided pairs that a predictor does not order right"), html_table(missed.drop("decided"))]
    return page(study.question, *parts)


def shown_ranks(ranks: pl.DataFrame) -> pl.DataFrame:
    return ranks.select(
        "group",
        "predictor",
        "outcome",
        pl.col("n_items").alias("items"),
        with_interval("kendall_tau", "Kendall τ [interval]", "tau_low", "tau_high"),
        pl.col("n_decisions").alias("pairs"),
        with_interval("decision_accuracy", "pairs ordered right [interval]", "decision_low", "decision_high"),
        pl.col("n_decided").alias("decided"),
        with_interval("decided_accuracy", "decided pairs ordered right [interval]", "decided_low", "decided_high"),
    )


# ---- sweeps ----


def sweep_page(
    study: SweepStudy,
    table: pl.DataFrame,
    phases: pl.DataFrame,
    savings: pl.DataFrame,
    statistics: Statistics,
    sentences: Sequence[str] = (),
) -> str:
    parts = [paragraph(sentence) for sentence in [*sentences, intervals_note(study, statistics, table["n_seeds"])]]
    if len(phases):
        rule = (
            f"The first {study.x} at which a fit that never falls reaches the bar, with the interval of that {study.x}; empty: not within "
            f"the grid, in which `reached` says how often it is. `surely` is the first {study.x} at which the fit's lower bound reaches "
            "the bar."
        )
        shown = phases.select(
            "phase", "panel", "line", "evaluation", "metric", "bar",
            with_interval("x", f"first {study.x} [interval]", "x_low", "x_high"), pl.col("x_sure").alias("surely"), "reached", "last_x",
        )  # fmt: skip
        parts += [heading("Phases"), paragraph(rule), html_table(shown)]
    if len(savings):
        rule = (
            f"How much more {study.x} the other line needs for the value that the line has; negative: less. Empty: it does not get there "
            "within its grid, and `beyond` says in which share of the resamples."
        )
        shown = savings.select(
            "saving", "panel", "line", "against", "evaluation", "metric", pl.col("x").alias(f"x: {study.x}"), "value",
            with_interval("saved", "saved [interval]"), "beyond",
        )  # fmt: skip
        parts += [heading("Savings"), paragraph(rule), html_table(shown)]
    shown = table.select(
        "panel", "line", "evaluation", "metric", pl.col("x").alias(f"x: {study.x}"), "n", "unscored",
        with_interval("value", "value [interval]", "low", "high"), pl.col("sd").alias("sd over seeds"),
        with_interval("over_start", "over the start"),
    )  # fmt: skip
    parts += [heading("All points"), html_table(without_empty_columns(shown))]
    return page(study.question, *parts)


# ---- correlations ----


def correlation_page(study: CorrelationStudy, table: pl.DataFrame, statistics: Statistics, sentences: Sequence[str] = ()) -> str:
    rule = (
        "Spearman's ρ over responses: `pooled` over all; `within` the levels of a column, averaged over those where it is defined; "
        "`between` the means of the levels; `group`: in one level. A metric whose pooled ρ is much below the one within is not comparable "
        "across the levels."
    )
    shown = table.select(
        "metric", "scope", "column", "level", pl.col("n_groups").alias("groups"), "n", with_interval("rho", "ρ [interval]", "low", "high")
    )
    main, groups = (shown.filter(pl.col("scope") != "group"), shown.filter(pl.col("scope") == "group"))
    parts = [*map(paragraph, sentences), paragraph(intervals_note(study, statistics)), paragraph(rule)]
    parts += [heading(f"Correlation with {study.reference}"), html_table(main.drop("level"))]
    if len(groups):
        parts += [heading("By level"), html_table(groups.drop("groups"))]
    return page(study.question, *parts)
