"""Studies in which the truth is known: simulated ones, and random panels of a pool of real gradients.

A study is a pairs table with the probe sets `strategy` and `control` and one target set, as ``statistics.verdicts`` takes it. Scores
are averaged over the checkpoints before they enter the table: ``statistics.grid`` would do just that, at the cost of more rows.
"""

import functools
from dataclasses import dataclass

import numpy as np
import polars as pl

SCORES = ("rel_inf", "rel_inf_mean_loss", "cosine")
STRATEGY, CONTROL = "strategy", "control"
CHECKPOINTS = 4  # that count in the default run
KEPT = 0.8  # of a direction's variance that one checkpoint shares with the others
DIMENSIONS = 64  # cosines of unrelated examples vary by 1/8, about as on the packaged model (0.09)


@dataclass(frozen=True)
class Panel:
    """Inner products of one study: probes are the strategy's, then the control's, task by task in both; targets task by task.

    ``dots`` (checkpoints, probes, targets), ``probe_sq`` (checkpoints, probes) and ``target_sq`` (checkpoints, targets): squared norms;
    ``probe_tokens`` (probes,) and ``target_tokens`` (targets,): lengths of the completions.
    """

    dots: np.ndarray
    probe_sq: np.ndarray
    target_sq: np.ndarray
    probe_tokens: np.ndarray
    target_tokens: np.ndarray


@dataclass(frozen=True)
class Null:
    """A world in which no strategy helps or hurts, by the ``scores`` that are named.

    ``own_effects``, ``skewed`` and ``longer`` are worlds in which strategy and control differ in single tasks, or in length: it is
    the mean effect over all tasks there are that is 0. In the others they have the same distribution in every task.
    """

    what: str
    scores: tuple[str, ...] = SCORES
    lengths: bool = True
    heavy: bool = False
    uneven: bool = False
    own_effects: float = 0.0
    skewed: float = 0.0
    longer: int = 1


NULLS = {
    "even": Null("all answers of 12 tokens, normal noise", lengths=False),
    "lengths": Null("answers of 2 to 60 tokens, gradients that grow with them"),
    "heavy tails": Null("gradient norms with the tails of a t distribution with 3 degrees of freedom", heavy=True),
    "uneven tasks": Null("each task's noise drawn from a lognormal distribution, one in six above 2.7 times the median", uneven=True),
    "own effects": Null("each side adds a direction of its own, which helps some target tasks and hurts others", own_effects=0.5),
    "skewed effects": Null("few tasks are helped much and many hurt a little (exponential distribution)", SCORES[:2], skewed=1.0),
    "longer": Null("the strategy's answers are 4 times as long; per token nothing differs", SCORES[1:], longer=4),
}  # fmt: skip


