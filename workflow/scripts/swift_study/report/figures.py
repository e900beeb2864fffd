"""Figures: curves with bands, one panel a figure, as in the paper; what layers carry; a run's loss; comparisons, agreement, sweeps and
correlations."""

import math
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
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from swift_study.config import CEILING, FLOOR, Axis, Bars, ComparisonStudy, HeatMap, label_of
from swift_study.config.families import means
from swift_study.config.grid import read_path
from swift_study.errors import UserError
from swift_study.io.work import publish

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Of gains: a loss is vermilion, none is white, a gain is blue.
DIVERGING = LinearSegmentedColormap.from_list("gains", ["#A64300", "#E69F63", "#F7F7F7", "#6FAFD9", "#005A94"])
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


def draw_curves(table: pl.DataFrame, contexts: Sequence[str], title: str, stem: Path) -> None:
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
    _save(figure, stem)


def draw_layers(table: pl.DataFrame, control: str, title: str, stem: Path) -> None:
    """What each layer carries of the effects, with its interval: a panel for each target set and context, a line for each strategy.

    ``table`` is `confounds.layer_table`; what lies outside the layers is a point of its own, right of them.
    """
    if table.is_empty():
        figure, axes = plt.subplots(figsize=(7.2, 1.6), layout="constrained")
        axes.axis("off")
        axes.set_title(_wrapped(title, 85), fontsize=11)
        _grow(figure, _wrapped(title, 85))
        axes.text(0.5, 0.5, "No inner products by layer: a sketch has none, and gradients.by_module: false keeps none.", ha="center")
        return _save(figure, stem)
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
    figure.supylabel(_wrapped(f"RelInf over {control}'s, carried by the layer", 48), fontsize=10)
    figure.suptitle(_wrapped(title, 55 * len(contexts)), fontsize=11)
    handles, names = panels[0, 0].get_legend_handles_labels()
    names, columns = _legend(names, 60 * len(contexts), len(strategies))
    figure.legend(handles, names, fontsize=8, frameon=False, loc="outside lower center", ncols=columns)
    panel_titles = [_wrapped(f"cross-task, targets {target}", 50) for target in targets]
    _grow(figure, _wrapped(title, 55 * len(contexts)), *names, *panel_titles, *[""] * (len(names) - 1 if columns == 1 else 0))
    _save(figure, stem)


def draw_loss(history: pl.DataFrame, title: str, stem: Path) -> None:
    """Training loss a step and the learning rate."""
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    axes.plot(history["step"], history["loss"], color=COLOURS[1], linewidth=1.4)
    axes.set(xlabel="step", ylabel="loss per completion token", title=title)
    right = axes.twinx()
    right.plot(history["step"], history["learning_rate"], color=COLOURS[4], linewidth=1, linestyle=":")
    right.set_ylabel("learning rate (dotted)")
    right.spines["right"].set_visible(True)
    _save(figure, stem)


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


def _save(figure: Any, stem: Path) -> None:
    """As ``stem``.svg and ``stem``.png."""
    with publish(Path(f"{stem}.svg")) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
    with publish(Path(f"{stem}.png")) as part:
        figure.savefig(part, format="png", dpi=160, metadata={"Software": None})
    plt.close(figure)


def draw_comparison(study: ComparisonStudy, table: pl.DataFrame, manifest: pl.DataFrame, stem: Path) -> None:
    """The figure that a comparison asks for. ``table`` is that of ``comparison.comparison_table``; ``manifest`` has its rows' factors.

    UserError where a cell or a point would be several rows.
    """
    shown, metrics = study.figure or Bars(), study.metrics
    if isinstance(shown, Bars):
        draw_bars(table, shown.levels or metrics[0], shown.gains or metrics[min(1, len(metrics) - 1)], study.question, stem)
    elif isinstance(shown, HeatMap):
        draw_heat_map(cells_of(shown, shown.metric or metrics[0], table, manifest), shown, study.question, stem)
    else:
        x, y = (_column(axis, axis.metric or metrics[0], table) for axis in (shown.x, shown.y))
        draw_scatter(x, y, study.question, stem)


