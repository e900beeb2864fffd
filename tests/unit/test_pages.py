"""The examples of the pages in docs/ are what they say: configurations, or claims."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from configuration import configured
from tiny import ROOT

from swift_study.config import Graph
from swift_study.studies.claims import load_claims


def examples(page: str) -> list[Any]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_the_page_of_studies_is_right(tmp_path: Path) -> None:
    *blocks, claims = examples("studies.md")
    kinds = []
    for block in blocks:
        config = configured(block)
        kinds += [config.studies[name].kind for name in block["studies"]]
    assert kinds == ["comparison", "influence", "comparison", "sweep", "agreement", "correlation", "audit"]
    own = configured(blocks[0])
    assert list(Graph(own).rows("short_training")) == ["16 examples", "48 examples"]
    assert len({e.run for e in Graph(own).entries("short_training")}) == 4
    assert len(Graph(configured(blocks[1])).entries("table1")) == 10
    assert len({e.run for e in Graph(configured(blocks[3])).entries("how_many")}) == 5
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump(claims), encoding="utf-8")
    assert [claim.this for claim in load_claims(file)] == ["Base+CoT"]


def test_the_page_of_runs_is_right() -> None:
    blocks = examples("runs.md")
    whole: dict[str, Any] = {"runs": {}}
    for block in blocks:
        whole["runs"] |= block["runs"]
    config = configured(whole)
    assert {*whole["runs"]} <= {*config.runs}
    assert len({p.path for p in config.named("amounts")}) == 15


def test_the_pages_of_strategies_and_data_are_right() -> None:
    own, teacher, by_file = examples("strategies.md")
    assert configured(own).studies["conclusion_first"].kind == "influence"
    assert configured(teacher).strategies["cot"].endpoint == "teacher"
    assert configured(by_file).strategies["clarify"].file == "my-revisions.jsonl"
    sources, columns, designs, chosen, scores = examples("data.md")
    assert [s.kind for s in configured(sources).datasets["panel"].sources] == ["file", "hub", "generator"]
    configured({"datasets": {"mine": {"sources": [{"kind": "file", "path": "mine.jsonl", **columns}]}}})
    assert configured(designs).designs["short"].like == "lines"
    configured(chosen)
    mine = {"examples": "base", "outputs": {"best": {}}, **scores}
    assert configured({"selections": {"mine": mine}}).selections["mine"].take.order == "top"


@pytest.mark.parametrize("page", [*sorted(p.name for p in (ROOT / "docs").glob("*.md")), "../README.md", "../CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    """To files that are there, and to headings of other pages."""
    path = ROOT / "docs" / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            file, _, heading = target.partition("#")
            other = path.parent / file if file else path
            assert other.exists(), target
            titles = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
            assert not heading or heading in [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles], target
