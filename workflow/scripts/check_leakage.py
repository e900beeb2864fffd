"""Stop if a probe or target of a study, or a near-duplicate of one, is in the data that its run is trained on."""

from argparse import Namespace
from pathlib import Path

import polars as pl

from swift_study import cli
from swift_study.errors import UserError
from swift_study.sources import find_leaks
from swift_study.tables import LEAKAGE, read_examples, write_table


def main(a: Namespace) -> None:
    base = read_examples(Path(a.base))
    rows = []
    for path in map(Path, a.datasets):
        probes = read_examples(path)
        leaks = find_leaks(probes, base, a.near_duplicate)
        if leaks:
            raise UserError(
                f"{path}: {len(leaks)} of {len(probes)} examples are in the base data, so their gradients would not be those of unseen "
                f"examples: {'; '.join(leaks[:3])}. Change the sources or the seed of one of the two."
            )
        rows.append({"study": a.study, "dataset": path.stem, "n_examples": len(probes), "n_base": len(base), "leaks": 0})
    write_table(Path(a.output), pl.DataFrame(rows), LEAKAGE)
    cli.say(f"{a.study}: no probe is in the base data ({sum(r['n_examples'] for r in rows)} examples held against {len(base)})")


if __name__ == "__main__":
    p = cli.parser(__doc__, study="its name", base="Parquet file of the training data", output="Parquet file of the counts")
    p.add_argument("--datasets", nargs="+", required=True, help="Parquet files of the study's probes and targets")
    p.add_argument("--near-duplicate", type=float, required=True, help="Jaccard similarity from which queries are near-duplicates")
    cli.run(main, p)
