"""Print what the workflow would cost with a configuration, before anything is made. Fetches nothing."""

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before the libraries are imported, which read it then: a plan must not download what it plans for.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

from swift_study.config import MAIN, Model, configure
from swift_study.errors import UserError
from swift_study.io import cli
from swift_study.io.settings import unpack
from swift_study.models.loading import find_model, quiet_libraries
from swift_study.models.rendering import load_renderer
from swift_study.planning.costs import Job, Size, configured_size, read_jobs, read_size
from swift_study.planning.data import PlannedData
from swift_study.planning.report import Planner, text


def main(a: Namespace) -> None:
    quiet_libraries()
    values = unpack(a.config)
    config = configure(values, Path(a.studies))
    jobs = list_jobs(values, config.plan.targets, Path(a.snakefile))
    sizes: dict[str, Size] = {}
    notes: list[str] = []
    renderer = None
    for name, model in {MAIN: config.model, **config.models}.items():
        folder = local_folder(model, Path(config.cache))
        if folder is None:
            sizes[name] = configured_size(config.plan, model.name)
            notes.append(f"The model {model.name!r} is not on this machine: its size is that of the section `plan`, as a Llama's.")
        else:
            sizes[name] = read_size(folder)
        if name == MAIN and folder is not None:
            renderer = load_renderer(folder, model)
        elif name == MAIN:
            notes.append(
                "Its tokenizer is not here either: a token is taken to have "
                f"{config.plan.characters_per_token:g} characters (plan.characters_per_token), and {config.plan.template_tokens} are added "
                "for the chat template (plan.template_tokens)."
            )
        else:
            notes.append(f"Tokens are counted with the tokenizer of the model under study, for {name!r} as well.")
    data = PlannedData(config, renderer, Path(a.strategies))
    planned = Planner(config, jobs, sizes, data).plan()
    if data.read:
        notes.append(
            f"{data.read} datasets were read from {config.results}/data, where they are already; the others were built for the plan."
        )
    cli.say(text(config, jobs, sizes, planned, [*notes, *data.notes]))


def list_jobs(values: dict[str, Any], targets: Sequence[str], snakefile: Path) -> list[Job]:
    """The jobs of the targets from nothing, by Snakemake's own dry run with the same configuration."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        command = [sys.executable, "-m", "snakemake", "-n", "--forceall", *targets, "--snakefile", str(snakefile)]
        command += ["--nolock", "--configfile", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    jobs = read_jobs(done.stdout)
    if done.returncode or not jobs:
        print(done.stdout, done.stderr, file=sys.stderr)
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        start = next((i for i, line in enumerate(lines) if "Exception" in line or "Error" in line), 0)
        raise UserError(
            f"Snakemake's dry run of `{' '.join(targets)}` failed, so a run would as well: {' '.join(lines[start : start + 12])}"
        )
    return jobs


def local_folder(model: Model, cache: Path) -> Path | None:
    """The model's folder; None for a hub model that is not in the local cache."""
    try:
        return find_model(model, cache)
    except UserError:
        here = Path(model.name).expanduser()
        if model.name == "packaged" or here.exists() or model.name.startswith((".", "/", "~")):
            raise
        return None


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        config="the whole configuration as JSON",
        snakefile="the workflow's Snakefile",
        studies="folder of the collections",
        strategies="folder of the strategy files",
    )
    cli.run(main, p)
