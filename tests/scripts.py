"""The workflow's scripts, run as the rules run them."""

import subprocess
import sys
from pathlib import Path

from tiny import ROOT


def run_script(name: str, *arguments: object, cwd: Path = ROOT, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder; it must end with this exit code (None: any)."""
    command = [sys.executable, str(ROOT / "workflow/scripts" / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done
