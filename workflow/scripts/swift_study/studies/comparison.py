"""Comparisons: do rows differ in a metric? Their table, paired by query, and what its rows are in every resample."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow as pa

from swift_study.config import ComparisonStudy
from swift_study.config.families import means
from swift_study.errors import UserError
from swift_study.io.tables import COMPARISON, as_frame
from swift_study.studies.estimates import (
    Estimate,
    Gain,
    Resamples,
    Rule,
    Statistic,
    bootstrap_p,
    gains,
    group_means,
    holm,
    levels,
    minus,
    relative,
    rescaled,
    scored,
)
from swift_study.studies.manifest import FIXED
from swift_study.studies.scores import Scores, metric_of

Block = tuple[tuple[str, Any], ...]  # factors that differ within rows, such as the model


@dataclass(frozen=True)
class Cell:
    """A row of a block on one evaluation (or in the mean of a group), in one metric."""

    block: Block
    row: str
    run: str
    model: str
    evaluation: str
    metric: str
    scorer: str | None
    seeds: tuple[int, ...]
    n: int
    unscored: int
    level: Estimate
    statistics: tuple[Statistic, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Compared:
    """A comparison with all its cells, and the rule of every scorer."""

    study: ComparisonStudy
    cells: list[Cell]
    rules: Mapping[str, Rule]
    resamples: Resamples
    missing: list[str] = field(default_factory=list)  # sentences about pairs and gaps

    @cached_property
    def _by_place(self) -> dict[tuple[str, str, str, Block], Cell]:
        return {(c.row, c.evaluation, c.metric, c.block): c for c in self.cells}

    def rows(self) -> list[str]:
        return list(dict.fromkeys(cell.row for cell in self.cells))

    def blocks(self) -> list[Block]:
        return list(dict.fromkeys(cell.block for cell in self.cells))

    def evaluation(self, name: str | None) -> str:
        """The evaluation's path, or the group, that a name in the configuration means, such as `asked[form=a]`; the first without a name.

        A name that means none, or several, as it is.
        """
        known = list(dict.fromkeys(cell.evaluation for cell in self.cells))
        if name is None or name in known:
            return name or known[0]
        found = [path for path in known if means(name, path)]
        return found[0] if len(found) == 1 else name

    def cell(self, row: str, evaluation: str, metric: str, block: Block) -> Cell | None:
        return self._by_place.get((row, evaluation, metric, block))

    def gain(self, cell: Cell, row: str | None) -> Gain | None:
        """The cell's metric minus that of another row of its block; None where there is no such row, or it is the same."""
        other = self.cell(row, cell.evaluation, cell.metric, cell.block) if row is not None and row != cell.row else None
        if other is None:
            return None
        if cell.scorer is None or other.scorer is None:  # means of groups
            difference = minus(cell.level, other.level, self.resamples)
            return Gain(difference, bootstrap_p(difference.draws))
        ours, theirs = _same_seeds(cell, other)
        found = gains(ours, theirs, self.rules[cell.scorer], self.resamples)[_own_name(cell)]
        chance = chance_of(self.study, cell.evaluation)
        return found if chance is None else Gain(rescaled(found.estimate, chance, difference=True), found.p)


def chance_of(study: ComparisonStudy, evaluation: str) -> float | None:
    """What chance gets at a point of an evaluation, by its path; None where the study does not say."""
    return next((chance for name, chance in study.chance.items() if means(name, evaluation)), None)


def groups_of(study: ComparisonStudy, evaluations: Iterable[str]) -> dict[str, list[str]]:
    """The study's groups with the paths of their evaluations; one that has none stays as it is named."""
    paths = list(dict.fromkeys(evaluations))
    found = {name: [path for path in paths if means(name, path)] or [name] for name in study.evaluations}
    return {group: [path for name in members for path in found.get(name, [name])] for group, members in study.groups.items()}


