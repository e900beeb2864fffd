"""Claims, such as a paper's, held against the results: of a comparison about its rows, of an influence study about its curves.

A study's claims stand in a file of their own. `above` holds if the interval of this minus that lies above the value and fails if it lies
below; `below` the other way round; `near` holds if the interval lies within the study's `near` around the value and fails if it lies
outside. Everything else cannot be told.
"""

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from swift_study.config import MAIN, ComparisonStudy, InfluenceStudy, Statistics, curve_name, nearest
from swift_study.errors import UserError
from swift_study.influence.statistics import counted, grid, interval, mean, member_draws, resampled_means, task_draws
from swift_study.io.tables import CLAIMS, as_frame
from swift_study.studies.comparison import Compared

NAN = float("nan")
MOVED = "claims stand in a file for each study now: take `where` out, and name the file in studies.<name>.claims"


class Claim(BaseModel):
    """One thing that is claimed, as in data/claims/."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: str
    claim: str
    of: Literal["mean", "first", "last", "trend"] = "mean"
    says: Literal["above", "below", "near"]
    this: str
    that: str | None = None
    value: float = 0.0
    metric: str | None = None
    evaluation: str | None = None

    @model_validator(mode="after")
    def _two_things(self) -> "Claim":
        if self.this == self.that:
            raise ValueError(f"this and that are both {self.this!r}")
        return self


def load_claims(path: Path) -> list[Claim]:
    """The claims of a file. UserError names the file, the claim's number and what is wrong with it."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. Set the study's `claims` to a file of claims, or to null.")
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.object[error.start]:#04x} at position {error.start} is not UTF-8. Convert it.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that is none
        raise UserError(f"{path}: this is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of claims, each with the keys {', '.join(Claim.model_fields)}.")
    claims = []
    for number, row in enumerate(rows, 1):
        try:
            claims.append(Claim.model_validate(row))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            key = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                moved = MOVED if key == "where" else f"known are {', '.join(Claim.model_fields)}"
                what = f"unknown key `{key}`{nearest(key, Claim.model_fields)}; {moved}"
            elif problem["type"] == "missing":
                what = f"`{key}` is missing"
            else:
                what = (f"`{key}`: " if key else "") + problem["msg"].removeprefix("Value error, ")
            raise UserError(f"{path}, claim {number}: {what}.") from error
    return claims


def usable_claims(claims: Sequence[Claim], known: Collection[str], left_out: Collection[str], kind: str, path: object) -> list[Claim]:
    """The claims about rows or curves (``kind``) that are there; those about one of ``left_out`` are not among them.

    Any other name is a UserError, with the nearest known one.
    """
    usable = []
    for number, claim in enumerate(claims, 1):
        where = f"{path}, claim {number} ({claim.source})"
        missing = [name for name in (claim.this, claim.that) if name is not None and name not in known]
        for name in missing:
            if name not in left_out:
                raise UserError(f"{where}: there is no {kind} {name!r}{nearest(name, known)}; known are {', '.join(known)}.")
        if kind == "row" and claim.of != "mean":
            raise UserError(f"{where}: `of` is about curves; this claim is about rows.")
        if kind == "curve" and (claim.metric or claim.evaluation):
            raise UserError(f"{where}: `metric` and `evaluation` are about rows; this claim is about curves.")
        if not missing:
            usable.append(claim)
    return usable


def read_claims(file: str, known: Collection[str], left_out: Collection[str], kind: str) -> tuple[list[Claim], int]:
    """The usable claims of a file, and how many others it has; none without a file."""
    claims = load_claims(Path(file)) if file else []
    usable = usable_claims(claims, known, left_out, kind, file)
    return usable, len(claims) - len(usable)


def outcome(says: str, low: float, high: float, near: float, value: float = 0.0) -> str:
    """Whether a claim about a number with the interval [low, high] holds, fails, or cannot be told; ``near`` is the tolerance of near."""
    low, high = low - value, high - value
    if says == "near":
        holds, fails = -near <= low and high <= near, low > near or high < -near
    else:
        holds, fails = (low > 0, high < 0) if says == "above" else (high < 0, low > 0)
    return "holds" if holds else "fails" if fails else "cannot tell"  # NaN is none of these


# ---- rows of a comparison ----


def published_outcome(claim: Claim, study: ComparisonStudy, series: str) -> str | None:
    """What published values of one series say of a claim: by sign, and near within `published_near`. None where they lack a row."""
    values = study.published.get(series, {})
    this, that = values.get(claim.this), values.get(claim.that or study.reference(claim.this) or "")
    if this is None or that is None:
        return None
    d = round(this - that - claim.value, 9)
    holds = {"above": d > 0, "below": d < 0, "near": abs(d) <= study.published_near}[claim.says]
    return "holds" if holds else "fails"


def claims_schema(study: ComparisonStudy | InfluenceStudy) -> pa.Schema:
    published = study.published if isinstance(study, ComparisonStudy) else {}
    return pa.schema([*CLAIMS, *(pa.field(f"published_{name}", pa.string()) for name in published)])


