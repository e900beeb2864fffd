"""A script that is asked to stop says so, whatever it was doing."""

import signal
import subprocess
import sys

import pytest
from tiny import ROOT

WORK = {
    "computing": "while True: time.sleep(0.01)",
    "in a library that catches every exception": """while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass""",
    "waiting for a server": "asyncio.run(ask())",
}
SCRIPT = """
import asyncio, sys, time
sys.path.insert(0, {library!r})
from swift_study.io import cli

async def wait():
    while True:
        try:
            await asyncio.sleep(0.01)
        except Exception:
            pass

async def ask():
    await asyncio.gather(wait(), wait())

def main(a):
    cli.say("started")
    {work}

cli.run(main, cli.parser("A script."))
"""


@pytest.mark.parametrize("work", WORK)
def test_sigterm_ends_a_script_in_a_sentence_and_an_exit_code_of_its_own(work: str) -> None:
    script = SCRIPT.format(library=str(ROOT / "workflow/scripts"), work=WORK[work])
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "started\n"
        job.send_signal(signal.SIGTERM)
        out, _ = job.communicate(timeout=30)
    assert job.returncode == 75
    assert "STOPPED" in out
    assert "SIGTERM came (a time limit, preemption, or somebody ended it)" in out