def _own_name(cell: Cell) -> str:
    return cell.metric.rpartition(".")[2]


def _same_seeds(a: Cell, b: Cell) -> tuple[list[Statistic], list[Statistic]]:
    """Statistics of the seeds that both rows have; where they share none and have equally many, seed by seed in their order."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    if common:
        return [a.statistics[a.seeds.index(s)] for s in common], [b.statistics[b.seeds.index(s)] for s in common]
    if len(a.seeds) == len(b.seeds):
        return list(a.statistics), list(b.statistics)
    raise UserError(
        f"The rows {a.row!r} (seeds {', '.join(map(str, a.seeds))}) and {b.row!r} (seeds {', '.join(map(str, b.seeds))}) share no seed, "
        "so that their difference cannot be paired by seed. Give them the same seeds."
    )


def compare(study: ComparisonStudy, scores: Scores) -> Compared:
    """All cells of a comparison. UserError if no scorer gives a metric, unless the study has `if_missing: "null"`."""
    manifest, rules = scores.manifest, scores.rules
    factors = [c for c in manifest.columns if c not in FIXED]
    blocks = block_factors(manifest, factors)
    groups = groups_of(study, manifest["evaluation"])
    cells: list[Cell] = []
    missing: dict[str, None] = {}
    every = list(dict.fromkeys(_block(entry, blocks) for entry in manifest.iter_rows(named=True)))
    whole = [b for b in every if not any(_covers(other, b) and other != b for other in every)]
    by_row: dict[str, list[dict[str, Any]]] = {}
    for entry in manifest.iter_rows(named=True):
        by_row.setdefault(entry["row"], []).append(entry)
    for block in whole:
        for row, entries in by_row.items():
            own = [e for e in entries if _covers(block, _block(e, blocks))]
            if not own:
                continue
            estimates: dict[str, dict[str, Estimate]] = {}
            for evaluation in dict.fromkeys(e["evaluation"] for e in own):
                runs = {e["seed"]: e["run"] for e in own if e["evaluation"] == evaluation}
                by_seed = [scores.statistics[run, evaluation] for run in runs.values()]
                found_levels: dict[str, dict[str, Estimate]] = {}
                for metric in study.metrics:
                    place = metric_of(metric, rules, by_seed[0])
                    if place is None:
                        missing[f"No scorer of {evaluation} gives the metric {metric!r}."] = None
                        continue
                    scorer, name = place
                    statistics = tuple(own_scores[scorer] for own_scores in by_seed)
                    if scorer not in found_levels:
                        found_levels[scorer] = levels(statistics, rules[scorer], scores.resamples)
                    level = found_levels[scorer][name]
                    if (chance := chance_of(study, evaluation)) is not None:
                        level = rescaled(level, chance)
                    asked = scores.asked[evaluation]
                    unscored = sum(int((asked & ~scored(s)).sum()) for s in statistics)
                    about = (block, row, next(iter(runs.values())), own[0]["model"])
                    cells.append(Cell(*about, evaluation, metric, scorer, tuple(runs), int(asked.sum()), unscored, level, statistics))
                    estimates.setdefault(metric, {})[evaluation] = level
            for metric, members in estimates.items():
                means, lacking = group_means(members, groups, scores.resamples)
                for group, names in lacking.items():
                    missing[f"The mean {group!r} of {metric} is left out for {row!r}: it lacks {', '.join(names)}."] = None
                for group, level in means.items():
                    seeds = tuple(range(len(level.by_seed)))
                    n = int(level.there.sum())
                    cells.append(Cell(block, row, own[0]["run"], own[0]["model"], group, metric, None, seeds, n, 0, level))
    lacking_metrics = [sentence for sentence in missing if sentence.startswith("No scorer")]
    if lacking_metrics and study.if_missing is None:
        raise UserError(f'{" ".join(lacking_metrics)} Add a scorer that does, or set the study\'s if_missing to "null".')
    return Compared(study, cells, rules, scores.resamples, [*scores.pairing, *missing])


def block_factors(manifest: pl.DataFrame, factors: Sequence[str]) -> list[str]:
    """The factors, `model` first, that differ between the runs of one row: they make blocks. Those of an evaluation make none."""
    found = []
    for factor in ("model", *factors):
        by_run = manifest.group_by("run").agg(pl.col(factor).n_unique().alias("levels"))
        if factor != "model" and by_run["levels"].max() != 1:
            continue  # a factor of the evaluation
        levels_of_row = manifest.group_by("row").agg(pl.col(factor).drop_nulls().n_unique().alias("levels"))["levels"].max()
        if isinstance(levels_of_row, int) and levels_of_row > 1:
            found.append(factor)
    return found


def _block(entry: Mapping[str, Any], factors: Sequence[str]) -> Block:
    return tuple((f, entry[f]) for f in factors)


def _covers(block: Block, other: Block) -> bool:
    """Whether ``other`` is the same block, or says nothing of what sets it apart."""
    return all(level is None or level == own for (_, own), (_, level) in zip(block, other, strict=True))


# ---- the table ----


def comparison_schema(study: ComparisonStudy) -> pa.Schema:
    """The table's columns: ``COMPARISON``, and a reference column for each of the published series."""
    return pa.schema([*COMPARISON, *(pa.field(f"published_{name}", pa.float64()) for name in study.published)])