def claims_about_rows(claims: Sequence[Claim], c: Compared, name: str) -> pl.DataFrame:
    """Each claim once for each block, and for each metric that the study's `near` names, or for the claim's own metric."""
    rows: list[dict[str, object]] = []
    for claim in claims:
        that = claim.that or c.study.reference(claim.this)
        metrics = [claim.metric] if claim.metric else list(c.study.near)
        evaluation = c.evaluation(claim.evaluation)
        for block in c.blocks():
            for metric in metrics:
                cell = c.cell(claim.this, evaluation, metric, block)
                if cell is None:
                    raise UserError(
                        f"The claim {claim.claim!r} ({claim.source}) is about {metric!r} on {evaluation!r}, which the row {claim.this!r} "
                        "lacks. Change the claim's metric or evaluation, or the study's `near`."
                    )
                gain = c.gain(cell, that)
                low, high, value = (NAN, NAN, NAN) if gain is None else (gain.estimate.low, gain.estimate.high, gain.estimate.value)
                near = c.study.near.get(metric, NAN)
                about = {"block": ", ".join(f"{k}={v}" for k, v in block) or None, "evaluation": evaluation, "metric": metric}
                published = {f"published_{s}": published_outcome(claim, c.study, s) for s in c.study.published}
                rows.append(_row(name, claim, cell.model, that, (value, low, high), near) | about | published)
    return as_frame(rows, claims_schema(c.study))


def _row(study: str, claim: Claim, model: str, that: str | None, found: tuple[float, float, float], near: float) -> dict[str, object]:
    value, low, high = found
    return {
        "study": study,
        "source": claim.source,
        "claim": claim.claim,
        "model": model,
        "this": claim.this,
        "that": that,
        "estimate": value,
        "ci_low": low,
        "ci_high": high,
        "outcome": outcome(claim.says, low, high, near, claim.value),
    }


# ---- curves of an influence study ----


@dataclass(frozen=True)
class Difference:
    """A number with its interval, and its value in every resample; NaN where there is none."""

    value: float
    low: float
    high: float
    draws: np.ndarray  # (resamples,)


def curves_of(pairs: pl.DataFrame) -> list[str]:
    """The curves of a pairs table."""
    return [curve_name(*row) for row in pairs.select("probe_set", "context", "target_set").unique(maintain_order=True).iter_rows()]


def is_curve(name: str) -> pl.Expr:
    context = pl.col("context").str.head(1).str.to_uppercase() + pl.col("context").str.slice(1)
    return pl.format("{} → {} {}", "probe_set", context, "target_set") == name


def curve_estimate(pairs: pl.DataFrame, this: str, that: str | None, of: str, settings: Statistics) -> Difference:
    """This curve minus that one (or 0) of one study: its mean over the counted checkpoints, its value at the first published or the last
    checkpoint, or the last minus the first counted one. Both sides follow the same draws of tasks. NaN where there is no such checkpoint.
    """
    published = pairs.filter(pl.col("step") > 0)["step"].unique().sort().to_list()
    steps = counted(pairs, settings)["step"].unique().sort().to_list()
    signs: list[tuple[float, list[int]]]
    match of:
        case "mean":
            signs = [(1.0, steps)]
        case "first":
            signs = [(1.0, published[:1])]
        case "last":
            signs = [(1.0, published[-1:])]
        case _:
            signs = [(1.0, steps[-1:]), (-1.0, steps[:1])] if len(steps) > 1 else [(1.0, [])]
    tasks = sorted({*pairs["probe_task"], *pairs["target_task"]})
    drawn = task_draws(len(tasks), settings.resamples, np.random.default_rng(settings.seed))
    value, draws, n_tasks = 0.0, np.zeros(settings.resamples), len(tasks)
    for side, curve in ((1.0, this), (-1.0, that)):
        if curve is None:
            continue
        own = pairs.filter(is_curve(curve))
        n_tasks = min(n_tasks, own["probe_task"].n_unique())
        for sign, chosen in signs:
            v, d = _resampled_curve(own.filter(pl.col("step").is_in(chosen)), tasks, drawn, settings)
            value, draws = value + side * sign * v, draws + side * sign * d
    return Difference(value, *interval(draws, n_tasks, settings.confidence), draws)


def _resampled_curve(pairs: pl.DataFrame, tasks: list[str], drawn: np.ndarray, settings: Statistics) -> tuple[float, np.ndarray]:
    if pairs.is_empty():
        return NAN, np.full(settings.resamples, NAN)
    g = grid(pairs, "rel_inf", tasks, pairs["context"][0] == "in-task")

    def members(side: int, task_of: np.ndarray) -> np.ndarray:
        """The same draws for probe sets, or target sets, with the same tasks: their k-th examples belong together."""
        rng = np.random.default_rng([settings.seed, side, zlib.crc32(task_of.astype(np.int64).tobytes())])
        return member_draws(task_of, settings.resamples, rng)

    return mean(g), resampled_means(g, drawn, members(1, g.probe_task), members(2, g.target_task))


def claims_about_curves(
    claims: Sequence[Claim], pairs: pl.DataFrame, name: str, study: InfluenceStudy, statistics: Statistics
) -> pl.DataFrame:
    near = study.near.get("rel_inf", NAN)
    rows = []
    for claim in claims:
        found = curve_estimate(pairs, claim.this, claim.that, claim.of, statistics)
        numbers = (found.value, found.low, found.high)
        rows.append(_row(name, claim, MAIN, claim.that, numbers, near) | {"metric": "rel_inf"})
    return as_frame(rows, claims_schema(study))


def claims_sentence(table: pl.DataFrame, left_out: int) -> str:
    """How the claims of a study fare."""
    counts = {o: int((table["outcome"] == o).sum()) for o in ("holds", "fails", "cannot tell")}
    sentence = (
        f"The claims were held against these results {len(table)} times (a claim about rows once for each model and metric): "
        f"{counts['holds']} hold, {counts['fails']} fail, {counts['cannot tell']} cannot be told."
    )
    if left_out:
        sentence += f" {left_out} {'claim is' if left_out == 1 else 'claims are'} about rows or curves that are left out."
    return sentence
