"""The lock under which PyTorch compiles extensions: what a killed process leaves behind stops nobody."""

import os
import subprocess
import sys
from pathlib import Path

import torch.utils.cpp_extension
from tiny import ROOT

from swift_study.training.extensions import compile_in_turns

HOLD = """
import sys, time
from swift_study.training.extensions import Turn
turn = Turn(sys.argv[1])
turn.try_acquire()
print("held", flush=True)
time.sleep(float(sys.argv[2]))
open(sys.argv[1] + ".done", "w").close()
turn.release()
"""


def holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow" / "scripts")}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_that_a_killed_build_left_stops_nobody(tmp_path: Path) -> None:
    compile_in_turns()
    (tmp_path / "lock").touch()  # what PyTorch's own lock leaves
    turn = torch.utils.cpp_extension.FileBaton(str(tmp_path / "lock"), wait_seconds=0.1)
    assert turn.try_acquire()
    turn.release()
    killed = holder(tmp_path / "lock", 600)
    killed.kill()
    killed.wait()
    assert turn.try_acquire()
    turn.release()


def test_a_build_waits_for_the_one_before_it(tmp_path: Path) -> None:
    compile_in_turns()
    first = holder(tmp_path / "lock", 1)
    turn = torch.utils.cpp_extension.FileBaton(str(tmp_path / "lock"))
    assert turn.try_acquire()
    assert (tmp_path / "lock.done").exists()
    turn.release()
    assert first.wait() == 0
