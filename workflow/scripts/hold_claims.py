"""What an influence study says of the claims about its curves."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import InfluenceStudy, curve_names
from swift_study.io import cli
from swift_study.io.tables import PAIRS, read_table
from swift_study.report.pages import write_formats
from swift_study.report.scripts import Settings, run_study
from swift_study.studies.claims import claims_about_curves, claims_schema, claims_sentence, curves_of, read_claims


def main(s: Settings[InfluenceStudy], a: Namespace) -> None:
    study, statistics = s.study, s.statistics
    pairs = read_table(Path(a.pairs), PAIRS)
    known = curves_of(pairs)
    claims, left_out = read_claims(a.claims, known, [c for c in curve_names(study.probes, study.targets) if c not in known], "curve")
    table = claims_about_curves(claims, pairs, a.study, study, statistics)
    write_formats(Path(a.folder), "claims", table, claims_schema(study))
    if a.claims:
        cli.say(f"{a.study}: {claims_sentence(table, left_out)}")


if __name__ == "__main__":
    run_study(main, InfluenceStudy, __doc__, {"pairs": "Parquet file"}, claims=True)
