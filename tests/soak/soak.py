"""Kill the whole workflow on a tiny model again and again, and hold what it ends in against a run that nothing stopped.

    .venv/bin/python tests/soak/soak.py --kills 200 --folder /tmp/soak --record tests/soak

Each start is the same command, `snakemake all swift_study_training`, tiny. A SIGKILL of its whole process group ends it:
after a random time, or from inside a script that is about to change its n-th file (`inside/sitecustomize.py`: a rename, a removal, a link,
a new folder, a file opened for writing). A loss is a start that fails by itself, a process that outlives the kill, or a file of the results
whose bytes differ at the end. The soak can be ended at any time; the same command goes on. With `--after-training` the trained runs are
there already, so that the kills fall into what is made from them.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from checkout import BIN, Checkout, environment, make_checkout
from tiny import ROOT, make_tiny_model

INSIDE = ROOT / "tests/soak/inside"
TARGETS = ("all", "swift_study_training")
# Times, and what is made from them; what Snakemake itself writes; work that is not finished.
NO_RESULTS = re.compile(r"^(logs|benchmarks|work)/|^studies/\w+/(costs\.|ways\.json$)|^report\.html$|\.png$")
FROM_RUNS = (
    "gradients",
    "responses",
    "scores",
    "audit",
    "tables",
    "figures",
    "studies",
    "pages",
    "report.html",
)
LONGEST = 12.0  # in times that Snakemake took to start, so that a start gets a job or a few done on any machine
WAIT = 20.0  # seconds in which everything that was killed must be gone


def command(checkout: Checkout, targets: Sequence[str]) -> list[str]:
    return [str(BIN / "snakemake"), *targets, "--configfile", "tests/workflow/tiny.yaml", str(checkout.tiny)]


def digests(results: Path) -> dict[str, str]:
    """A hash of every result's bytes, by its path."""
    files = sorted(f for f in results.rglob("*") if f.is_file())
    names = {str(f.relative_to(results)): f for f in files}
    return {name: hashlib.blake2b(f.read_bytes(), digest_size=16).hexdigest() for name, f in names.items() if not NO_RESULTS.search(name)}


def processes_in(folder: Path) -> dict[int, str]:
    """Command lines of the processes whose working folder is this one; zombies have none."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve():
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")[:200]
        except OSError:
            continue
    return found


def left_behind(folder: Path) -> list[str]:
    """What is still there some time after the kill."""
    deadline = time.monotonic() + WAIT
    while (found := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return list(found.values())


def running(output: str) -> list[str]:
    """The rules whose jobs were started and not finished, by Snakemake's own words."""
    started = re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    jobid: (\d+)$", output, re.MULTILINE)
    open_jobs = {jobid: rule for rule, jobid in started}
    for jobid in re.findall(r"^Finished jobid: (\d+)", output, re.MULTILINE):
        open_jobs.pop(jobid, None)
    return sorted(open_jobs.values())


