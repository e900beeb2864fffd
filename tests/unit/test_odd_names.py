"""Names and sentences of a configuration stand in figures, tables and on the screen as they were written."""

import io
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import polars as pl
import pytest

from swift_study.io import cli
from swift_study.io.tables import VERDICTS
from swift_study.report.figures import draw_curves
from swift_study.report.pages import markdown, page, paragraph

ROOT = Path(__file__).resolve().parents[2]
ODD = [
    "costs $5 and $6",
    r"$\frac{1$",
    "$$",
    "it's {x} {{y}}",
    '<b>&amp; "q"',
    "[red] [/red] [/]",
    "100% %s",
    "ü→ 语",
    "a|b",
    "`id` $(id) \\",
]


def texts(svg: Path) -> str:
    """All text of an SVG file, which must be whole XML."""
    return "\n".join("".join(element.itertext()) for element in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("name", ODD)
def test_names_stand_in_a_figure_as_they_were_written(name: str, tmp_path: Path) -> None:
    rows = [row | {"probe_set": name, "target_set": name} for row in curve_rows(f"{name} → In-task {name}")]
    place = tmp_path / "figure of it's [x] {y} $z"
    svg = place.with_suffix(".svg")
    draw_curves(pl.DataFrame(rows), ["in-task"], f"Title: {name}", place)
    assert f"Title: {name}" in texts(svg)
    assert f"{name} → In-task {name}" in texts(svg)
    assert svg.with_suffix(".png").stat().st_size > 1000


def test_names_stand_on_the_screen_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(cli, "_people", screen)
    show = runpy.run_path(str(ROOT / "workflow" / "scripts" / "finish.py"))
    empty: dict[str, object] = {
        field.name: 0.5 if str(field.type) == "double" else 1 if "int" in str(field.type) else "x" for field in VERDICTS
    }
    # Side by side with other columns a long name would be broken over lines.
    names = ["[red]r[/red]", "[/]", "[/x]", "it's {x}", "[bold]b"]
    rows = [empty | {"strategy": name, "target_set": name, "verdict": "helps"} for name in names]
    show["show"](pl.DataFrame(rows))
    numbers = dict.fromkeys(("value", "gain", "gain_low", "gain_high"), 0.1) | {"n": 1, "unscored": 0, "block": None}
    texts = {"evaluation": "e", "metric": "m", "against": "Base"}
    show["show_comparison"]("table1", pl.DataFrame([numbers | texts | {"row": n} for n in names], schema_overrides={"block": pl.String}))
    printed = screen.getvalue()
    for name in names:
        assert printed.count(name) >= 3


@pytest.mark.parametrize("name", ODD)
def test_names_stand_in_pages_and_markdown_as_they_were_written(name: str) -> None:
    root = ET.fromstring(page(name, paragraph(name)).replace("<!doctype html>", "").replace('<meta charset="utf-8">', ""))
    assert [root.findtext(path) for path in ("head/title", "body/h1", "body/p")] == [name] * 3
    assert markdown(pl.DataFrame({"a": [name]})).splitlines()[-1].replace("\\|", "|") == f"| {name} |"


def test_long_names_and_titles_stay_within_the_figure(tmp_path: Path) -> None:
    """A name has at most 100 characters, a caption 2,000."""
    probe, target, title = "p" * 100, "strategy " * 11, "Is it of use? " * 30
    rows = [
        row | {"probe_set": name, "target_set": target} for name in (probe, "plain") for row in curve_rows(f"{name} → In-task {target}")
    ]
    draw_curves(pl.DataFrame(rows), ["in-task"], title, tmp_path / "f")
    root = ET.parse(tmp_path / "f.svg").getroot()
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    words = list(root.iter("{http://www.w3.org/2000/svg}text"))
    assert all(0 <= float(w.attrib["x"]) <= width and 0 <= float(w.attrib["y"]) <= height for w in words if "x" in w.attrib)
    shown = " ".join("".join(w.itertext()) for w in words)
    assert shown.count("Is it of use?") == 30
    assert shown.count("p" * 80) == 1
    assert shown.count("strategy") == 22


def curve_rows(curve: str) -> list[dict[str, object]]:
    numbers = {"rel_inf": 0.1, "ci_low": 0.0, "ci_high": 0.2, "rel_inf_mean_loss": 0.1, "cosine": 0.1, "n_pairs": 1, "n_skipped": 0}
    return [{"study": "s", "curve": curve, "context": "in-task", "step": step} | numbers for step in (1, 2)]
