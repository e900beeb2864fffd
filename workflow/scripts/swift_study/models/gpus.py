"""Whether a Slurm job has the GPUs that its rule asked for."""

import logging
import os

import torch

from swift_study.errors import UserError

log = logging.getLogger(__name__)


def check_gpus(asked: int) -> None:
    """UserError unless this node's part of a Slurm job has ``asked`` GPUs.

    Outside Slurm nothing was asked for, and nothing is checked. A job that asked for none computes on the CPU: where a cluster does not
    confine devices it would see those of others, so they are hidden from it; call this before anything else uses them.
    SWIFT_STUDY_STAND_IN_GPUS=1, for clusters made for tests, where devices only stand in for GPUs: their number is checked, and the CPU
    computes.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return
    shown = os.environ.get("CUDA_VISIBLE_DEVICES") or os.environ.get("ROCR_VISIBLE_DEVICES") or ""
    if not asked:
        log.info("no GPUs were asked for, the CPU computes (CUDA_VISIBLE_DEVICES was %s)", shown or "not set")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    given = [name for name in shown.split(",") if name]
    if len(given) != asked:
        raise UserError(
            f"This job needs {asked} GPUs on each of its nodes, but was given {shown or 'none'} (CUDA_VISIBLE_DEVICES). Compare its rule "
            "in profiles/slurm/config.yaml with the partition's nodes; on a cluster without GPUs set `gpus: false` in config.yaml."
        )
    usable = torch.cuda.device_count()
    if os.environ.get("SWIFT_STUDY_STAND_IN_GPUS") == "1":
        log.warning("GPUs are only stood in for (SWIFT_STUDY_STAND_IN_GPUS): %s given, the CPU computes", asked)
    elif usable != asked:
        raise UserError(
            f"This job was given {asked} GPUs, but PyTorch {torch.__version__} can use {usable}. Install a build of PyTorch for "
            "these GPUs in the environment (docs/cluster.md), or ask for none: set `gpus: false` in config.yaml."
        )
