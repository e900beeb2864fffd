"""Which points of a family a study's names mean, and the manifest that is written of them."""

import polars as pl
import pytest

from swift_study.config import Point, matching, rows_of
from swift_study.errors import UserError
from swift_study.studies.manifest import Entry, digest, table

POINTS = [
    Point("sde", f"sde/domain={d}/mode={m}/n={n}", {"domain": d, "mode": m, "n": n, "seed": 17}, 17)
    for d in ("d1", "d2") for m in ("json", "lines") for n in (80, 160)
] + [Point("base", "base", {}, 3)]  # fmt: skip


def test_a_name_means_the_points_with_its_levels() -> None:
    assert [p.path for p in matching("sde[domain=d1, n=80]", POINTS, "w")] == [
        "sde/domain=d1/mode=json/n=80",
        "sde/domain=d1/mode=lines/n=80",
    ]
    assert len(matching("sde", POINTS, "w")) == 8
    assert matching("base", POINTS, "w")[0].seed == 3


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("sdee", r"w: there is no run 'sdee' \(did you mean 'sde'\?\); known: sde, base"),
        ("sde[mdoe=json]", r"w: sde has no factor 'mdoe' \(did you mean 'mode'\?\); it has domain, mode, n, seed"),
        ("sde[n=81]", r"w: 'sde\[n=81\]' is no point of sde: none has n=81; the levels of n are 80, 160"),
        ("sde[n]", r"'n' is not one factor and its level"),
        ("sde[n=80,n=160]", r"'n=160' is not one factor and its level"),
        ("sde[n=80", r"is neither a name nor one with factors"),
        ("", r"is neither a name nor one with factors"),
    ],
)
def test_a_name_without_points_is_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        matching(name, POINTS, "w")


def test_braces_make_a_row_for_each_level() -> None:
    rows = rows_of({"Base": "base", "{mode} {n}": "sde[mode={mode},n={n}]"}, POINTS, "rows")
    assert list(rows) == ["Base", "json 80", "json 160", "lines 80", "lines 160"]
    assert [p.path for p in rows["lines 80"]] == ["sde/domain=d1/mode=lines/n=80", "sde/domain=d2/mode=lines/n=80"]
    assert list(rows_of({"{it}": "base"}, POINTS, "rows")) == ["{it}"]  # a name as it is
    with pytest.raises(ValueError, match=r"rows.a: sde has no points with mdoe"):
        rows_of({"a": "sde[mode={mdoe}]"}, POINTS, "rows")
    with pytest.raises(ValueError, match="two rows are called 'same'"):
        rows_of({"same": "sde[mode={mode}]"}, POINTS, "rows")


def test_factors_are_columns_of_the_manifest() -> None:
    entries = [Entry(p.family, p, "questions", "key_points", f"{p.path}/scores.parquet", p.factors) for p in POINTS]
    frame = table(entries)
    assert frame.columns == ["row", "run", "seed", "model", "evaluation", "scorer", "path", "domain", "mode", "n"]
    assert (frame["n"].dtype, frame["mode"].dtype) == (pl.Int64, pl.String)
    assert frame["n"].to_list()[-1] is None
    assert frame["seed"].to_list() == [17] * 8 + [3]
    assert digest(frame) == digest(table(entries))
    assert digest(frame) != digest(table(entries[:-1]))
    clash = Point("x", "x", {"run": "a"}, 1)
    with pytest.raises(UserError, match="The factor 'run' has the name of a column of the manifest"):
        table([Entry("x", clash, "e", "s", "p", clash.factors)])
