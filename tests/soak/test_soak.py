"""The short form of the soak: ten kills on the way to the base run. `soak.py` is the long one, over everything."""

import json
from pathlib import Path

from checkout import make_checkout
from soak import digests, soak

TARGETS = ("results/runs/base/history.parquet",)


def test_ten_kills_and_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    straight = make_checkout(tmp_path / "straight", tiny_model)
    straight.snakemake(*TARGETS)
    expected = digests(straight.root / "results")
    assert len(expected) > 10
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps(expected))
    killed = make_checkout(tmp_path / "killed", tiny_model)
    rows = soak(killed, reference, 10, 3, tmp_path / "record.jsonl", TARGETS)
    assert rows[-1]["outcome"] == "same bytes", rows[-1]
    assert sum(row["outcome"] == "killed" for row in rows) == 10
    assert any("event" in row for row in rows)
