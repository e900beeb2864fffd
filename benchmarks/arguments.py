"""What the benchmarks of the gradient engine are told. It loads nothing heavy: peers.py starts a process for each measurement."""

import argparse
import os


def parser(description: str | None) -> argparse.ArgumentParser:
    """With what both benchmarks of the engine are told: what is computed, and on what."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scopes", nargs="+", choices=["lora", "full"], default=["lora", "full"])
    p.add_argument("--examples", type=int, default=36)
    p.add_argument("--tokens", type=int, nargs="+", default=[64, 256], help="of each example; the loss is on the second half")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads")
    return p
