"""A copy of the repository that tests may edit, with the whole workflow on a tiny model."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from tiny import ROOT

from swift_study.planning.costs import read_jobs

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository with a finished tiny run in ``results``."""

    root: Path
    tiny: Path  # configuration that makes everything tiny

    def snakemake(self, *arguments: str, configs: tuple[str, ...] = (), check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run snakemake as a user does, with the tiny configuration laid over the default one."""
        command = [str(BIN / "snakemake"), *arguments, "--configfile", *configs, "tests/workflow/tiny.yaml", str(self.tiny)]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False, env=environment())
        if check:
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done

    def jobs(self, *arguments: str, configs: tuple[str, ...] = ()) -> list[str]:
        """The jobs that a run (or with -n, a dry run) lists: rule names with their wildcards."""
        done = self.snakemake(*arguments, configs=configs)
        return jobs_in(done.stdout + done.stderr)  # a dry run prints to standard output, a run to standard error

    def is_finished(self, *arguments: str, configs: tuple[str, ...] = ()) -> bool:
        """Whether a dry run finds nothing to do."""
        return "Nothing to be done" in self.snakemake("-n", *arguments, configs=configs).stdout

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


def jobs_in(log: str) -> list[str]:
    """Rule names in the order of the log, with the values of their wildcards."""
    return sorted({f"{job.rule} {'.'.join(job.wildcards.values())}".strip() for job in read_jobs(log)})


def environment() -> dict[str, str]:
    """The environment of these tests, kept from the network."""
    return os.environ | {"HF_HUB_OFFLINE": "1"}


def copy_repository(target: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, copy = ROOT / name, target / name
        if source.is_file() or source.is_symlink():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def make_checkout(folder: Path, model: Path) -> Checkout:
    copy_repository(folder)
    tiny = folder / "tiny-model.yaml"
    tiny.write_text(yaml.safe_dump({"model": {"name": str(model)}}))
    return Checkout(folder, tiny)
