"""What each way of finding out cost: sums, lost timings, files that are none, and which files count."""

from pathlib import Path

import polars as pl
import pytest
from configuration import configured

from swift_study.config import Graph
from swift_study.errors import UserError
from swift_study.io.tables import ACCOUNTS, COSTS, HISTORY, write_table
from swift_study.studies.costs import Spent, cost_sentences, costs, read_benchmark, untimed, ways


def benchmark(path: Path, *rows: str) -> Path:
    path.write_text("s\th:m:s\tmax_rss\tcpu_time\n" + "".join(f"{r}\n" for r in rows))
    return path


def test_costs_add_up(tmp_path: Path) -> None:
    files = [benchmark(tmp_path / "a.tsv", "4.5\t0:00:04\t10\t8.0"), benchmark(tmp_path / "b.tsv", "0.5\t0:00:00\tNA\tNA")]
    history = pl.DataFrame(
        {"step": [1, 2], "loss": [1.0, 1.0], "learning_rate": [0.1, 0.1], "grad_norm": [1.0, 1.0], "tokens": [100, 50]}
    ).with_columns(held_out_loss=None)
    write_table(tmp_path / "history.parquet", history, HISTORY)
    account = pl.DataFrame(
        {
            "dataset": ["d"], "requests_sent": [3], "replies_from_cache": [0], "retries": [0], "rejected": [0], "failures": [0],
            "prompt_tokens": [30], "completion_tokens": [12], "cost_usd": [0.25],
        }
    )  # fmt: skip
    write_table(tmp_path / "account.parquet", account, ACCOUNTS)
    parts = {
        "training": Spent(benchmarks=[*files, tmp_path / "lost.tsv", *files], histories=[tmp_path / "history.parquet"] * 2),
        "teacher": Spent(accounts=[tmp_path / "account.parquet"]),
    }
    table = costs({"swift study": {"gradients": Spent(benchmarks=files[1:])}, "validation": parts})
    assert table.columns == COSTS.names
    assert table.rows() == [
        ("swift study", "gradients", 1, 0.5, 0.5, 0, 0.0),
        ("swift study", "total", 1, 0.5, 0.5, 0, 0.0),
        ("validation", "training", 2, 5.0, 8.5, 150, 0.0),
        ("validation", "teacher", 0, 0.0, 0.0, 42, 0.25),
        ("validation", "total", 2, 5.0, 8.5, 192, 0.25),
    ]
    assert untimed({"validation": parts}) == [tmp_path / "lost.tsv"]
    one, two = cost_sentences(table)
    assert one == "Swift study: 0 CPU seconds, 0 tokens."
    assert two == "Validation: 8 CPU seconds, 17 times the swift study, 192 tokens and $0.25 for teacher and judge."


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a\tb\n1\t2\n", "have the columns s and cpu_time and a row. Remove it"),
        (b"", "it cannot be read"),
        (b"s\th:m:s\tmax_rss\tcpu_time\n", "have the columns s and cpu_time and a row. Remove it"),
        (b"s\th:m:s\tmax_rss\tcpu_time\n4.5\t0:0", ""),  # cut, but the seconds are there
        (b"s\th:m:s\tmax_rss\tcpu_time\nNA\t0:00:04\t10\t8.0\n", "row 1, column s: expected seconds, found 'NA'"),
        (b"s\tcpu_time\n4.5\t1\n\t1\n", "row 2, column s: expected seconds, found None"),
        (b"s\tcpu_time\nnan\t1\n", "row 1, column s: expected seconds, found 'nan'"),
        (b"s\tcpu_time\ninf\t1\n", "row 1, column s: expected seconds, found 'inf'"),
        (b"\xff\xfe\x00s\tcpu_time\n1\t1\n", ""),
        (b"s\tcpu_time\n1\t1\t1\t1\n", ""),
    ],
)
def test_a_file_that_is_no_benchmark_is_a_sentence(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "it's x.tsv"
    path.write_bytes(content)
    if content.startswith(b"s\th:m:s\tmax_rss\tcpu_time\n4.5"):
        assert read_benchmark(path) == (4.5, 4.5)
        return
    with pytest.raises(UserError) as caught:
        read_benchmark(path)
    assert str(caught.value).startswith(f"{path}: this is not one of Snakemake's benchmark files")
    assert told in str(caught.value)


def test_the_ways_of_the_default_are_those_of_its_agreement() -> None:
    found = ways(Graph(configured()), "agreement")
    assert list(found) == ["swift", "similarity and loss change", "proxy", "training"]
    assert list(found["swift"]) == ["training", "data by a teacher", "gradients", "influence", "verdicts", "confounds"]
    assert found["swift"]["gradients"].benchmarks[0] == Path("results/benchmarks/gradients/base/cot.tsv")
    trained = {path.parts[2] for path in found["training"]["training"].histories}
    assert {"full_base", "in_cot", "mix_all"} <= trained
    assert "in_pos" in trained  # what the others are compared with
    assert {path.parts[2] for path in found["proxy"]["training"].histories} >= {"base", "proxy_in_plain", "proxy_cross_evaluate"}
    assert list(found["training"])[-3:] == ["responses", "scores: key_points", "scores: likelihood"]
    assert (
        Path("results/benchmarks/score_with_model/mix_cot/seed=17/model=main/questions/likelihood.tsv")
        in found["training"]["scores: likelihood"].benchmarks
    )
    assert "responses" not in found["proxy"]  # a likelihood needs none
