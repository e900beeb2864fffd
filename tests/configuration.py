"""The configuration as Snakemake puts it together: the collections, config.yaml, and files laid over them."""

from pathlib import Path
from typing import Any

from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config
from tiny import ROOT

from swift_study.config import Config, FileSource, configure

STUDIES = ROOT / "studies"
HANDWRITTEN = FileSource(path="data/panel/handwritten.jsonl")


def merged(*overlays: Path) -> dict[str, Any]:
    """config.yaml with files laid over it in the way Snakemake does for --configfile."""
    values: dict[str, Any] = load_configfile(ROOT / "config.yaml")
    for overlay in overlays:
        update_config(values, load_configfile(overlay))
    return values


def configured(values: dict[str, Any] | None = None) -> Config:
    """The default configuration with these values laid over it."""
    whole = merged()
    update_config(whole, values or {})
    return configure(whole, STUDIES)
