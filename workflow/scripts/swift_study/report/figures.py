"""Figures: curves with bands, one panel a figure, as in the paper; what layers carry; the base run's loss; the validation."""

import textwrap
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.ticker import MaxNLocator

from swift_study.config import CEILING, FLOOR
from swift_study.io.work import publish

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
REFERENCE_STYLES: dict[str, dict[str, Any]] = {
    CEILING: {"color": "#444444", "linestyle": "-."},
    FLOOR: {"color": "#999999", "linestyle": ":"},
}
STYLES = {"in-task": "-", "cross-task": "--"}
# Text stays text, dollar signs included, and the same figure is the same bytes.
plt.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "swift-study",
        "text.parse_math": False,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def draw_curves(table: pl.DataFrame, contexts: Sequence[str], title: str, svg: Path, png: Path) -> None:
    """Mean RelInf by step with its interval: one line for each probe set, target set and context of ``contexts``.

    References are grey lines without an interval.
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
    several = len(contexts) > 1
    keys = _distinct(table.filter(~pl.col("probe_set").is_in(list(REFERENCE_STYLES))), "probe_set", "target_set")
    colours = {key: k for k, key in enumerate(keys)}
    markers = {target: MARKERS[k % len(MARKERS)] for k, target in enumerate(table["target_set"].unique(maintain_order=True))}
    for context in contexts:
        for (probe_set, target_set, curve), part in table.filter(pl.col("context") == context).group_by(
            "probe_set", "target_set", "curve", maintain_order=True
        ):
            after = part.filter(pl.col("step") > 0)
            if probe_set in REFERENCE_STYLES:
                grey: dict[str, Any] = REFERENCE_STYLES[str(probe_set)] | {"marker": markers[target_set], "markersize": 2.5}
                axes.plot(
                    after["step"], after["rel_inf"], label=str(curve), linewidth=1, alpha=0.6 if context == "cross-task" else 1, **grey
                )
                continue
            k = colours[(probe_set, target_set)] % len(COLOURS)
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
    axes.set(xlabel="training step of the base run", ylabel="mean RelInf (sum loss)", title=_wrapped(title, 80))
    handles, names = axes.get_legend_handles_labels()
    names, columns = _legend(names, 90, 2)
    axes.legend(handles, names, fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns, handlelength=3.5)
    _grow(figure, _wrapped(title, 80), *names, *[""] * (len(names) // 2 if columns == 1 else 0))
    _save(figure, svg, png)


def draw_layers(table: pl.DataFrame, baseline: str, title: str, svg: Path, png: Path) -> None:
    """What each layer carries of the effects, with its interval: a panel for each target set and context, a line for each strategy.

    ``table`` is `confounds.layer_table`; what lies outside the layers is a point of its own, right of them.
    """
    if table.is_empty():
        figure, axes = plt.subplots(figsize=(7.2, 1.6), layout="constrained")
        axes.axis("off")
        axes.set_title(_wrapped(title, 85), fontsize=11)
        _grow(figure, _wrapped(title, 85))
        axes.text(0.5, 0.5, "No inner products by layer: a sketch has none, and gradients.by_module: false keeps none.", ha="center")
        return _save(figure, svg, png)
    targets, contexts, strategies = (table[c].unique(maintain_order=True).to_list() for c in ("target_set", "context", "strategy"))
    size = (0.6 + 4.3 * len(contexts), 1.2 + 2.4 * len(targets))
    figure, panels = plt.subplots(len(targets), len(contexts), figsize=size, layout="constrained", squeeze=False, sharex=True)
    last = table["layer"].max()
    outside = (last if isinstance(last, int) else -1) + 2
    for (row, target), (column, context) in product(enumerate(targets), enumerate(contexts)):
        axes = panels[row, column]
        for k, strategy in enumerate(strategies):
            part = table.filter(pl.col("target_set") == target, pl.col("context") == context, pl.col("strategy") == strategy).sort("layer")
            style: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
            inside, rest = part.filter(pl.col("layer").is_not_null()), part.filter(pl.col("layer").is_null())
            axes.plot(inside["layer"], inside["effect"], label=strategy, linewidth=1.4, markersize=3, **style)
            axes.fill_between(inside["layer"], inside["ci_low"], inside["ci_high"], color=style["color"], alpha=0.15, linewidth=0)
            for one in rest.iter_rows(named=True):
                axes.plot(outside, one["effect"], markersize=5, **style)
                axes.vlines(outside, one["ci_low"], one["ci_high"], color=style["color"], linewidth=1)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_title(_wrapped(f"{context}, targets {target}", 50), fontsize=10)
    for axes in panels[-1]:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer" + ("; far right: outside the layers" if table["layer"].has_nulls() else ""))
    figure.supylabel(_wrapped(f"RelInf over {baseline}'s, carried by the layer", 48), fontsize=10)
    figure.suptitle(_wrapped(title, 55 * len(contexts)), fontsize=11)
    handles, names = panels[0, 0].get_legend_handles_labels()
    names, columns = _legend(names, 60 * len(contexts), len(strategies))
    figure.legend(handles, names, fontsize=8, frameon=False, loc="outside lower center", ncols=columns)
    panel_titles = [_wrapped(f"cross-task, targets {target}", 50) for target in targets]
    _grow(figure, _wrapped(title, 55 * len(contexts)), *names, *panel_titles, *[""] * (len(names) - 1 if columns == 1 else 0))
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


def _wrapped(text: str, width: int) -> str:
    """The text in lines of so many characters."""
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))


def _legend(names: Sequence[str], width: int, columns: int) -> tuple[list[str], int]:
    """The names of a legend that is ``width`` characters wide, and its columns: one where the names are long."""
    if max(map(len, names), default=0) <= width // columns:
        return list(names), columns
    return [_wrapped(name, width) for name in names], 1


def _grow(figure: Any, *texts: str) -> None:
    """Make a figure higher by the lines of its texts beyond the first, and by a line for each empty text."""
    lines = sum(text.count("\n") if text else 1 for text in texts)
    if lines:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + 0.2 * lines)


def _distinct(table: pl.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return table.select(columns).unique(maintain_order=True).rows()


def _save(figure: Any, svg: Path, png: Path) -> None:
    with publish(svg) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
    with publish(png) as part:
        figure.savefig(part, format="png", dpi=160, metadata={"Software": None})
    plt.close(figure)


def draw_validation(table: pl.DataFrame, title: str, svg: Path, png: Path) -> None:
    """A table of the validation: accuracy with its interval, and the gain in the golden answers' log-likelihood with its interval.

    ``table`` has the columns of the table and ``accuracy_low``, ``accuracy_high``; models stand side by side within a row.
    """
    rows, models = (table[c].unique(maintain_order=True).to_list() for c in ("training_data", "model"))
    height = 0.8 / len(models)
    figure, (left, right) = plt.subplots(
        1, 2, sharey=True, figsize=(9.6, 1.7 + 0.42 * len(rows) * max(1, len(models) / 2)), layout="constrained"
    )
    for k, model in enumerate(models):
        part = table.filter(pl.col("model") == model)
        colour, marker = COLOURS[(k + 1) % len(COLOURS)], MARKERS[k % len(MARKERS)]
        y = np.array([rows.index(r) for r in part["training_data"]]) + (k - (len(models) - 1) / 2) * height
        accuracy = part["accuracy"].to_numpy()
        left.barh(y, accuracy, height * 0.92, color=colour, alpha=0.45, label=model)
        left.errorbar(accuracy, y, xerr=_around(part, "accuracy"), fmt="none", ecolor="black", elinewidth=1, capsize=2.5)
        compared = part["ll_token_gain"].is_not_null().to_numpy()
        right.errorbar(
            part["ll_token_gain"].to_numpy()[compared], y[compared], xerr=_around(part, "ll_token_gain")[:, compared],
            fmt=marker, color=colour, markersize=5, elinewidth=1.2, capsize=2.5,
        )  # fmt: skip
    left.set_yticks(range(len(rows)), [_wrapped(row, 40) for row in rows])
    left.invert_yaxis()
    left.set_xlim(left=0)
    right.axvline(0, color="black", linewidth=0.8)
    right.spines["left"].set_visible(False)
    right.tick_params(axis="y", length=0)
    left.set(xlabel="accuracy (share of right responses)")
    baseline = [row for row in rows if table.filter((pl.col("training_data") == row) & pl.col("ll_token_gain").is_null()).height]
    right.set(xlabel=_wrapped(f"gain in log-likelihood over {', '.join(baseline)} (nats per token)", 65))
    if len(models) > 1:
        figure.legend(*left.get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside lower center", ncols=len(models))
    figure.suptitle(_wrapped(title, 110), fontsize=11)
    _grow(figure, _wrapped(title, 110), *(_wrapped(row, 40) for row in rows))
    _save(figure, svg, png)


def draw_agreement(table: pl.DataFrame, title: str, svg: Path, png: Path) -> None:
    """Measured gain against swift score, with both intervals: one panel for each context and measure, one point for each strategy."""
    contexts = table["context"].unique(maintain_order=True).to_list() or ["no strategy"]
    measures = {"accuracy": "gain in accuracy over plain data", "log_likelihood": "gain in log-likelihood (nats per token)"}
    figure, panels = plt.subplots(
        len(measures), len(contexts), figsize=(4.6 * len(contexts) + 0.4, 7.0), layout="constrained", squeeze=False
    )
    strategies = table["strategy"].unique(maintain_order=True).to_list()
    for row, (measure, label) in zip(panels, measures.items(), strict=True):
        for axes, context in zip(row, contexts, strict=True):
            gain = f"{measure}_gain"
            part = table.filter((pl.col("context") == context) & pl.col("swift").is_not_null() & pl.col(gain).is_not_null())
            for one in part.partition_by("strategy", maintain_order=True):
                k = strategies.index(one["strategy"][0])
                x, y = one["swift"][0], one[gain][0]
                style: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "fmt": MARKERS[k % len(MARKERS)]}
                axes.errorbar(x, y, xerr=_around(one, "swift"), yerr=_around(one, gain), elinewidth=1, capsize=2.5, markersize=6, **style)
                name = _wrapped(one["strategy"][0], 24)
                axes.annotate(name, (x, y), xytext=(6, 6), textcoords="offset points", fontsize=9, color=style["color"])
            axes.axhline(0, color="black", linewidth=0.8)
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set(xlabel="swift score: RelInf over plain data's", ylabel=label, title=context)
    figure.suptitle(title, fontsize=11)
    _save(figure, svg, png)


def _around(table: pl.DataFrame, name: str) -> np.ndarray:
    """Lengths of the error bars, shape (2, rows); 0 where there is no interval."""
    value, low, high = (table[c].cast(pl.Float64).to_numpy() for c in (name, f"{name}_low", f"{name}_high"))
    return np.asarray(np.nan_to_num(np.clip(np.stack([value - low, high - value]), 0, None)))