def comparison_table(c: Compared) -> pl.DataFrame:
    """One row for each block, row, evaluation (or group) and metric, in the units of the metric.

    Gains are over the row `against`, paired by query, and null in that row itself; so are those over `control`, where that is another.
    ``gain_p_holm`` is adjusted over the gains of one evaluation and metric. A relative gain is null where the start is near zero.
    """
    study = c.study
    rows: list[dict[str, object]] = []
    for cell in c.cells:
        cells: dict[str, object] = {
            "block": ", ".join(f"{k}={v}" for k, v in cell.block) or None,
            "model": cell.model,
            "row": cell.row,
            "run": cell.run,
            "evaluation": cell.evaluation,
            "metric": cell.metric,
            "scorer": cell.scorer,
            "n_seeds": len(cell.seeds),
            "n": cell.n,
            "unscored": cell.unscored,
            "value": cell.level.value,
            "low": cell.level.low,
            "high": cell.level.high,
            "sd": cell.level.sd,
        }
        against, plain = study.reference(cell.row), study.plain
        for key, name, p in (("gain", against, "gain_p"), ("over_control", plain if plain != against else None, "over_control_p")):
            if (found := c.gain(cell, name)) is not None:
                e = found.estimate
                cells |= {
                    "against" if key == "gain" else "control": name,
                    key: e.value,
                    f"{key}_low": e.low,
                    f"{key}_high": e.high,
                    p: found.p,
                }
        start = c.cell(against, cell.evaluation, cell.metric, cell.block) if against else None
        if start is not None and (share := relative(cell.level, start.level, c.resamples)) is not None:
            cells |= {"relative_gain": share.value, "relative_gain_low": share.low, "relative_gain_high": share.high}
        if cell.metric == study.metrics[0] and cell.evaluation == c.cells[0].evaluation:
            cells |= {f"published_{name}": values.get(cell.row) for name, values in study.published.items()}
        rows.append(cells)
    _adjust(rows)
    return as_frame(rows, comparison_schema(study))


def _adjust(rows: Sequence[dict[str, object]]) -> None:
    """Holm over the gains of one evaluation and metric."""
    groups: dict[tuple[object, object], list[dict[str, object]]] = {}
    for row in rows:
        if isinstance(row.get("gain_p"), float):
            groups.setdefault((row["evaluation"], row["metric"]), []).append(row)
    for members in groups.values():
        for row, p in zip(members, holm([float(str(row["gain_p"])) for row in members]), strict=True):
            row["gain_p_holm"] = p
