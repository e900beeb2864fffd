"""Figures: curves with bands, one panel a figure, as in the paper; and the base run's loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import polars as pl

from swift_study.work import publish

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLES = {"in-task": "-", "cross-task": "--"}
# Text stays text, and the same figure is the same bytes.
plt.rcParams.update(
    {"svg.fonttype": "none", "svg.hashsalt": "swift-study", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
)


def draw_curves(table: pl.DataFrame, contexts: Sequence[str], title: str, svg: Path, png: Path) -> None:
    """Mean RelInf by step with its interval: one line for each probe set, target set and context of ``contexts``."""
    figure, axes = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
    several = len(contexts) > 1
    colours = {key: k for k, key in enumerate(_distinct(table, "probe_set", "target_set"))}
    for context in contexts:
        for (probe_set, target_set, curve), part in table.filter(pl.col("context") == context).group_by(
            "probe_set", "target_set", "curve", maintain_order=True
        ):
            k = colours[(probe_set, target_set)] % len(COLOURS)
            after = part.filter(pl.col("step") > 0)
            style: dict[str, Any] = {
                "color": COLOURS[k],
                "linestyle": STYLES[context] if several else "-",
                "marker": MARKERS[k],
                "markersize": 4,
            }
            axes.plot(after["step"], after["rel_inf"], label=str(curve), linewidth=1.6, **style)
            axes.fill_between(after["step"], after["ci_low"], after["ci_high"], color=COLOURS[k], alpha=0.09, linewidth=0)
            for edge in ("ci_low", "ci_high"):
                axes.plot(after["step"], after[edge], color=COLOURS[k], alpha=0.35, linewidth=0.7)
            before = part.filter(pl.col("step") == 0)
            if len(before):
                axes.plot(before["step"], before["rel_inf"], color=COLOURS[k], marker=MARKERS[k], markersize=5, fillstyle="none")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="training step of the base run", ylabel="mean RelInf (sum loss)", title=title)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, handlelength=3.5)
    _save(figure, svg, png)


def draw_loss(history: pl.DataFrame, title: str, svg: Path, png: Path) -> None:
    """Training loss a step and the learning rate."""
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    axes.plot(history["step"], history["loss"], color=COLOURS[1], linewidth=1.4)
    axes.set(xlabel="step", ylabel="loss per completion token", title=title)
    right = axes.twinx()
    right.plot(history["step"], history["learning_rate"], color=COLOURS[4], linewidth=1, linestyle=":")
    right.set_ylabel("learning rate (dotted)")
    right.spines["right"].set_visible(True)
    _save(figure, svg, png)


def _distinct(table: pl.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return table.select(columns).unique(maintain_order=True).rows()


def _save(figure: Any, svg: Path, png: Path) -> None:
    with publish(svg) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
    with publish(png) as part:
        figure.savefig(part, format="png", dpi=160, metadata={"Software": None})
    plt.close(figure)
