"""Do two result folders hold the same numbers? Pairs, curves, verdicts, and the tables of comparisons, whatever the paths are called.

    python benchmarks/compare_results.py OLD NEW

Rows are matched by everything that is no number; columns that only one side has are named and left out. Exit 1 where a number, a row or
a table differs.
"""

import sys
from pathlib import Path

import polars as pl
import polars.selectors as cs

# Where a table may be, by its name; * is the study.
PLACES = {
    "pairs": ("influence/*/pairs.parquet", "studies/*/pairs.parquet"),
    "curves": ("influence/*/curves.parquet", "studies/*/curves.parquet"),
    "verdicts": ("influence/*/verdicts.parquet", "studies/*/verdicts.parquet"),
    "confounds": ("influence/*/confounds.parquet", "studies/*/confounds.parquet"),
    "table": ("tables/table*.parquet", "studies/table*/table.parquet"),
}
RENAMED = {"baseline": "control", "baseline_rel_inf": "control_rel_inf", "training_data": "row"}
OF_NAMES = ["run", "study", "n_seeds"]  # paths and names may change


def found(results: Path, name: str) -> dict[str, Path]:
    """The tables of this name, by study."""
    tables = {}
    for pattern in PLACES[name]:
        for path in results.glob(pattern):
            tables[path.stem if path.parent.name == "tables" else path.parent.name] = path
    return tables


def rows(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    frame = pl.read_parquet(path)
    frame = frame.rename({old: new for old, new in RENAMED.items() if old in frame.columns and new not in frame.columns})
    frame = frame.drop([c for c in OF_NAMES if c in frame.columns])
    frame = long(frame) if "row" in frame.columns and "model" in frame.columns else frame
    frame = frame if columns is None else frame.select(columns)
    texts = [name for name, kind in frame.schema.items() if not kind.is_float()]
    return frame.with_columns(pl.col(texts).cast(pl.String)).sort(texts, maintain_order=True)


MEASURES = {"accuracy": "accuracy", "ll_token": "nats_token", "ll_answer": "nats"}
OF_A_METRIC = ["sd", "gain", "gain_low", "gain_high", "gain_p"]


def long(table: pl.DataFrame) -> pl.DataFrame:
    """A table of comparisons with a row for each metric; before, each metric had columns of its own."""
    if "metric" in table.columns:
        return table.select("model", "row", "metric", "n", "value", *OF_A_METRIC)
    parts = [
        table.select("model", "row", pl.lit(metric).alias("metric"), "n", pl.col(old).alias("value")).hstack(
            table.select(pl.col(f"{old}_{name}").alias(name) for name in OF_A_METRIC)
        )
        for old, metric in MEASURES.items()
    ]
    return pl.concat(parts)


def differences(old: Path, new: Path) -> list[str]:
    """Sentences about what differs between two tables."""
    left, right = rows(old), rows(new)
    both = [c for c in left.columns if c in right.columns]
    only = [*(f"-{c}" for c in left.columns if c not in both), *(f"+{c}" for c in right.columns if c not in both)]
    left, right = rows(old, both), rows(new, both)
    problems = []
    if len(left) != len(right):
        return [f"{len(left)} rows against {len(right)}"]
    numbers = left.select(cs.float()).columns
    for column in both:
        a, b = left[column], right[column]
        if a.equals(b, null_equal=True):
            continue
        worst = (a - b).abs().max() if column in numbers else None
        problems.append(f"{column} differs in {(~a.eq_missing(b)).sum()} of {len(a)} rows" + (f", by up to {worst:.3g}" if worst else ""))
    print(f"    {len(left)} rows, {len(both)} columns compared{', not: ' + ' '.join(only) if only else ''}")
    return problems


def main(old: Path, new: Path) -> int:
    wrong = 0
    for name in PLACES:
        before, after = found(old, name), found(new, name)
        for study in sorted(before.keys() | after.keys()):
            print(f"{study}: {name}")
            if study not in before or study not in after:
                print(f"    only in {old if study in before else new}")
                wrong += study in before
                continue
            for problem in differences(before[study], after[study]):
                print(f"    DIFFERS: {problem}")
                wrong += 1
    print("the same numbers" if not wrong else f"{wrong} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
