"""The gradients script on a tiny model: each scope and representation, against autograd; killed and started again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from made_examples import example
from safetensors.torch import save_file
from tiny import ROOT

from swift_study.config import Gradients, Lora, Model, Run
from swift_study.gradients.certificate import reference_gram
from swift_study.gradients.engine import adam_preconditioner
from swift_study.gradients.sketch import half_width, sketched_products
from swift_study.io.settings import settings as as_settings
from swift_study.io.tables import CHECKPOINTS, write_examples, write_table
from swift_study.models.loading import add_lora, load_model
from swift_study.models.rendering import load_renderer
from swift_study.models.weights import select_weights

GRADIENTS, MODULES = "made/step-000004.parquet", "made/step-000004.modules.parquet"
EXAMPLES = [example(f"Say {i}" + " please" * i, f"{i} " * (1 + i % 4), f"t{i % 3}") for i in range(7)]
RUN = Run(lora=Lora(rank=4, alpha=8), export_second_moments=True)


@pytest.fixture(scope="module")
def checkpoints(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Step 4 of a run with an adapter and of one of all weights, both with second moments."""
    torch.manual_seed(0)
    found = {}
    for method in ("lora", "full"):
        model = load_model(tiny_model, Model())
        if method == "lora":
            model = add_lora(model, RUN.lora, RUN.seed)
        else:
            model.requires_grad_(True)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for parameter in trained.values():
                parameter.add_(0.05 * torch.randn_like(parameter))
        folder = tmp_path_factory.mktemp(method) / "step-000004"
        model.save_pretrained(folder)
        save_file({name: torch.rand_like(p) * 1e-4 for name, p in trained.items()}, folder / "exp_avg_sq.safetensors")
        row = pl.DataFrame([(1, 4, folder.name, method)], schema=CHECKPOINTS.names, orient="row")
        write_table(folder.parent / "checkpoints.parquet", row, CHECKPOINTS)
        found[method] = folder
    return found


def command(folder: Path, model: Path, checkpoint: Path, method: str, settings: Gradients, memory_mb: int = 20_000) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(json.dumps({"name": "tiny", "folder": str(model), "weights": "x"}))
    write_examples(folder / "panel.parquet", EXAMPLES)
    run = RUN.model_copy(update={"method": method})
    told = {"gradients": settings, "run": run, "model": Model(), "loss_on": {}}
    memory = {"gradients": {"memory_gb": memory_mb / 1000}}
    return [
        sys.executable, str(ROOT / "workflow/scripts/compute_gradients.py"), "--gpus", "0", "--panel", "s", 
        "--settings", as_settings(**told), "--limits", json.dumps(memory),
        "--model", str(folder / "model.json"), "--work", str(folder / "work"),
        "--datasets", str(folder / "panel.parquet"), "--checkpoints", str(checkpoint.parent), "--output", str(folder / "made"),
        "--threads", "1",
    ]  # fmt: skip


def compute(*given: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*given), capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"})  # type: ignore[arg-type]
    if check:
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done


def vectors(folder: Path, column: str = "gradient") -> np.ndarray:
    table = pq.read_table(folder / GRADIENTS)
    return table.column(column).combine_chunks().flatten().to_numpy().reshape(len(table), -1).astype(np.float64)


def expected(model: Path, checkpoint: Path, method: str, settings: Gradients, adam: bool) -> tuple[np.ndarray, np.ndarray | None]:
    from safetensors.torch import load_file

    from swift_study.models.loading import load_checkpoint

    loaded = load_checkpoint(model, Model(), checkpoint, RUN.lora)
    if method == "lora" and settings.scope == "full":
        loaded = loaded.merge_and_unload()
    select_weights(loaded, settings.scope, settings.modules)
    renderer = load_renderer(model, Model())
    tokens = [renderer.tokens(e) for e in EXAMPLES]
    moments = load_file(checkpoint / "exp_avg_sq.safetensors")
    scales = adam_preconditioner(moments, 4, RUN.betas, RUN.epsilon) if adam else None
    return reference_gram(loaded.double(), tokens, renderer.pad_id, scales)