def draw_bars(table: pl.DataFrame, level: str, gain: str, title: str, stem: Path) -> None:
    """A comparison: one metric with its interval on the left, the gain in the same or another one on the right; a row of panels for each
    evaluation or group.

    ``table`` is that of ``comparison.comparison_table``; blocks, such as models, stand side by side within a row.
    """
    shown = table.with_columns(pl.col("block").fill_null(""))
    evaluations = shown.filter(pl.col("metric").is_in([level, gain]))["evaluation"].unique(maintain_order=True).to_list()
    rows, blocks = (shown[c].unique(maintain_order=True).to_list() for c in ("row", "block"))
    height = 0.8 / len(blocks)
    size = (9.6, 0.8 + len(evaluations) * (0.9 + 0.42 * len(rows) * max(1, len(blocks) / 2)))
    figure, panels = plt.subplots(len(evaluations), 2, sharey=True, figsize=size, layout="constrained", squeeze=False)
    for (left, right), evaluation in zip(panels, evaluations, strict=True):
        here = shown.filter(pl.col("evaluation") == evaluation)
        for k, block in enumerate(blocks):
            part = here.filter(pl.col("block") == block)
            levels, gains = part.filter(pl.col("metric") == level), part.filter(pl.col("metric") == gain, pl.col("gain").is_not_null())
            colour, marker = COLOURS[(k + 1) % len(COLOURS)], MARKERS[k % len(MARKERS)]

            def places(of: pl.DataFrame, k: int = k) -> np.ndarray:
                return np.array([rows.index(r) for r in of["row"]]) + (k - (len(blocks) - 1) / 2) * height

            y, value = places(levels), levels["value"].cast(pl.Float64).to_numpy()
            left.barh(y, value, height * 0.92, color=colour, alpha=0.45, label=block)
            left.errorbar(value, y, xerr=_around(levels, "value", "low", "high"), fmt="none", ecolor="black", elinewidth=1, capsize=2.5)
            if len(gains):
                right.errorbar(
                    gains["gain"].to_numpy(), places(gains), xerr=_around(gains, "gain"),
                    fmt=marker, color=colour, markersize=5, elinewidth=1.2, capsize=2.5,
                )  # fmt: skip
        left.set_yticks(range(len(rows)), [_wrapped(row, 40) for row in rows])
        right.xaxis.set_major_locator(MaxNLocator(5))  # small gains have long labels
        if not left.yaxis_inverted():
            left.invert_yaxis()
        if not (here.filter(pl.col("metric") == level)["value"] < 0).any():
            left.set_xlim(left=0)
        right.axvline(0, color="black", linewidth=0.8)
        right.spines["left"].set_visible(False)
        right.tick_params(axis="y", length=0)
        against = here["against"].drop_nulls().unique(maintain_order=True).to_list()
        left.set(xlabel=level, title=_wrapped(evaluation, 50) if len(evaluations) > 1 else "")
        right.set(xlabel=_wrapped(f"gain in {gain} over {', '.join(against)}", 65))
    if len(blocks) > 1:
        handles, names = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=8, frameon=False, loc="outside lower center", ncols=min(len(blocks), 4))
    figure.suptitle(_wrapped(title, 110), fontsize=11)
    _grow(figure, _wrapped(title, 110), *(_wrapped(row, 40) for row in rows))
    _save(figure, stem)


