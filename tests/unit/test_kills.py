"""A SIGKILL at any change of a file leaves nothing that the same command cannot go on from; nothing outlives what started it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tiny import ROOT

LIBRARY = str(ROOT / "workflow/scripts")
INSIDE = str(ROOT / "tests/soak/inside")
JOB = """
import sys, json
from pathlib import Path
from swift_study.io.lines import append_lines, read_lines, replace_lines
from swift_study.io.work import copy_file, copy_tree, publish, remove, work_folder

root = Path(sys.argv[1])
work = work_folder(root / "work", sys.argv[2])
notes = work / "history.jsonl"
base = work / "base"
if base.exists():
    assert len(list(base.iterdir())) == 3, "only a part is there"
else:
    with publish(base) as part:
        part.mkdir()
        for name in "abc":
            (part / name).touch()
state = work / "latest"
done = int(state.read_text()) if state.is_file() else 0
assert [row["step"] for row in read_lines(notes)][:done] == list(range(1, done + 1)), "lost: " + notes.read_text()
replace_lines(notes, [row for row in read_lines(notes) if row["step"] <= done])
for step in range(done + 1, 5):
    append_lines(notes, [{"step": step}])
    with publish(work / f"checkpoint-{step}") as part:
        part.mkdir()
        (part / "weights").write_text(str(step) * 9)
        (part / "about").write_text("about")
    with publish(state) as part:
        part.write_text(str(step))
    if step > 1:
        remove(work / f"checkpoint-{step - 1}")
copy_tree(work / "checkpoint-4", root / "out" / "checkpoint")
copy_file(notes, root / "out" / "history")
remove(work)
"""


def run_job(root: Path, key: str, at: int) -> subprocess.CompletedProcess[str]:
    """The job, killed at its change of a file number ``at`` (0: not at all)."""
    (root / "note").unlink(missing_ok=True)
    environment = os.environ | {
        "PYTHONPATH": f"{INSIDE}:{LIBRARY}",
        "KILL_UNDER": f"{root}/",
        "KILL_NOTE": str(root / "note"),
        "KILL_AT": str(at),
    }
    line = [sys.executable, "-S", "-c", f"import sitecustomize\n{JOB}", str(root), key]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


def is_finished(root: Path) -> bool:
    """What the job publishes is there, and nothing beside it."""
    files = {str(f.relative_to(root)): f.read_text() for f in root.rglob("*") if f.is_file() and f.name not in ("note", "lock")}
    history = "".join(json.dumps({"step": step}) + "\n" for step in range(1, 5))
    return files == {"out/checkpoint/weights": "4" * 9, "out/checkpoint/about": "about", "out/history": history}


def test_a_kill_at_any_change_of_a_file_loses_nothing(tmp_path: Path) -> None:
    """A job that was killed half-way goes on and is killed again: while it goes on, while it works, publishes and clears away."""
    half = tmp_path / "half"
    half.mkdir()
    assert run_job(half, "key", 50).returncode == -signal.SIGKILL
    whole = tmp_path / "whole"
    shutil.copytree(half, whole)
    assert run_job(whole, "key", 0).returncode == 0
    seen = [line.split("\t") for line in (whole / "note").read_text().splitlines()]
    assert {"os.rename", "os.remove", "os.rmdir", "open", "os.link"} <= {event for _, _, event, *_ in seen}
    assert any(path.endswith("history.jsonl") for _, _, _, path, _ in seen)
    for at in range(1, len(seen) + 1):
        root = tmp_path / str(at)
        shutil.copytree(half, root)
        assert run_job(root, "key", at).returncode == -signal.SIGKILL, at
        again = run_job(root, "key", 0)
        assert again.returncode == 0, f"{at}: {seen[at - 1]}{again.stderr}"
        assert is_finished(root), f"{at}: {seen[at - 1]}"
        shutil.rmtree(root)


def test_a_kill_while_other_work_is_cleared_away_leaves_it_whole_or_gone(tmp_path: Path) -> None:
    """The settings are edited and put back: the first work folder must not be half there."""
    half = tmp_path / "half"
    half.mkdir()
    assert run_job(half, "key", 50).returncode == -signal.SIGKILL
    for at in range(4, 16, 2):
        root = tmp_path / str(at)
        shutil.copytree(half, root)
        assert run_job(root, "other", at).returncode == -signal.SIGKILL
        again = run_job(root, "key", 0)
        assert again.returncode == 0, f"{at}: {again.stderr}"
        assert is_finished(root), at


# ---- processes ----

STARTED = """
import sys, time
sys.path.insert(0, {library!r})
from swift_study.io import cli

def main(a):
    cli.say("started")
    time.sleep(60)

cli.run(main, cli.parser("A script."))
"""


def ends(pid: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("between", ["", "with_parent.py"], ids=["a script", "a command"])
def test_a_script_ends_with_the_process_that_started_it(tmp_path: Path, between: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(STARTED.format(library=LIBRARY))
    command = [sys.executable, *([f"{LIBRARY}/{between}", sys.executable] if between else []), str(script)]
    parent = f"import subprocess; p = subprocess.Popen({command!r}); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert process.stdout.readline() == "started\n"
        process.kill()
    assert ends(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_script_whose_starter_ended_while_it_was_loading_ends_at_once(tmp_path: Path) -> None:
    """The starter is gone before the script can ask for anything: it says who that was beforehand."""
    script = tmp_path / "script.py"
    script.write_text(
        STARTED.format(library=LIBRARY).replace(
            "import sys, time", f"import sys, time; open({str(tmp_path / 'pid')!r}, 'w'); time.sleep(1)"
        )
    )
    parent = f"""
