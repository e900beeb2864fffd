"""Stop if what a study looks at, or a near-duplicate of it, is in what its runs are trained on, in whatever form; or if it has not the
values that the study's loss is on."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study.data.datasets import check_values
from swift_study.data.leakage import find_leaks
from swift_study.errors import UserError
from swift_study.io import cli
from swift_study.io.tables import LEAKAGE, read_examples, write_table


def main(a: Namespace) -> None:
    trained = [e for path in a.trained for e in read_examples(Path(path))]
    ancestors = [e for path in a.ancestors for e in read_examples(Path(path))]
    rows = []
    for path in map(Path, a.datasets):
        unseen = read_examples(path)
        if path.stem in a.values:
            check_values(unseen, path.stem)
        leaks = find_leaks(unseen, trained, ancestors, a.near_duplicate)
        if leaks:
            raise UserError(
                f"{path}: {len(leaks)} of {len(unseen)} examples are in the training data, so results on them would not be those of "
                f"unseen examples: {'; '.join(leaks[:3])}. Change the sources or the seed of one of the two."
            )
        rows.append({"study": a.study, "dataset": path.stem, "n_examples": len(unseen), "n_trained": len(trained), "leaks": 0})
    write_table(Path(a.output), pl.DataFrame(rows), LEAKAGE)
    n = sum(r["n_examples"] for r in rows)
    cli.say(f"{a.study}: none of its {n} examples is in the training data ({len(trained)} examples)")


if __name__ == "__main__":
    p = cli.parser(__doc__, study="its name", output="Parquet file of the counts")
    p.add_argument("--datasets", nargs="+", required=True, help="Parquet files of the study's probes and targets, or of the evaluation set")
    p.add_argument("--trained", nargs="*", default=[], help="Parquet files of what its runs are trained on")
    p.add_argument("--ancestors", nargs="*", default=[], help="Parquet files of what all these were made from")
    p.add_argument("--near-duplicate", type=float, required=True, help="Jaccard similarity from which texts are near-duplicates")
    p.add_argument("--values", nargs="*", default=[], help="names of the datasets whose loss is on values")
    cli.run(main, p)