def off(products: np.ndarray, reference: np.ndarray) -> float:
    norms = np.sqrt(np.diagonal(reference))
    return float(np.max(np.abs(products - reference) / np.outer(norms, norms)))


@pytest.mark.parametrize(
    ("method", "settings", "adam"),
    [
        ("lora", Gradients(), True),
        ("lora", Gradients(scope="full"), False),
        ("full", Gradients(scope="full"), True),
        ("full", Gradients(scope="full", modules="mlp", representation="exact"), True),
    ],
)
def test_tables_hold_autograds_inner_products(
    checkpoints: dict[str, Path], tiny_model: Path, tmp_path: Path, method: str, settings: Gradients, adam: bool
) -> None:
    folder = tmp_path / "run"
    compute(folder, tiny_model, checkpoints[method], method, settings)
    plain, scaled = expected(tiny_model, checkpoints[method], method, settings, adam)
    found = vectors(folder)
    assert off(found @ found.T, plain) < 1e-4
    table = pl.read_parquet(folder / GRADIENTS)
    assert ("gradient_adam" in table.columns) == adam
    if scaled is not None:
        with_adam = vectors(folder, "gradient_adam")
        assert off(with_adam @ with_adam.T, scaled) < 1e-4
    modules = pl.read_parquet(folder / MODULES)
    total = np.sum(modules["inner_products"].to_list(), axis=0)
    assert np.max(np.abs(total - plain[np.triu_indices(len(EXAMPLES))])) / np.max(plain) < 1e-4
    certificate = json.loads((folder / "made/certificate.json").read_text())
    assert certificate["passed"]
    assert (certificate["adam_against_float64"] is not None) == adam


def test_a_sketched_pool_is_made_in_shards_and_goes_on_after_a_kill(checkpoints: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    settings = Gradients(scope="full", representation="sketch", sketch_dimensions=1024, shard=3)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    compute(straight, tiny_model, checkpoints["full"], "full", settings)
    plain, _ = expected(tiny_model, checkpoints["full"], "full", settings, False)
    table = pl.read_parquet(straight / GRADIENTS)
    assert np.allclose(table["norm_sq"], np.diagonal(plain), rtol=1e-4)
    products, errors = sketched_products(vectors(straight), vectors(straight))
    pairs = np.triu_indices(len(EXAMPLES), 1)
    assert np.mean(np.abs(products - plain)[pairs] <= half_width(errors, 0.95)[pairs]) > 0.7
    assert json.loads((straight / "made/certificate.json").read_text())["sketch_coverage"] is not None

    # After the first shard nothing can be published: the job ends there, as if it had been killed.
    line = command(killed, tiny_model, checkpoints["full"], "full", settings)
    code = f"import sys, runpy, swift_study.gradients.engine as g; sys.argv = {line[1:]!r}\n" + (
        "real, calls = g.panel_gradients, []\n"
        "def once(*a, **k):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2: import os; os.kill(os.getpid(), 9)\n"
        "    return real(*a, **k)\n"
        "g.panel_gradients = once\n"
        f"runpy.run_path({line[1]!r}, run_name='__main__')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts"), "HF_HUB_OFFLINE": "1"}
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert died.returncode == -9, died.stderr[-2000:]
    (shard,) = killed.glob("work/*/step-000004.*.parquet")
    assert pq.read_metadata(shard).num_rows == 3
    written = shard.stat().st_mtime_ns
    before = {shard.name: written}
    again = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "0 of 7" not in again.stdout
    assert before[shard.name] == written
    assert (killed / GRADIENTS).read_bytes() == (straight / GRADIENTS).read_bytes()


def test_a_budget_that_is_too_small_ends_in_a_sentence(checkpoints: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    done = compute(tmp_path / "run", tiny_model, checkpoints["full"], "full", Gradients(scope="full"), 100, check=False)
    assert done.returncode == 1
    assert "ERROR in compute_gradients: gradients.memory_gb = 0.1 is too little" in done.stdout
    assert not (tmp_path / "run" / GRADIENTS).exists()