import subprocess, sys
sys.path.insert(0, {LIBRARY!r})
from swift_study.io.processes import become_starter
become_starter()
p = subprocess.Popen([sys.executable, {str(script)!r}], stdout=open({str(tmp_path / "out")!r}, "w"))
print(p.pid)
"""
    started = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    assert ends(int(started.stdout))
    assert (tmp_path / "out").read_text() == ""


def test_every_rule_starts_its_script_in_the_place_of_its_shell() -> None:
    """A shell in between would outlive a killed Snakemake, and the script with it."""
    commands = [line for file in (ROOT / "rules").glob("*.smk") for line in re.findall(r'"([^"]*\{SCRIPTS\}/\S*)', file.read_text())]
    commands = [c for c in commands if not c.startswith(" ")]
    assert len(commands) > 25
    assert [c for c in commands if not c.startswith("exec ")] == []


# ---- the lock of Snakemake ----

SNAKEFILE = """
import sys
from pathlib import Path
sys.path.insert(0, {library!r})
from swift_study.io.processes import enter
enter(Path(".snakemake"), first=workflow.is_main_process)

rule all:
    output: "made"
    shell: "touch started; while [ ! -e go ]; do sleep 0.05; done; touch made"
"""


def snakemake(folder: Path) -> subprocess.Popen[str]:
    (folder / "Snakefile").write_text(SNAKEFILE.format(library=LIBRARY))
    line = [str(Path(sys.executable).parent / "snakemake"), "--cores", "1", "--rerun-incomplete", "--directory", str(folder)]
    line += ["--snakefile", str(folder / "Snakefile")]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def test_the_lock_of_a_dead_snakemake_is_removed_and_that_of_a_live_one_stays(tmp_path: Path) -> None:
    live = snakemake(tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "started").exists() and live.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    locks = sorted((tmp_path / ".snakemake/locks").iterdir())
    assert len(locks) == 1
    second = snakemake(tmp_path)
    assert "cannot be locked" in second.communicate(timeout=120)[0]
    assert second.returncode == 1
    assert sorted((tmp_path / ".snakemake/locks").iterdir()) == locks

    os.killpg(live.pid, signal.SIGKILL)
    live.communicate(timeout=20)
    assert sorted((tmp_path / ".snakemake/locks").iterdir()) == locks
    (tmp_path / "go").touch()
    third = snakemake(tmp_path)
    said = third.communicate(timeout=120)[0]
    assert third.returncode == 0, said
    assert (tmp_path / "made").exists()


def test_the_lock_of_another_machine_stays(tmp_path: Path) -> None:
    """Some file systems keep `flock` to each machine, so nothing is known of a run there."""
    folder = tmp_path / ".snakemake"
    (folder / "locks").mkdir(parents=True)
    lock = folder / "locks/0.output.lock"
    lock.write_text("made\n")
    enter = f"import sys; sys.path.insert(0, {LIBRARY!r}); from pathlib import Path; from swift_study.io.processes import enter; "
    for machine, first, stays in (("", True, True), ("elsewhere", True, True), (socket.gethostname(), False, True)):
        (folder / "at_work").write_text(machine)
        subprocess.run([sys.executable, "-c", f"{enter}enter(Path({str(folder)!r}), {first})"], check=True)
        assert lock.exists() == stays
    subprocess.run([sys.executable, "-c", f"{enter}enter(Path({str(folder)!r}), True)"], check=True)
    assert not lock.exists()


# ---- a full disk ----

FULL = """
import sys
sys.path.insert(0, {library!r})
from pathlib import Path
from swift_study.io import cli
from swift_study.io.work import publish

def main(a):
    {work}

cli.run(main, cli.parser("A script."))
"""
ON_A_FULL_DISK = {
    "a table is published": 'with publish(Path({disk!r}) / "table") as part: part.write_bytes(bytes(1 << 21))',
    "a file is written": 'Path({disk!r}, "note").write_bytes(bytes(1 << 21))',
    "a folder is made": "[Path({disk!r}, str(i)).mkdir() for i in range(5000)]",
}


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk on which not one byte is free."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=100", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small disk of its own cannot be mounted here (that takes root)")
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("work", ON_A_FULL_DISK)
def test_on_a_full_disk_the_sentence_still_comes_out(full_disk: Path, tmp_path: Path, work: str) -> None:
    """The log lies on it, too."""
    script = FULL.format(library=LIBRARY, work=ON_A_FULL_DISK[work].format(disk=str(full_disk)))
    with (full_disk / "log").open("wb") as log:
        done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=log, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"ERROR in -c: (\S*/disk/\S+|A file) could not be written: no space is left on the disk.*\n", done.stdout), (
        done.stdout
    )


def test_progress_that_cannot_be_written_stops_no_work(full_disk: Path, tmp_path: Path) -> None:
    work = f'cli.say("said" * 9999); print("said"); print("said" * 9999); Path({str(tmp_path / "made")!r}).touch()'
    with (full_disk / "log").open("wb") as log:
        done = subprocess.run([sys.executable, "-c", FULL.format(library=LIBRARY, work=work)], stdout=log, stderr=log, check=False)
    assert (tmp_path / "made").exists()
    assert done.returncode == 0
