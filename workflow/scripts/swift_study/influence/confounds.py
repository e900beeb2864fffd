"""The confound panel: what else than the strategy's content could explain a verdict?

Every verdict is given again under other scores, on the tasks whose completions are alike in length, and without each task in turn. A
check *agrees* where it gives the verdict that the sum-loss score gives. Where a check leaves too few tasks for any verdict, it says
*cannot tell*, and its ``n_tasks`` says how many are left. Where a study has references, each effect is told as a share of the way from
the floor (texts that have nothing to do with any task) to the ceiling (paraphrases of the targets) as well, by the check's own score.
Beside them stand baselines: cheaper scores, from which the verdict might be had without any gradient.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from swift_study.config import CEILING, FLOOR, Statistics
from swift_study.errors import UserError
from swift_study.influence.statistics import Unit, counted, effect, is_crossed, power, verdict, with_scores
from swift_study.io.tables import POWER

MAIN_CHECK = "sum-loss"
# Checks by the score that they take, all pairs being counted.
SCORES = {MAIN_CHECK: "rel_inf", "mean-loss": "rel_inf_mean_loss", "cosine": "cosine", "adam": "rel_inf_adam"}
LENGTH_MATCHED = "length-matched"
WITHOUT = "without: "
FAMILY = "family: "
# Baselines, and their columns in `baselines.parquet`.
BASELINE_SCORES = {"BM25": "bm25", "similarity": "similarity", "loss change": "loss_change"}
CANNOT_TELL = "cannot tell"


def fewest_tasks(confidence: float) -> int:
    """With fewer tasks than this no sign-flip test has p <= 1 - confidence: of n tasks the smallest p is 2^(1-n)."""
    return 1 + math.ceil(-math.log2(1 - confidence) - 1e-9)


@dataclass(frozen=True)
class Asked:
    """One verdict that is asked for again: a strategy against its control, on a target set in a context."""

    study: str
    strategy: str
    control: str
    context: str
    target_set: str
    wanted: bool
    settings: Statistics
    unit: Unit = "task"

    def again(self, check: str, pairs: pl.DataFrame, score: str, part: bool = False, way: float | None = None) -> dict[str, object]:
        """A row of the table: the effect in the column ``score`` of those of the pairs that are this verdict's.

        ``part``: the check leaves out pairs, so that too few tasks can be left to tell. ``way``: from floor to ceiling, by this score.
        """
        own = pairs.filter((pl.col("target_set") == self.target_set) & (pl.col("context") == self.context))
        e = effect(own, score, self.strategy, self.control, self.context == "in-task", self.settings, self.unit)
        too_few = part and e.n_tasks < fewest_tasks(self.settings.confidence)
        return {
            "study": self.study,
            "strategy": self.strategy,
            "context": self.context,
            "target_set": self.target_set,
            "check": check,
            "effect": _finite(e.difference),
            "of_scale": None if way is None else _finite(e.difference / way),
            "carried": None,
            "ci_low": _finite(e.low),
            "ci_high": _finite(e.high),
            "p_value": e.p_value,
            "n_probes": e.n_probes,
            "n_tasks": e.n_tasks,
            "verdict": CANNOT_TELL if too_few else verdict(e, self.settings.confidence, self.wanted),
        }


def confound_table(
    pairs: pl.DataFrame,
    control: str,
    settings: Statistics,
    length_factor: float,
    unwanted: Collection[str] = (),
    families: pl.DataFrame | None = None,
    baselines: pl.DataFrame | None = None,
    unit: Unit = "task",
) -> pl.DataFrame:
    """The confounds table of one study, in the order of its verdicts and, within one, of the checks.

    ``families``: the pairs again by family of modules. A family's row tells its own effect, by its own norms, and in ``carried`` which
    share of the sum-loss effect it carries; the shares add up to 1. ``baselines``: their table, like pairs of one checkpoint.
    """
    pairs = counted(with_scores(pairs), settings)
    if pairs.is_empty():
        raise UserError(f"No checkpoint lies after step {settings.after_step} (statistics.after_step); lower it or train longer.")
    by_family = [] if families is None else list(counted(families, settings).group_by("family", maintain_order=True))
    rows = []
    for asked in verdicts_of(pairs, control, settings, unwanted, unit):
        own = [
            asked.again(check, pairs, score, way=floor_to_ceiling(pairs, score, asked.target_set))
            for check, score in SCORES.items()
            if pairs[score].count()
        ]
        way = floor_to_ceiling(pairs, "rel_inf", asked.target_set)
        matched = matched_tasks(pairs, asked.strategy, control, length_factor)
        own.append(asked.again(LENGTH_MATCHED, pairs.filter(pl.col("probe_task").is_in(matched)), "rel_inf", True, way))
        tasks = pairs.filter(pl.col("probe_set").is_in([asked.strategy, control]))["probe_task"].unique().sort()
        own += [
            asked.again(f"{WITHOUT}{task}", pairs.filter(pl.col("probe_task") != task, pl.col("target_task") != task), "rel_inf", True, way)
            for task in tasks
        ]
        for (family,), found in by_family:
            again = asked.again(f"{FAMILY}{family}", found, "rel_inf", way=floor_to_ceiling(found, "rel_inf", asked.target_set))
            carried, whole = asked.again("", found, "carried")["effect"], own[0]["effect"]
            share = carried / whole if isinstance(carried, float) and isinstance(whole, float) and whole else None
            own.append(again | {"carried": share})
        own += [
            asked.again(name, baselines, score, way=floor_to_ceiling(baselines, score, asked.target_set))
            for name, score in BASELINE_SCORES.items()
            if baselines is not None
        ]
        rows += [row | {"agrees": agrees(row, own[0])} for row in own]
    return pl.DataFrame(rows, infer_schema_length=None)


def power_table(
    pairs: pl.DataFrame, control: str, settings: Statistics, unwanted: Collection[str] = (), unit: Unit = "task"
) -> pl.DataFrame:
    """The power table of one study: for every verdict, how often a study of as many tasks as this one, of twice and of four times as many,
    would tell an effect from zero (`statistics.power`, 100 draws each). No rows for a crossed design."""
    pairs = counted(pairs, settings)
    parts = []
    for asked in verdicts_of(pairs, control, settings, unwanted):
        own = pairs.filter((pl.col("target_set") == asked.target_set) & (pl.col("context") == asked.context))
        sides = (set(own.filter(pl.col("probe_set") == name)["probe_task"]) for name in (asked.strategy, control))
        tasks = len(set.intersection(*sides))
        if is_crossed(own, unit):
            continue
        told = power(own, "rel_inf", asked.strategy, control, asked.context == "in-task", settings, (tasks, 2 * tasks, 4 * tasks), 100)
        names = {"study": asked.study, "strategy": asked.strategy, "context": asked.context, "target_set": asked.target_set}
        parts.append(told.select(*(pl.lit(value).alias(name) for name, value in names.items()), pl.all()))
    return pl.concat(parts) if parts else pl.DataFrame(POWER.empty_table())


def layer_table(layers: pl.DataFrame, control: str, settings: Statistics, unit: Unit = "task") -> pl.DataFrame:
    """What each decoder layer carries of every effect of a study, with its interval: over all parts it adds up to the sum-loss effect.

    ``layers``: the pairs again by layer. Layer null is all that lies outside the decoder's layers.
    """
    layers = counted(layers, settings)
    by_layer = list(layers.group_by("layer", maintain_order=True))
    rows = [
        asked.again("", found, "carried") | {"layer": layer}
        for asked in verdicts_of(layers, control, settings, (), unit)
        for (layer,), found in by_layer
    ]
    names, numbers = ("strategy", "context", "target_set"), ("effect", "ci_low", "ci_high")
    schema = {**dict.fromkeys(names, pl.String), "layer": pl.Int32, **dict.fromkeys(numbers, pl.Float64)}
    return pl.DataFrame([[row[name] for name in schema] for row in rows], schema=schema, orient="row")


def verdicts_of(pairs: pl.DataFrame, control: str, settings: Statistics, unwanted: Collection[str], unit: Unit = "task") -> list[Asked]:
    """The verdicts of a study, in the order of the verdicts table."""
    found = pairs.filter(~pl.col("probe_set").is_in([control, CEILING, FLOOR]))
    found = found.select("study", "probe_set", "context", "target_set").unique(maintain_order=True)
    found = found.sort("context", "target_set", "probe_set", descending=[True, True, False])
    return [
        Asked(study, strategy, control, context, target_set, target_set not in unwanted, settings, unit)
        for study, strategy, context, target_set in found.iter_rows()
    ]


def floor_to_ceiling(pairs: pl.DataFrame, score: str, target_set: str) -> float | None:
    """The way from floor to ceiling for these targets: paraphrases' mean score on targets of their own task less unrelated texts' on all.

    In either context the ceiling is in-task: there is nothing better for a target than a paraphrase of it. None where a study has no
    references, or where by this score unrelated text does as much as a paraphrase.
    """
    own = pairs.filter(pl.col("target_set") == target_set)
    ceiling = own.filter((pl.col("probe_set") == CEILING) & (pl.col("context") == "in-task"))[score].mean()
    floor = own.filter(pl.col("probe_set") == FLOOR)[score].mean()
    if not isinstance(ceiling, float) or not isinstance(floor, float) or not ceiling > floor:
        return None
    return ceiling - floor


def matched_tasks(pairs: pl.DataFrame, strategy: str, control: str, factor: float) -> list[str]:
    """Tasks whose mean completion length in tokens differs between the two probe sets by no more than the factor."""
    lengths = pairs.select("probe_set", "probe_task", "probe_id", "probe_tokens").unique()
    lengths = lengths.group_by("probe_set", "probe_task").agg(pl.col("probe_tokens").mean().alias("length"))
    ours, theirs = (lengths.filter(pl.col("probe_set") == name).select("probe_task", "length") for name in (strategy, control))
    ratio = pl.col("length") / pl.col("length_right")
    matched = ours.join(theirs, on="probe_task").filter((ratio <= factor) & (ratio >= 1 / factor))
    return matched["probe_task"].sort().to_list()


def agrees(row: dict[str, object], main: dict[str, object]) -> bool | None:
    """Whether the check gives the same verdict as the sum-loss score; None where it cannot tell."""
    return None if row["verdict"] == CANNOT_TELL else row["verdict"] == main["verdict"]


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


# ---- in words ----

# A family that carries less of the effect than this is not told of: what it says alone explains no verdict.
WORTH_TELLING = 0.1
BY_SCORE = {"sum-loss": "sum loss", "mean-loss": "mean loss", "cosine": "cosine", "adam": "Adam's scale"}
KEYS = ("study", "strategy", "context", "target_set")


def disagreements(table: pl.DataFrame) -> list[str]:
    """One sentence for each verdict of a confounds table that does not stand by every check; of baselines it says nothing."""
    sentences = [_disagreement(part) for _, part in table.group_by(KEYS, maintain_order=True)]
    return [sentence for sentence in sentences if sentence is not None]


def _disagreement(rows: pl.DataFrame) -> str | None:
    """Of the rows of one verdict; None where nothing disagrees."""
    by_check = {row["check"]: row for row in rows.iter_rows(named=True)}
    main = by_check[MAIN_CHECK]
    others = [
        f"{by_check[check]['verdict']} by {BY_SCORE[check]}" for check in SCORES if check in by_check and by_check[check]["agrees"] is False
    ]
    lengths = by_check[LENGTH_MATCHED]
    if lengths["agrees"] is False or (lengths["agrees"] is None and main["verdict"] != "no evidence"):
        others.append(f"{lengths['verdict']} at like lengths ({_tasks(lengths['n_tasks'])})")
    families = [
        row
        for check, row in by_check.items()
        if check.startswith(FAMILY) and row["agrees"] is False and abs(row["carried"] or 0) >= WORTH_TELLING
    ]
    for said in dict.fromkeys(row["verdict"] for row in families):
        named = [row["check"].removeprefix(FAMILY) for row in families if row["verdict"] == said]
        others.append(f"{said} in {_listed(named, 'and')}")
    flips = [check.removeprefix(WITHOUT) for check, row in by_check.items() if check.startswith(WITHOUT) and row["agrees"] is False]
    if not others and not flips:
        return None
    head = f"{main['strategy']} → {main['context']} {main['target_set']}: {main['verdict']} by sum loss"
    return (
        head
        + (f", but {', '.join(others)}" if others else "")
        + (f"; flips when {_listed(flips, 'or')} is left out" if flips else "")
        + "."
    )


def overview(table: pl.DataFrame) -> str:
    """How many verdicts of a confounds table stand by every check."""
    total, shaken = table.select(KEYS).n_unique(), len(disagreements(table))
    everywhere = "under every score, at like lengths, in every family of modules that matters and without any one task"
    if not shaken:
        return f"All {total} verdicts stand {everywhere}."
    return (
        f"Caution: {shaken} of {total} verdicts do not stand {everywhere}. Sum-loss RelInf grows with the length of the probe's "
        "completion: where scores disagree, a verdict may speak of length rather than of content."
    )


def _listed(names: Sequence[str], joint: str, most: int = 3) -> str:
    """`a`, `a or b`, `a, b, c or one of 4 more`, by the joint word."""
    more = f"{'one of ' if joint == 'or' else ''}{len(names) - most} more"
    shown = [*names[:most], *([more] if len(names) > most else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {joint} {shown[-1]}"


def _tasks(number: int) -> str:
    return f"{number} task" if number == 1 else f"{number} tasks"


def panel(table: pl.DataFrame) -> pl.DataFrame:
    """The confounds table with one row a verdict and one column a check: what the report shows."""
    rows = []
    for (_, strategy, context, target_set), part in table.group_by(KEYS, maintain_order=True):
        by_check = {row["check"]: row for row in part.iter_rows(named=True)}
        left_out = {c.removeprefix(WITHOUT): row["agrees"] for c, row in by_check.items() if c.startswith(WITHOUT)}
        flips = [task for task, same in left_out.items() if same is False]
        lengths = by_check[LENGTH_MATCHED]
        way = by_check[MAIN_CHECK]["of_scale"]
        families = [row for check, row in by_check.items() if check.startswith(FAMILY)]
        told = all(same is not None for same in left_out.values())
        rows.append(
            {
                "strategy": strategy,
                "context": context,
                "target": target_set,
                "of the way from floor to ceiling": None if way is None else f"{way:+.1%}",
                **{BY_SCORE[c]: by_check[c]["verdict"] if c in by_check else None for c in SCORES},
                "like lengths": f"{lengths['verdict']} ({_tasks(lengths['n_tasks'])})",
                "families of modules": _families(families),
                **{name: by_check[name]["verdict"] if name in by_check else None for name in BASELINE_SCORES},
                "flips when left out": ", ".join(flips) or ("none" if told else CANNOT_TELL),
            }
        )
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.select(c for c in frame.columns if frame[c].null_count() < len(frame))


def power_panel(table: pl.DataFrame) -> pl.DataFrame:
    """The power table as the report shows it: a row for each verdict, its numbers of tasks side by side."""
    shown = table.with_columns(
        pl.format("{}%", (100 * pl.col("power")).round(0).cast(pl.Int64)).alias("told"),
        pl.when(pl.col("planted") == "observed").then(pl.lit("the observed effect")).otherwise(pl.lit("half a deviation")).alias("what"),
        (pl.col("n_tasks") // pl.col("n_tasks").min().over(KEYS)).alias("times"),
    )
    rows = []
    for keys, part in shown.group_by([*KEYS, "what"], maintain_order=True):
        _, strategy, context, target_set, what = keys
        numbers = {
            f"told at {'as many' if k == 1 else f'{k} times as many'} tasks": told for k, told in part.select("times", "told").iter_rows()
        }
        size = f"{part['effect'][0]:+.2g}"
        about = {"strategy": strategy, "context": context, "target": target_set, "tasks": part["n_tasks"][0]}
        rows.append({**about, "effect": f"{what} ({size})", **numbers})
    return pl.DataFrame(rows, infer_schema_length=None)


def _families(rows: Sequence[Mapping[str, object]]) -> str | None:
    """In how many families the verdict holds, and which one carries most of the effect; None where there are no families."""
    if not rows:
        return None
    same = sum(row["agrees"] is True for row in rows)
    share, most = max((share, str(row["check"]).removeprefix(FAMILY)) for row in rows if isinstance(share := row["carried"] or 0.0, float))
    return f"{same} of {len(rows)} agree; {most} carries {share:.0%}"
