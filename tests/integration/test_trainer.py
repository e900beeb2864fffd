"""The trainer, as the rule starts it: through torchrun, for any number of processes, killed and resumed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
import torch
from safetensors.torch import load_file
from tiny import ROOT

from swift_study.config import Lora, Model, Run
from swift_study.examples import Example, Message
from swift_study.models import load_tokenizer
from swift_study.schedule import mixed
from swift_study.tables import SCHEDULE, write_examples, write_table
from swift_study.tokens import tokenize
from swift_study.trainer import learning_rate
from swift_study.work import work_folder

STEPS = (2, 4, 6, 8)


def some_examples() -> list[Example]:
    return [
        Example(
            task="counting",
            messages=[
                Message(role="user", content=f"Say the number {i}."),
                Message(role="assistant", content=f"{i} " * (1 + i % 5)),
            ],
        )
        for i in range(16)
    ]


def command(folder: Path, model: Path, **changes: object) -> list[str]:
    """The command line of the training rule for a small run in ``folder``."""
    run = Run(
        epochs=2,
        batch_size=4,
        micro_batch_size=2,
        checkpoint_every=2,
        warmup_steps=2,
        learning_rate=1e-3,
        final_learning_rate=1e-5,
        lora=Lora(rank=4, alpha=8),
    ).model_copy(update=changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps({"name": "tiny", "folder": str(model), "weights": "x"}))
    write_examples(folder / "base.parquet", some_examples())
    schedule = mixed(some_examples(), "base", run.epochs, run.batch_size, run.seed)
    write_table(folder / "schedule.parquet", schedule, SCHEDULE)
    return [
        str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node", str(run.processes),
        str(ROOT / "workflow" / "scripts" / "train.py"),
        "--name", "base", "--settings", run.model_dump_json(), "--threads", "2",
        "--model", str(folder / "model.json"), "--model-settings", Model().model_dump_json(),
        "--dataset", str(folder / "base.parquet"), "--schedule", str(folder / "schedule.parquet"),
        "--work", str(folder / "work"), "--history", str(folder / "history.parquet"),
        "--checkpoints", *(str(folder / f"checkpoint-{step}") for step in STEPS),
    ]  # fmt: skip


def train(folder: Path, model: Path, **changes: object) -> dict[str, torch.Tensor]:
    """Train to the end and return the last checkpoint's weights."""
    done = subprocess.run(command(folder, model, **changes), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return load_file(folder / "checkpoint-8" / "adapter_model.safetensors")


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to torchrun and its workers, which it starts in sessions of their own."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family)
    process.wait()


@pytest.fixture(scope="module")
def uninterrupted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder, tiny_model)
    return folder


def test_checkpoints_and_history_are_published(uninterrupted: Path) -> None:
    for step in STEPS:
        about = json.loads((uninterrupted / f"checkpoint-{step}" / "run.json").read_text())
        assert about["step"] == step
        assert about["world_size"] == 1
        assert about["settings"]["lora"]["rank"] == 4
        assert (uninterrupted / f"checkpoint-{step}" / "tokenizer.json").is_file()
    history = pl.read_parquet(uninterrupted / "history.parquet")
    assert history["step"].to_list() == list(range(1, 9))
    assert history["learning_rate"][1] == pytest.approx(1e-3)
    assert history["learning_rate"][-1] == 1e-5
    assert history["loss"][-1] != history["loss"][0]


def test_tokens_of_every_step_are_those_of_the_schedule(uninterrupted: Path, tiny_model: Path) -> None:
    """Reads back what each step consumed."""
    tokenizer = load_tokenizer(tiny_model, Model())
    lengths = {e.example_id: tokenize(e, tokenizer, 512).n_completion for e in some_examples()}
    schedule = pl.read_parquet(uninterrupted / "schedule.parquet")
    expected = [sum(lengths[i] for i in schedule.filter(pl.col("step") == step)["example_id"]) for step in range(1, 9)]
    assert pl.read_parquet(uninterrupted / "history.parquet")["tokens"].to_list() == expected


def test_a_killed_run_resumes_and_ends_in_the_same_bytes(uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path, tiny_model), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("work/*/state/latest")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    kill(process)
    assert not (tmp_path / "history.parquet").exists(), "the run ended before it could be killed"
    done = subprocess.run(command(tmp_path, tiny_model), capture_output=True, text=True, check=True)
    assert "resuming after step" in done.stdout
    for step in STEPS:
        name = Path(f"checkpoint-{step}") / "adapter_model.safetensors"
        assert (tmp_path / name).read_bytes() == (uninterrupted / name).read_bytes()
    assert (tmp_path / "history.parquet").read_bytes() == (uninterrupted / "history.parquet").read_bytes()


@pytest.mark.parametrize(("zero_stage", "processes"), [(0, 2), (2, 1), (2, 2), (3, 2)])
def test_stages_and_processes_agree(uninterrupted: Path, tiny_model: Path, tmp_path: Path, zero_stage: int, processes: int) -> None:
    reference = load_file(uninterrupted / "checkpoint-8" / "adapter_model.safetensors")
    weights = train(tmp_path, tiny_model, zero_stage=zero_stage, processes=processes)
    assert weights.keys() == reference.keys()
    for name, weight in weights.items():
        assert torch.allclose(weight, reference[name], rtol=0, atol=2e-6), name
    ours, theirs = (pl.read_parquet(f / "history.parquet") for f in (tmp_path, uninterrupted))
    assert (ours["loss"] - theirs["loss"]).abs().max() < 1e-5
    assert ours["tokens"].to_list() == theirs["tokens"].to_list()


def test_publishing_that_fails_loses_nothing(uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = command(tmp_path, tiny_model)
    nowhere = [part if part != str(tmp_path / "checkpoint-8") else "/proc/nowhere/checkpoint-8" for part in line]
    failed = subprocess.run(nowhere, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "ERROR in train" in failed.stdout
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "resuming after step 8 of 8" in done.stdout
    name = Path("checkpoint-8") / "adapter_model.safetensors"
    assert (tmp_path / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_a_second_job_does_not_tread_on_a_worker_that_outlived_the_first(tiny_model: Path, tmp_path: Path) -> None:
    work_folder(tmp_path / "work", "somebody's")
    done = subprocess.run(command(tmp_path, tiny_model), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "another process" in done.stdout
    assert f"pid {os.getpid()}" in done.stdout


def test_a_diverging_run_is_a_sentence(tiny_model: Path, tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path, tiny_model, learning_rate=1e30, clip_norm=0.0), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "training has diverged" in done.stdout
    assert "learning_rate" in done.stdout
    assert "Traceback" not in done.stdout


def test_learning_rate_warms_up_and_decays_to_the_floor() -> None:
    run = Run(learning_rate=1e-5, final_learning_rate=1e-7, warmup_steps=10)
    rates = [learning_rate(run, step, 1200) for step in range(1, 1201)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[9] == pytest.approx(1e-5)
    assert rates[-1] == 1e-7
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[604] == pytest.approx((1e-5 + 1e-7) / 2, rel=1e-2)
