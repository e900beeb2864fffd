"""What an influence study says of the claims about its curves."""

from argparse import Namespace
from pathlib import Path

from swift_study.config import InfluenceStudy, Statistics, curve_names
from swift_study.io import cli
from swift_study.io.tables import PAIRS, read_table
from swift_study.report.pages import write_formats
from swift_study.studies.claims import claims_about_curves, claims_schema, claims_sentence, curves_of, load_claims, usable_claims


def main(a: Namespace) -> None:
    study, statistics = InfluenceStudy.model_validate(cli.unpack(a.settings)), Statistics.model_validate_json(a.statistics)
    pairs, claims = read_table(Path(a.pairs), PAIRS), load_claims(Path(a.claims)) if a.claims else []
    known = curves_of(pairs)
    left_out = [curve for curve in curve_names(study.probes, study.targets) if curve not in known]
    usable = usable_claims(claims, known, left_out, "curve", a.claims)
    table = claims_about_curves(usable, pairs, a.study, study, statistics)
    write_formats(Path(a.folder), "claims", table, claims_schema(study))
    if claims:
        cli.say(f"{a.study}: {claims_sentence(table, len(claims) - len(usable))}")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        study="its name",
        settings="the study as JSON",
        statistics="the section `statistics` as JSON",
        pairs="Parquet file",
        folder="folder of the results",
    )
    p.add_argument("--claims", default="", help="YAML file of the study's claims")
    cli.run(main, p)