def simulate(null: Null, tasks: int, per_task: int, rng: np.random.Generator) -> Panel:
    """One study of ``tasks`` with ``per_task`` probes of each set and as many targets.

    A gradient is tokens × scale × direction. A direction is made of one common to all tasks, one of the task and one of the example, with
    variances 0.02, 0.2 and 0.78: cosines are about 0.2 within a task and 0.02 across, as on the packaged model. The k-th probes of
    both sets share half of their example's variance, since a strategy works on the control's example.
    """
    n = tasks * per_task

    def direction(count: int) -> np.ndarray:
        """(checkpoints, count, dimensions), expected squared norm 1."""
        lasting = rng.standard_normal((1, count, DIMENSIONS))
        passing = rng.standard_normal((CHECKPOINTS, count, DIMENSIONS))
        both: np.ndarray = (np.sqrt(KEPT) * lasting + np.sqrt(1 - KEPT) * passing) / np.sqrt(DIMENSIONS)
        return both

    of = np.repeat(np.arange(tasks), per_task)
    common, task, twin = direction(1), direction(tasks), direction(n)
    noise = rng.lognormal(0.0, 1.0, tasks)[of] if null.uneven else np.ones(n)
    skew = rng.exponential(1.0, tasks)[of] - 1
    own = {name: direction(n) for name in (STRATEGY, CONTROL, "target")}
    whole: dict[str, np.ndarray] = {}
    tokens: dict[str, np.ndarray] = {}
    for name, single in own.items():
        example = single if name == "target" else np.sqrt(0.5) * (single + twin) * noise[:, None]
        g = np.sqrt(0.02) * common + np.sqrt(0.2) * task[:, of] + np.sqrt(0.78) * example
        if name != "target" and null.own_effects:
            style = direction(1)  # what lies along the common direction would be an effect on all tasks: taken out
            along = (style * common).sum(axis=2, keepdims=True) / np.square(common).sum(axis=2, keepdims=True)
            g = g + null.own_effects * (style - along * common)
        if name == STRATEGY and null.skewed:
            g = g + null.skewed * np.sqrt(0.2) * skew[:, None] * task[:, of]
        scale = np.sqrt(3 / rng.chisquare(3, n)) if null.heavy else np.ones(n)
        tokens[name] = np.clip(rng.lognormal(np.log(12), 0.7, n), 2, 60).astype(np.int64) if null.lengths else np.full(n, 12)
        if name == STRATEGY:
            tokens[name] = tokens[name] * null.longer
        whole[name] = g * (tokens[name] * scale)[:, None]
    probes = np.concatenate([whole[STRATEGY], whole[CONTROL]], axis=1)
    return Panel(
        probes @ whole["target"].transpose(0, 2, 1),
        np.square(probes).sum(axis=2),
        np.square(whole["target"]).sum(axis=2),
        np.concatenate([tokens[STRATEGY], tokens[CONTROL]]),
        tokens["target"],
    )


@functools.lru_cache(maxsize=8)
def _layout(tasks: int, per_task: int) -> pl.DataFrame:
    """The columns of the pairs table that do not depend on the draw, probe by probe."""
    ids = [(f"{t:03}", f"{t:03}.{k}") for t in range(tasks) for k in range(per_task)]
    probes = pl.DataFrame(
        [(name, task, f"{name}.{i}") for name in (STRATEGY, CONTROL) for task, i in ids],
        schema=["probe_set", "probe_task", "probe_id"], orient="row",
    )  # fmt: skip
    targets = pl.DataFrame([("targets", *i) for i in ids], schema=["target_set", "target_task", "target_id"], orient="row")
    same = pl.col("probe_task") == pl.col("target_task")
    return probes.join(targets, how="cross", maintain_order="left_right").with_columns(
        pl.lit("null").alias("study"),
        pl.lit(1).alias("step"),
        pl.when(same).then(pl.lit("in-task")).otherwise(pl.lit("cross-task")).alias("context"),
    )


def pairs_of(panel: Panel, tasks: int, per_task: int) -> pl.DataFrame:
    """The pairs table of a panel, with one step: RelInf and cosine averaged over the checkpoints."""
    rel_inf = (panel.dots / panel.target_sq[:, None, :]).mean(axis=0)
    cosine = (panel.dots / np.sqrt(panel.probe_sq[:, :, None] * panel.target_sq[:, None, :])).mean(axis=0)
    shape = rel_inf.shape
    return _layout(tasks, per_task).with_columns(
        pl.Series("rel_inf", rel_inf.reshape(-1)),
        pl.Series("cosine", cosine.reshape(-1)),
        pl.Series("probe_tokens", np.broadcast_to(panel.probe_tokens[:, None], shape).reshape(-1)),
        pl.Series("target_tokens", np.broadcast_to(panel.target_tokens, shape).reshape(-1)),
    )


def plant(pairs: pl.DataFrame, effect: float) -> pl.DataFrame:
    """The study with ``effect`` added to the RelInf of all of the strategy's pairs."""
    return pairs.with_columns(pl.col("rel_inf") + effect * (pl.col("probe_set") == STRATEGY))
