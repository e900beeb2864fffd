"""What a benchmark's numbers were measured on."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    return {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform(), "load": round(os.getloadavg()[0], 1)}


def gpu(device: str) -> dict[str, str]:
    """The GPU's name, if the device is one."""
    import torch

    return {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}


def versions(*packages: str) -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def resident(key: str) -> float:
    """Of this process in GB: VmRSS now, VmHWM the peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024 / 1e9


def forget_peak() -> None:
    """Let VmHWM start anew, where the system allows it; else the peak is that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("the peak counts from the process's start", file=sys.stderr)
