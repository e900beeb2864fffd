"""What stands in the folder of a study's gradients."""

from pathlib import Path

from swift_study.errors import UserError
from swift_study.models.checkpoints import folder_name

CERTIFICATE = "certificate.json"


def gradient_file(step: int) -> str:
    return f"{folder_name(step)}.parquet"


def module_file(step: int) -> str:
    """Each weight's own inner products at the same checkpoint."""
    return f"{folder_name(step)}.modules.parquet"


def gradient_files(folder: Path) -> list[tuple[Path, Path]]:
    """Gradients, and modules' inner products, in the order of the checkpoints. UserError if there are none, or one without the other."""
    modules = sorted(folder.glob("step-*.modules.parquet"))
    gradients = sorted({*folder.glob("step-*.parquet")} - {*modules})
    pairs = [(path, path.with_suffix(".modules.parquet")) for path in gradients]
    if not pairs or [m for _, m in pairs] != modules:
        raise UserError(
            f"{folder}: expected for each checkpoint step-STEP.parquet and step-STEP.modules.parquet; there are "
            f"{', '.join(p.name for p in sorted([*gradients, *modules])) or 'none'}. Delete the folder and run snakemake again."
        )
    return pairs
