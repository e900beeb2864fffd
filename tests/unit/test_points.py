"""Which points of a family a study's rows name, and the manifest that is written of them."""

import polars as pl
import pytest
from configuration import configured

from swift_study.config import Config, Entry, Graph, rows_of
from swift_study.errors import UserError
from swift_study.studies.manifest import digest, table

SDE = {
    "like": "full_base",
    "grid": {"domain": ["d1", "d2"], "mode": {"json": {}, "lines": {"loss_on": "all"}}, "epochs": [1, 2], "seed": [17, 18]},
}


@pytest.fixture(scope="module")
def config() -> Config:
    study = {"kind": "comparison", "question": "?", "evaluations": ["questions"], "metrics": ["accuracy"], "scorers": ["key_points"],
             "rows": {"Base": "full_base", "{mode}": "forms[mode={mode}]"}, "against": "Base"}  # fmt: skip
    return configured({"runs": {"forms": SDE}, "studies": {"designs": study}})


def test_braces_make_a_row_for_each_level(config: Config) -> None:
    rows = rows_of({"Base": "full_base", "{mode} {epochs}": "forms[mode={mode},epochs={epochs},seed=17]"}, config.points, "rows")
    assert list(rows) == ["Base", "json 1", "json 2", "lines 1", "lines 2"]
    assert [p.path for p in rows["lines 2"]] == [f"forms/domain={d}/mode=lines/epochs=2/seed=17" for d in ("d1", "d2")]
    assert list(rows_of({"{it}": "base"}, config.points, "rows")) == ["{it}"]  # a name as it is


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"a": "formss"}, r"rows.a: there is no run 'formss' \(did you mean 'forms'\?\)"),
        ({"a": "forms[mode={mdoe}]"}, r"rows.a: forms has no points with mdoe"),
        ({"a": "forms[epochs=3]"}, r"rows.a: 'forms\[epochs=3\]': the factor 'epochs' has no level '3'; known: 1, 2"),
        ({"same": "forms[mode={mode}]"}, r"rows: two rows are called 'same'"),
    ],
)
def test_a_row_without_points_is_a_sentence(config: Config, rows: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        rows_of(rows, config.points, "rows")


def test_factors_are_columns_of_the_manifest(config: Config) -> None:
    found = Graph(config).entries("designs")
    frame = table(found)
    assert frame.columns == ["row", "run", "seed", "model", "evaluation", "scorer", "path", "queries", "domain", "mode", "epochs"]
    assert frame["row"].unique(maintain_order=True).to_list() == ["Base", "json", "lines"]
    assert (frame["epochs"].dtype, frame["mode"].dtype, frame.height) == (pl.Int64, pl.String, 17)
    assert frame["epochs"][0] is None
    assert set(frame["seed"]) == {17, 18}
    assert frame["path"][1] == (
        "results/scores/forms/domain=d1/mode=json/epochs=1/seed=17/evaluation=questions/scorer=key_points/scores.parquet"
    )
    assert digest(frame) == digest(table(found))
    assert digest(frame) != digest(table(found[:-1]))


def test_a_manifest_names_the_datasets_of_an_evaluation_that_is_asked_in_several() -> None:
    evaluations = {
        "own": {"dataset": "panel.{mode}", "scorers": ["key_points"], "grid": {"decoding": [1, 2]}},
        "plain": {"dataset": "panel", "scorers": ["key_points"]},
    }
    study = {"kind": "comparison", "question": "?", "evaluations": ["own", "plain"], "metrics": ["accuracy"], "against": "json",
             "rows": {"{mode}": "forms[mode={mode},epochs=1]"}}  # fmt: skip
    designs = {"json": {"like": "plain"}, "lines": {"like": "plain"}}
    alone = study | {"rows": {"json": "forms[mode=json,epochs=1]"}}
    values = {"runs": {"forms": SDE}, "designs": designs, "evaluations": evaluations, "studies": {"both": study, "alone": alone}}
    config = configured(values)
    frame = table(Graph(config).entries("both"))
    found = set(frame.select("evaluation", "row", "queries").rows())
    assert found == {
        *((f"own/decoding={k}", mode, f"results/data/panel.{mode}.parquet") for k in (1, 2) for mode in ("json", "lines")),
        *(("plain", mode, None) for mode in ("json", "lines")),
    }
    assert table(Graph(config).entries("alone"))["queries"].null_count() == 2 * 2 * 3


def test_a_factor_with_the_name_of_a_column_is_refused() -> None:
    with pytest.raises(UserError, match="The factor 'run' has the name of a column of the manifest"):
        table([Entry("x", "x", 1, "main", "e", "s", "p", {"run": "a"})])