def start_and_kill(checkout: Checkout, targets: Sequence[str], how: dict[str, Any], note: Path, output: Path) -> dict[str, Any]:
    """One start of the workflow, killed at the n-th `change` of a file by a script, and at the latest some time after its first job began:
    `after` as many times as Snakemake took to start.

    Returns what happened: `killed` with the rules that ran and, inside a script, the place, or `ended` with its exit code; `left` are
    processes that outlived the kill.
    """
    note.unlink(missing_ok=True)
    with output.open("w") as out:
        # A shell, whose pid is the group's before Snakemake starts, so that the kill from inside finds it.
        inside = {"PYTHONPATH": str(INSIDE), "KILL_UNDER": f"{checkout.root}/results", "KILL_NOTE": str(note)}
        inside |= {"KILL_SCRIPTS": "workflow/scripts/", "KILL_AT": str(how.get("change", 0))}
        line = ["bash", "-c", 'KILL_GROUP=$$ exec "$@"', "soak", *command(checkout, targets)]
        run = subprocess.Popen(
            line, cwd=checkout.root, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env=environment() | inside
        )
        launched, began = time.monotonic(), None
        try:
            while run.poll() is None:
                time.sleep(0.02)
                if began is None and re.search(r"^(?:local)?rule \w+:", output.read_text(), re.MULTILINE):
                    began = time.monotonic()
                if "after" in how and began is not None and time.monotonic() - began >= how["after"] * (began - launched):
                    os.killpg(run.pid, signal.SIGKILL)
                    run.wait()
        except BaseException:  # the soak itself is ended: nothing may go on in the checkout
            os.killpg(run.pid, signal.SIGKILL)
            raise
    text = output.read_text()
    if run.returncode != -signal.SIGKILL:
        return {"outcome": "ended", "code": run.returncode}
    inside_script = re.search(r"^KILLED\t\d+\t(\S+)\t(.+)\t(.+)$", note.read_text(), re.MULTILINE) if note.is_file() else None
    where = {}
    if inside_script:
        event, path, script = inside_script.groups()
        where = {"script": script, "event": event, "path": str(Path(path).relative_to(checkout.root))}
    return {"outcome": "killed", "rules": running(text), **where, "left": left_behind(checkout.root)}


def draw(random_: random.Random) -> dict[str, Any]:
    """A random time, most often early, at times after more than one training; or a place in the first script that comes to it."""
    if random_.random() < 0.4:
        return {"after": round(random_.random() ** 2 * LONGEST, 2)}
    # A script's first changes fall into its start, the last ones into publishing and clearing away; only a training has more than some 20.
    return {"change": random_.choice([*range(1, 21), 25, 30, 35, 40, 50, 60, 70, 80, 90, 100]), "after": LONGEST}