def cells_of(shown: HeatMap, metric: str, table: pl.DataFrame, manifest: pl.DataFrame) -> pl.DataFrame:
    """The numbers of a heat map: `panel`, `row`, `column`, `value`, null where there is none, `low`, `high`; and `label`, what the colours
    are. A row without one of the factors on the axes is left out."""
    factors = {(e["row"], e["run"], e["evaluation"]): e for e in reversed(manifest.to_dicts())}
    of_runs = {(row, run): e for (row, run, _), e in factors.items()}  # for means of evaluations
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    axes = (shown.rows, shown.columns)
    low, high = (f"{shown.show}_low", f"{shown.show}_high") if shown.show == "gain" else ("low", "high")
    against = ", ".join(table["against"].drop_nulls().unique(maintain_order=True))
    label = f"gain in {metric} over {against}" if shown.show == "gain" else metric
    for cell in table.filter(pl.col("metric") == metric).iter_rows(named=True):
        known = factors.get((cell["row"], cell["run"], cell["evaluation"])) or of_runs[cell["row"], cell["run"]]
        family, levels = read_path(cell["evaluation"])
        place = {**known, "row": cell["row"], "evaluation": cell["evaluation"]}
        if any(place.get(axis) is None for axis in axes):
            continue
        left = [part for part in (cell["block"] or "").split(", ") if part and part.partition("=")[0] not in axes]
        if "evaluation" not in axes:
            left.append(label_of(family, {f: level for f, level in levels.items() if f not in axes}))
        key = (", ".join(left), str(place[shown.rows]), str(place[shown.columns]))
        if key in found:
            raise UserError(
                f"The heat map's cell {key[1]!r} × {key[2]!r} is that of the rows {found[key]['of']!r} and {cell['row']!r}. Set the "
                "figure's `rows` or `columns` to what tells them apart."
            )
        found[key] = {"of": cell["row"], "value": cell[shown.show], "low": cell[low], "high": cell[high]}
    rows = [(*key, c["value"], c["low"], c["high"], label) for key, c in found.items()]
    texts, numbers = dict.fromkeys(("panel", "row", "column"), pl.String), dict.fromkeys(("value", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema=texts | numbers | {"label": pl.String}, orient="row")


def draw_heat_map(cells: pl.DataFrame, shown: HeatMap, title: str, stem: Path) -> None:
    """``cells`` of ``cells_of``: a number in each, bold where its interval excludes 0; the colours of gains are centred on 0."""
    panels, rows, columns = (cells[c].unique(maintain_order=True).to_list() or [""] for c in ("panel", "row", "column"))
    values = cells["value"].drop_nulls().to_numpy()
    most = max(np.abs(values), default=1.0) or 1.0
    gains = shown.show == "gain"
    colours = DIVERGING if gains else matplotlib.colormaps["cividis"]
    norm = Normalize(-most, most) if gains else Normalize(min(values, default=0.0), max(values, default=1.0))
    size_of_most = math.floor(math.log10(most))
    digits = min(6, max(0, 2 - max(0, size_of_most) if most >= 0.1 else 1 - size_of_most))
    names, heads = [_wrapped(row, 34) for row in rows], [_wrapped(column, 24) for column in columns]
    line = max(0.3, 0.17 * (1 + max(name.count("\n") for name in names)))
    beside, longest = 0.06 * min(34, max(map(len, rows))), max(len(part) for head in heads for part in head.split("\n"))
    width = max(4.8, beside + 1.2 + 0.68 * len(columns))
    slanted = 0.065 * longest > (width - beside) / len(columns)  # else they would run into each other
    height = 1.5 + (0.06 * longest if slanted else 0.15) + len(panels) * (0.35 + line * len(rows))
    size = (width, height)
    figure, grid = plt.subplots(len(panels), 1, figsize=size, layout="constrained", squeeze=False, sharex=True)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        here = {(c["row"], c["column"]): c for c in cells.filter(pl.col("panel") == panel).iter_rows(named=True)}
        numbers = np.array([[here.get((r, c), {}).get("value") for c in columns] for r in rows], dtype=float)
        mesh = axes.pcolormesh(np.ma.masked_invalid(numbers), cmap=colours, norm=norm, edgecolors="white", linewidth=1)
        for (y, row), (x, column) in product(enumerate(rows), enumerate(columns)):
            cell = here.get((row, column))
            if cell is None or cell["value"] is None:
                axes.text(x + 0.5, y + 0.5, "" if cell is None else "–", ha="center", va="center", color="#666666", fontsize=8)
                continue
            red, green, blue, _ = colours(norm(cell["value"]))
            told = f"{cell['value']:{'+' if gains else ''}.{digits}f}".replace("-", "−")
            sure = gains and cell["low"] is not None and cell["high"] is not None and (cell["low"] > 0 or cell["high"] < 0)
            ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
            weight = "bold" if sure else "normal"
            axes.text(x + 0.5, y + 0.5, told, ha="center", va="center", color=ink, fontsize=8, fontweight=weight)
        axes.set_yticks(np.arange(len(rows)) + 0.5, names, fontsize=8)
        axes.invert_yaxis()
        axes.set_ylabel("" if shown.rows in ("row", "evaluation") else shown.rows, fontsize=9)
        axes.set_title(_wrapped(panel, 70) if len(panels) > 1 else "", fontsize=9)
        axes.tick_params(length=0)
        axes.set_frame_on(False)
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    grid[-1, 0].set_xticks(np.arange(len(columns)) + 0.5, heads, fontsize=8, **turned)
    grid[-1, 0].set_xlabel("" if shown.columns in ("row", "evaluation") else shown.columns, fontsize=9)
    label = cells["label"][0] if len(cells) else ""
    label += "; bold: its interval excludes 0" if gains else ""
    bar = figure.colorbar(mesh, ax=grid[:, 0].tolist(), location="bottom", aspect=40, shrink=0.8, fraction=0.4 / height, pad=0.1 / height)
    bar.set_label(_wrapped(label, round(13 * width)), fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    figure.suptitle(_wrapped(title, round(10 * width)), fontsize=11)
    _grow(figure, _wrapped(title, round(10 * width)))
    _save(figure, stem)


def _column(axis: Axis, metric: str, table: pl.DataFrame) -> tuple[str, pl.DataFrame]:
    """The label of an axis of a scatter, and by block and row its number `value`, `low`, `high`. UserError if that is none, or several."""
    there = table.filter(pl.col("metric") == metric)
    known = there["evaluation"].unique(maintain_order=True).to_list()
    wanted = axis.evaluation or (known[0] if known else "")
    named = [wanted] if wanted in known else [evaluation for evaluation in known if means(wanted, evaluation)]
    if len(named) != 1:
        raise UserError(
            f"The figure's axis {metric!r} is to be of {wanted!r}, which is {len(named)} evaluations of the table ({', '.join(known)}). "
            "Name one of them."
        )
    own = there.filter(pl.col("evaluation") == named[0])
    against = ", ".join(own["against"].drop_nulls().unique(maintain_order=True))
    label = f"gain in {metric} over {against}" if axis.show == "gain" else metric
    low, high = (f"{axis.show}_low", f"{axis.show}_high") if axis.show == "gain" else ("low", "high")
    numbers = own.select(pl.col("block").fill_null(""), "row", value=pl.col(axis.show), low=pl.col(low), high=pl.col(high))
    return f"{label}, {wanted}" if len(known) > 1 else label, numbers.drop_nulls("value")


def draw_scatter(x: tuple[str, pl.DataFrame], y: tuple[str, pl.DataFrame], title: str, stem: Path) -> None:
    """One number of every row against another, each with its interval: ``x`` and ``y`` are their labels and ``_column``s.

    A point has the row's name; where there are many or long ones a number, and the names stand below.
    """
    points = x[1].join(y[1], on=["block", "row"], how="inner", suffix="_y", maintain_order="left")
    rows, blocks = (points[c].unique(maintain_order=True).to_list() for c in ("row", "block"))
    numbered = len(points) > 14 or any(len(row) > 24 for row in rows)
    texts = [str(1 + rows.index(row)) if numbered else row for row in points["row"]]
    columns = min(4, max(2, 120 // (6 + max(map(len, rows), default=0))))
    key = [_wrapped(f"{number}: {row}", 58) for number, row in enumerate(rows, start=1)] if numbered else []
    figure, axes = plt.subplots(figsize=(7.2, 5.2), layout="constrained")
    for k, block in enumerate(blocks):
        part = points.filter(pl.col("block") == block)
        axes.errorbar(
            part["value"].to_numpy(), part["value_y"].to_numpy(), xerr=_around(part, "value", "low", "high"),
            yerr=_around(part, "value_y", "low_y", "high_y"), fmt=MARKERS[k % len(MARKERS)], color=COLOURS[(k + 1) % len(COLOURS)],
            ecolor="#BBBBBB", elinewidth=0.8, capsize=1.5, markersize=5, label=block, zorder=2,
        )  # fmt: skip
    for (label, _), line, scale in ((x, axes.axvline, axes.get_xlim()), (y, axes.axhline, axes.get_ylim())):
        if label.startswith("gain in") or scale[0] < 0 < scale[1]:
            line(0, color="black", linewidth=0.8, zorder=1)
    axes.set(xlabel=_wrapped(x[0], 80), ylabel=_wrapped(y[0], 55), title=_wrapped(title, 80))
    if key:
        deep = -(-len(key) // columns)
        lines = sum(max(1 + text.count("\n") for text in key[place::deep]) for place in range(deep))
        handles = [Line2D([], [], linestyle="none") for _ in key]
        figure.legend(handles, key, fontsize=7.5, frameon=False, loc="outside lower left", ncols=columns, handlelength=0, handletextpad=0)
        _grow(figure, *[""] * round(0.8 * lines))
    if len(blocks) > 1:
        axes.legend(fontsize=8, frameon=False, loc="best")
    _grow(figure, _wrapped(title, 80))
    _annotate(figure, axes, points["value"].to_list(), points["value_y"].to_list(), texts)
    _save(figure, stem)


def _annotate(figure: Any, axes: Any, x: Sequence[float], y: Sequence[float], texts: Sequence[str]) -> None:
    """A text beside every point, on that side of it where it covers the least of points and of texts before it."""
    figure.canvas.draw()  # settles the layout, in which texts are measured
    places = axes.transData.transform(np.column_stack([x, y])) if len(x) else np.empty((0, 2))
    taken = [Bbox.from_extents(px - 4, py - 4, px + 4, py + 4) for px, py in places]
    sides = [(1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)]
    for px, py, text in zip(x, y, texts, strict=True):
        best: tuple[float, Any, Any] | None = None
        for far, (right, up) in product((5, 12), sides):
            offset = (far * right, far * up)
            note = axes.annotate(
                text, (px, py), xytext=offset, textcoords="offset points", fontsize=8, zorder=3,
                ha={1: "left", 0: "center", -1: "right"}[right], va={1: "bottom", 0: "center", -1: "top"}[up],
            )  # fmt: skip
            box = note.get_window_extent()
            outside = box.width * box.height - _shared(box, axes.bbox)
            cost = sum(_shared(box, other) for other in taken) + 2 * outside + far
            if best is None or cost < best[0]:
                if best is not None:
                    best[1].remove()
                best = (cost, note, box)
            else:
                note.remove()
        if best is not None:
            taken.append(best[2])


def _shared(box: Any, other: Any) -> float:
    """The area that two boxes have in common."""
    width, height = min(box.x1, other.x1) - max(box.x0, other.x0), min(box.y1, other.y1) - max(box.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))


def draw_agreement(table: pl.DataFrame, predictor: str, outcomes: Sequence[str], title: str, stem: Path) -> None:
    """Outcomes against a predictor, with both intervals: one panel for each group and outcome, one point for each item."""
    groups = table["group"].unique(maintain_order=True).to_list() or ["no item"]
    figure, panels = plt.subplots(
        len(outcomes), len(groups), figsize=(4.6 * len(groups) + 0.4, 0.6 + 3.2 * len(outcomes)), layout="constrained", squeeze=False
    )
    items = table["item"].unique(maintain_order=True).to_list()
    for row, outcome in zip(panels, outcomes, strict=True):
        for axes, group in zip(row, groups, strict=True):
            part = table.filter((pl.col("group") == group) & pl.col(predictor).is_not_null() & pl.col(outcome).is_not_null())
            for one in part.partition_by("item", maintain_order=True):
                k = items.index(one["item"][0])
                x, y = one[predictor][0], one[outcome][0]
                style: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "fmt": MARKERS[k % len(MARKERS)]}
                around = {"xerr": _around(one, predictor), "yerr": _around(one, outcome)}
                axes.errorbar(x, y, **around, elinewidth=1, capsize=2.5, markersize=6, **style)
                name = _wrapped(one["item"][0], 24)
                axes.annotate(name, (x, y), xytext=(6, 6), textcoords="offset points", fontsize=9, color=style["color"])
            axes.axhline(0, color="black", linewidth=0.8)
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set(xlabel=predictor, ylabel=outcome, title=group)
    figure.suptitle(_wrapped(title, 60 * len(groups)), fontsize=11)
    _save(figure, stem)


def draw_sweep(table: pl.DataFrame, phases: pl.DataFrame, x: str, title: str, stem: Path) -> None:
    """Metrics over x with their intervals: a panel for each panel and evaluation, a line for each line and metric, a tick for each phase.

    x is logarithmic where it spans more than a factor of 20; 0 then stands at the left end.
    """
    shown = table.with_columns(pl.col("line", "panel").fill_null(""))
    keys = shown.select("panel", "evaluation").unique(maintain_order=True).rows()
    several = shown["evaluation"].n_unique() > 1
    lines = shown.select("line", "metric").unique(maintain_order=True).rows()
    columns = min(3, len(keys))
    down = -(-len(keys) // columns)
    figure, panels = plt.subplots(down, columns, figsize=(0.6 + 4.6 * columns, 0.9 + 3.4 * down), layout="constrained", squeeze=False)
    positive = [v for v in shown["x"].unique().to_list() if v > 0]
    logarithmic = bool(positive) and max(positive) > 20 * min(positive)
    for axes in panels.flat[len(keys) :]:
        axes.axis("off")
    for axes, (panel, evaluation) in zip(panels.flat, keys, strict=False):
        here = shown.filter((pl.col("panel") == panel) & (pl.col("evaluation") == evaluation))
        for k, (line, metric) in enumerate(lines):
            part = here.filter((pl.col("line") == line) & (pl.col("metric") == metric)).sort("x")
            if part.is_empty():
                continue
            style: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
            name = ", ".join(filter(None, [metric, line]))
            axes.plot(part["x"], part["value"], label=name, linewidth=1.5, markersize=4, **style)
            axes.fill_between(part["x"], part["low"], part["high"], color=style["color"], alpha=0.12, linewidth=0)
            found = phases.filter(
                (pl.col("line").fill_null("") == line) & (pl.col("panel").fill_null("") == panel)
                & (pl.col("evaluation") == evaluation) & (pl.col("metric") == metric) & pl.col("x").is_not_null()
            )  # fmt: skip
            for one in found.iter_rows(named=True):
                axes.axvline(one["x"], color=style["color"], linestyle=":", linewidth=1)
                place = {"xy": (one["x"], 1), "xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "right", "va": "top"}
                axes.annotate(one["phase"], fontsize=7, **place)
        if logarithmic:
            axes.set_xscale("symlog", linthresh=min(positive))
        heading = ", ".join(filter(None, [panel, evaluation if several else ""]))
        axes.set(xlabel=x, title=_wrapped(heading, 50))
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, frameon=False, loc="outside lower center", ncols=min(len(names), 3) or 1)
    figure.suptitle(_wrapped(title, 50 * columns), fontsize=11)
    _grow(figure, _wrapped(title, 50 * columns))
    _save(figure, stem)


def draw_correlation(table: pl.DataFrame, title: str, stem: Path) -> None:
    """ρ of every metric with the reference, with its interval: pooled, and within and between each column's levels."""
    shown = table.filter(pl.col("scope") != "group")
    metrics = shown["metric"].unique(maintain_order=True).to_list()
    scopes = shown.select("scope", "column").unique(maintain_order=True).rows()
    step = 0.8 / len(scopes)
    figure, axes = plt.subplots(figsize=(7.2, 1.6 + 0.2 * len(metrics) * max(2, len(scopes))), layout="constrained")
    for k, (scope, column) in enumerate(scopes):
        part = shown.filter((pl.col("scope") == scope) & pl.col("column").eq_missing(column) & pl.col("rho").is_not_null())
        y = np.array([metrics.index(m) for m in part["metric"]]) + (k - (len(scopes) - 1) / 2) * step
        axes.errorbar(
            part["rho"].to_numpy(), y, xerr=_around(part, "rho", "low", "high"), fmt=MARKERS[k % len(MARKERS)],
            color=COLOURS[k % len(COLOURS)], label=scope if column is None else f"{scope} {column}", markersize=5, capsize=2.5,
        )  # fmt: skip
    axes.set_yticks(range(len(metrics)), [_wrapped(m, 40) for m in metrics])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel=f"Spearman's ρ with {shown['reference'][0]}" if len(shown) else "ρ", title=_wrapped(title, 80))
    axes.legend(fontsize=8, frameon=False)
    _grow(figure, _wrapped(title, 80))
    _save(figure, stem)


def _around(table: pl.DataFrame, name: str, low: str | None = None, high: str | None = None) -> np.ndarray:
    """Lengths of the error bars, shape (2, rows); 0 where there is no interval."""
    columns = (name, low or f"{name}_low", high or f"{name}_high")
    value, below, above = (table[c].cast(pl.Float64).to_numpy() for c in columns)
    return np.asarray(np.nan_to_num(np.clip(np.stack([value - below, above - value]), 0, None)))