def soak(
    checkout: Checkout,
    kept: Path,
    kills: int,
    seed: int,
    record: Path,
    targets: Sequence[str] = TARGETS,
    minutes: float = 1e9,
    trained: Path | None = None,
) -> list[dict[str, Any]]:
    """Kill until ``kills`` kills stand in the record (JSON lines), then let it end, and compare with the digests that are ``kept``.

    Each pass begins from nothing, or from the data and the trained runs of the checkout ``trained``. Returns the record; also where the
    time is up, or after a loss.
    """
    deadline = time.monotonic() + 60 * minutes
    rows: list[dict[str, Any]] = [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []
    random_ = random.Random(f"{seed} {len(rows)}")
    note, output = record.with_suffix(".note"), record.with_suffix(".out")

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        with record.open("a") as stream:
            stream.write(json.dumps(row) + "\n")

    while time.monotonic() < deadline:
        done = sum(row["outcome"] == "killed" for row in rows)
        how = draw(random_)
        if done >= kills:
            how = {}  # to the end
        row = how | start_and_kill(checkout, targets, how, note, output)
        if row["outcome"] == "ended":
            if row["code"] != 0:
                keep(row | {"outcome": "loss", "said": output.read_text()[-3000:]})
                return rows
            found, reference = digests(checkout.root / "results"), json.loads(kept.read_text())
            differing = sorted(name for name in reference.keys() | found.keys() if reference.get(name) != found.get(name))
            keep({"outcome": "loss" if differing else "same bytes", "files": len(found), "differing": differing})
            if differing or done >= kills:
                return rows
            clear(checkout.root)
            if trained is not None:
                copy_trained(trained, checkout.root)
        else:
            keep(row | ({"outcome": "loss"} if row["left"] else {}))
            if row["left"]:
                return rows
    return rows


def clear(root: Path) -> None:
    for name in ("results", ".snakemake"):
        shutil.rmtree(root / name, ignore_errors=True)


def copy_trained(source: Path, target: Path) -> None:
    """Without what is made from trained runs, so that kills fall into that: half of a pass is training."""
    shutil.copytree(source / ".snakemake", target / ".snakemake", dirs_exist_ok=True)
    shutil.copytree(source / "results", target / "results", ignore=shutil.ignore_patterns(*FROM_RUNS), dirs_exist_ok=True)


def summary(rows: Sequence[dict[str, Any]], seconds: float) -> str:
    """The record for people."""
    killed = [row for row in rows if row["outcome"] == "killed"]
    passes = [row for row in rows if row["outcome"] == "same bytes"]
    lost = [row for row in rows if row["outcome"] == "loss"]
    rules = Counter(rule for row in killed for rule in row["rules"])
    events = Counter(row["event"] for row in killed if "event" in row)
    scripts = Counter(row["script"] for row in killed if "event" in row)
    versions = ", ".join(f"{name} {version(name)}" for name in ("snakemake", "torch", "deepspeed", "polars"))
    table = "\n".join(f"| {rule} | {n} |" for rule, n in sorted(rules.items()))
    files = passes[-1]["files"] if passes else 0
    note = "" if rows and rows[-1]["outcome"] == "same bytes" else "**It is not finished: the last pass has not come to its end.**\n\n"
    return f"""# Soak: {len(killed)} kills, {len(lost)} losses

`tests/soak/soak.py` killed `snakemake {" ".join(TARGETS)}` on the tiny model {len(killed)} times: SIGKILL to its whole process group,
then the same command again, with nothing done by hand. {len(killed) - sum(events.values())} kills came after a random time,
{sum(events.values())} from inside a script that was about to change a file. No process outlived a kill. The workflow came to its
end {len(passes)} times, each time with the bytes of a run that nothing stopped ({files} files). Every kill is a line of `record.jsonl`.

{note}{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}; {seconds / 60:.0f} minutes.

Places: {", ".join(f"{event} {n}" for event, n in sorted(events.items()))}.
Scripts: {", ".join(f"{script} {n}" for script, n in sorted(scripts.items()))}.

| rule that ran | kills |
|---|---|
{table}
"""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kills", type=int, default=200)
    p.add_argument("--folder", type=Path, required=True, help="where the two checkouts are")
    p.add_argument("--record", type=Path, required=True, help="folder of record.jsonl and README.md")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument(
        "--after-training", action="store_true", help="begin each pass with the data and trained runs of the run that nothing stopped"
    )
    p.add_argument("--minutes", type=float, default=1e9, help="stop after so long; the same command goes on")
    a = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("The soak was ended; the same command goes on."))
    folder, record = a.folder.resolve(), a.record.resolve()
    record.mkdir(parents=True, exist_ok=True)
    model = folder / "tiny"
    if not model.is_dir():
        make_tiny_model(model)
    checkouts = {}
    for name in ("straight", "killed"):
        root = folder / name
        checkouts[name] = Checkout(root, root / "tiny-model.yaml") if root.is_dir() else make_checkout(root, model)
    kept = folder / "reference.json"
    if not kept.is_file():
        checkouts["straight"].snakemake(*TARGETS)
        kept.write_text(json.dumps(digests(checkouts["straight"].root / "results"), indent=1))
    trained = checkouts["straight"].root if a.after_training else None
    if trained is not None and not (checkouts["killed"].root / "results").is_dir():
        copy_trained(trained, checkouts["killed"].root)
    clock = folder / "seconds"
    before, began = float(clock.read_text()) if clock.is_file() else 0.0, time.monotonic()
    rows = soak(checkouts["killed"], kept, a.kills, a.seed, folder / "record.jsonl", minutes=a.minutes, trained=trained)
    seconds = before + time.monotonic() - began
    clock.write_text(str(seconds))
    (record / "record.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (record / "README.md").write_text(summary(rows, seconds))
    print(summary(rows, seconds))
    sys.exit(any(row["outcome"] == "loss" for row in rows))


if __name__ == "__main__":
    main()
