"""The trainer, as the rule starts it: through torchrun, for any number of processes, killed and resumed."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import torch
import transformers
from made_examples import example
from safetensors.torch import load_file
from tiny import ROOT
from transformers import LlamaConfig, LlamaForCausalLM

from swift_study.config import EarlyStopping, Lora, Model, Part, Run
from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.io.settings import limits
from swift_study.io.settings import settings as as_settings
from swift_study.io.tables import CONSUMED, HISTORY, SCHEDULE, read_table, write_examples, write_table
from swift_study.io.work import work_folder
from swift_study.models.batches import collate, sum_losses
from swift_study.models.checkpoints import last_checkpoint
from swift_study.models.loading import load_checkpoint, load_model
from swift_study.models.rendering import load_renderer
from swift_study.training.schedule import make_schedule
from swift_study.training.trainer import check_notes, is_enough, is_published, is_whole, learning_rate

STEPS = (2, 4, 6, 8)
ALL_IS_READ: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

MIXTURE = [{"base": Part(), "base.cot": Part()}]
FULL = {"method": "full", "learning_rate": 1e-4, "checkpoint_every": None, "resume_every": 2}


def some_examples(n: int = 16, word: str = "") -> list[Example]:
    return [example(f"Say the number {i}{word}.", f"{i} " * (1 + i % 5), "counting") for i in range(n)]


HELD_OUT = EarlyStopping(dataset="held_out", every=2)


def command(folder: Path, model: Path, start: Path | None = None, settings: Model | None = None, **changes: object) -> list[str]:
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
    datasets = {"base": some_examples(), "base.cot": some_examples(9, " and why")}
    used = {name: datasets[name] for phase in run.schedule for name in phase}
    for name, examples in used.items():
        write_examples(folder / f"{name}.parquet", examples)
    write_table(folder / "schedule.parquet", make_schedule(run, used, 17), SCHEDULE)
    write_examples(folder / "held_out.parquet", some_examples(7, " of those held out"))
    return [
        str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node", str(run.processes),
        str(ROOT / "workflow" / "scripts" / "train.py"),
        "--name", "base", "--settings", as_settings(run=run, model=settings or Model()), "--limits", limits(run=run), "--threads", "2",
        "--model", str(folder / "model.json"),
        *(["--start-from", str(start)] if start else []),
        *(["--held-out", str(folder / "held_out.parquet")] if run.early_stopping else []),
        "--datasets", *(str(folder / f"{name}.parquet") for name in used), "--schedule", str(folder / "schedule.parquet"),
        "--deepspeed", str(ROOT / "deepspeed" / f"zero-{run.zero_stage}.json"),
        "--gpus", "0", "--stop", str(folder / "stop"), "--work", str(folder / "work"),
        "--history", str(folder / "history.parquet"), "--consumed", str(folder / "consumed.parquet"),
        "--checkpoints", str(folder / "checkpoints"),
    ]  # fmt: skip


def train(
    folder: Path, model: Path, start: Path | None = None, settings: Model | None = None, **changes: object
) -> dict[str, torch.Tensor]:
    """Train to the end and return the last checkpoint's weights."""
    finish(args=command(folder, model, start, settings, **changes))
    return weights_of(folder)


def finish(**line: Any) -> str:
    """Run a command to the end and return what it says to people."""
    done = subprocess.run(**ALL_IS_READ | line, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return str(done.stdout)


def trained(name: str, **changes: object) -> Any:
    """A fixture: the folder of a run that nothing interrupted."""

    @pytest.fixture(scope="module", name=name)
    def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp(name)
        train(folder, tiny_model, **changes)
        return folder

    return run


def last(folder: Path) -> Path:
    found = last_checkpoint(folder / "checkpoints")
    assert found is not None
    return found


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(last(folder).glob("*model.safetensors")))


def fails(*arguments: object, **changes: object) -> str:
    """What a training that fails says to people: a sentence, no traceback."""
    done = subprocess.run(command(*arguments, **changes), capture_output=True, text=True, check=False)  # type: ignore[arg-type]
    assert done.returncode != 0
    assert "ERROR in train" in done.stdout, done.stdout + done.stderr[-3000:]
    assert "Traceback" not in done.stdout
    return done.stdout


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to torchrun and its workers, which it starts in sessions of their own."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family)
    process.wait()


uninterrupted = trained("uninterrupted")


def test_checkpoints_and_history_are_published(uninterrupted: Path) -> None:
    for step in STEPS:
        checkpoint = uninterrupted / "checkpoints" / f"step-{step:06d}"
        about = json.loads((checkpoint / "run.json").read_text())
        assert about["step"] == step
        assert about["world_size"] == 1
        assert about["threads"] == 2
        targets = json.loads((checkpoint / "adapter_config.json").read_text())["target_modules"]
        assert targets == sorted(Lora().targets)  # in no order of a set, which changes from process to process
        assert about["settings"]["lora"]["rank"] == 4
        assert (checkpoint / "tokenizer.json").is_file()
    assert pl.read_parquet(uninterrupted / "checkpoints/checkpoints.parquet").rows() == [
        (number, step, f"step-{step:06d}", "adapter") for number, step in enumerate(STEPS, start=1)
    ]
    history = pl.read_parquet(uninterrupted / "history.parquet")
    assert history["step"].to_list() == list(range(1, 9))
    assert history["learning_rate"][1] == pytest.approx(1e-3)
    assert history["learning_rate"][-1] == 1e-5
    assert history["loss"][-1] != history["loss"][0]


def test_tokens_of_every_step_are_those_of_the_schedule(uninterrupted: Path, tiny_model: Path) -> None:
    """Reads back what each step consumed."""
    renderer = load_renderer(tiny_model, Model())
    consumes(uninterrupted, {e.example_id: renderer.tokens(e).n_completion for e in some_examples()}, 8)


def consumes(folder: Path, lengths: Mapping[str, int], steps: int) -> None:
    """By its history a run consumes at each step the tokens of the examples that the schedule has there; ``lengths`` by example."""
    schedule = pl.read_parquet(folder / "schedule.parquet")
    expected = [sum(lengths[i] for i in schedule.filter(pl.col("step") == step)["example_id"]) for step in range(1, steps + 1)]
    assert pl.read_parquet(folder / "history.parquet")["tokens"].to_list() == expected


def until_a_state_is_saved(line: list[str], folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(folder.glob("work/*/state/latest")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def kill_half_way(line: list[str], folder: Path) -> None:
    kill(until_a_state_is_saved(line, folder))
    assert not (folder / "history.parquet").exists(), "the run ended before it could be killed"


def resumes_in_the_same_bytes(folder: Path, model: Path, other: Path, **changes: object) -> None:
    kill_half_way(command(folder, model, **changes), folder)
    assert "resuming after step" in finish(args=command(folder, model, **changes))
    same_bytes(folder, other)


def same_bytes(folder: Path, other: Path) -> None:
    """Of what two runs publish: the weights of all checkpoints, and the tables."""
    weights, theirs = (sorted(f.relative_to(at) for f in at.glob("checkpoints/*/*.safetensors")) for at in (folder, other))
    assert weights == theirs != []
    for name in (*weights, "checkpoints/checkpoints.parquet", "history.parquet", "consumed.parquet"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_a_killed_run_resumes_and_ends_in_the_same_bytes(uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    resumes_in_the_same_bytes(tmp_path, tiny_model, uninterrupted)


def test_the_pointer_to_the_state_is_replaced_and_never_rewritten(uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A kill between emptying and writing it would leave nothing to resume from. A second name of the first file shows which it is."""
    process = until_a_state_is_saved(command(tmp_path, tiny_model), tmp_path)
    (latest,) = tmp_path.glob("work/*/state/latest")
    os.link(latest, tmp_path / "first")
    assert process.wait(timeout=120) == 0
    last = pl.read_parquet(uninterrupted / "history.parquet")["step"][-1]
    step = int((tmp_path / "first").read_text().removeprefix("step-"))
    assert 0 < step < last


def as_the_rule_starts_it(folder: Path, model: Path, **changes: object) -> dict[str, Any]:
    """Arguments of a process: the launcher on one machine, without Slurm."""
    torchrun, _, _, processes, *script = command(folder, model, **changes)
    launcher = [str(ROOT / "workflow/scripts/launch.sh"), "--stop", str(folder / "stop"), "--nodes", "1", "--processes", processes]
    env = os.environ | {"PATH": f"{Path(torchrun).parent}:{os.environ['PATH']}"}
    return ALL_IS_READ | {"args": [*launcher, "--threads", "2", "--", *script], "env": env}


def until_a_worker_holds_the_lock(process: subprocess.Popen[str], folder: Path) -> None:
    lock, deadline = folder / "work/lock", time.monotonic() + 120
    while not (lock.is_file() and lock.read_text()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_run_that_sigterm_stops_goes_on_and_ends_in_the_same_bytes(uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    """SIGTERM to the launcher."""
    line = as_the_rule_starts_it(tmp_path, tiny_model)
    launched = subprocess.Popen(**line)
    until_a_worker_holds_the_lock(launched, tmp_path)
    launched.terminate()  # before the first step
    said, log = launched.communicate(timeout=120)
    assert launched.returncode != 0, said
    assert "launch.sh: SIGTERM (time limit, preemption or scancel): asking for a stop after this step" in log
    assert "STOPPED train: Stopped on request after step 1 of 8; its state is saved" in said, said + log[-3000:]
    assert not (tmp_path / "history.parquet").exists()
    assert "resuming after step 1 of 8" in finish(**line)
    same_bytes(tmp_path, uninterrupted)


def test_work_that_is_not_whole_is_done_again(uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    """No kill leaves it so; a disk or a person may. The same command neither fails nor publishes what is wrong."""
    kill_half_way(command(tmp_path, tiny_model), tmp_path)
    (history,) = tmp_path.glob("work/*/history.jsonl")
    history.write_bytes(b"".join(history.read_bytes().splitlines(keepends=True)[1:]))
    assert "is not whole; training starts again at the first step" in finish(args=command(tmp_path, tiny_model))
    same_bytes(tmp_path, uninterrupted)


@pytest.mark.parametrize("spoilt", ["nothing", "a file is cut short", "a file is missing", "the state is missing", "its list is missing"])
def test_a_state_is_resumed_from_only_if_every_file_of_it_is_there_to_its_end(tmp_path: Path, spoilt: str) -> None:
    state = tmp_path / "step-4"
    state.mkdir()
    names = ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"]
    for name in names:
        torch.save({"weights": torch.zeros(1000)}, state / name)
    (state / "files.json").write_text(json.dumps(names))
    (tmp_path / "latest").write_text("step-4")
    if spoilt == "a file is cut short":
        os.truncate(state / names[1], 3000)
    elif spoilt == "a file is missing":
        (state / names[0]).unlink()
    elif spoilt == "the state is missing":
        shutil.rmtree(state)
    elif spoilt == "its list is missing":
        (state / "files.json").unlink()
    assert is_whole(tmp_path) == (spoilt == "nothing")


def test_a_history_is_published_only_with_every_step_once() -> None:
    schedule = pl.DataFrame({"step": [1, 1, 2, 2, 3], "example_id": ["a", "b", "c", "a", "b"]})
    consumed = schedule.sample(fraction=1, shuffle=True, seed=1)
    check_notes(pl.DataFrame({"step": [1, 2, 3]}), consumed, schedule, 3, Path("work"))
    check_notes(pl.DataFrame({"step": [1, 2]}), consumed.filter(pl.col("step") < 3), schedule, 2, Path("work"))  # it stopped early
    for steps, said in {(2, 3): "2 to 3", (1, 3): "1, 3", (1, 2, 2, 3): "1 to 2, 2 to 3", (1, 2, 3, 4): "1 to 4"}.items():
        with pytest.raises(UserError, match=f"work: the history has the steps {said}, not each of 1 to 3 once. Nothing was published"):
            check_notes(pl.DataFrame({"step": steps}), consumed, schedule, 3, Path("work"))
    for wrong in (consumed[1:], pl.concat([consumed, consumed[:1]]), consumed.with_columns(pl.lit("a").alias("example_id"))):
        with pytest.raises(UserError, match="uses of examples are noted"):
            check_notes(pl.DataFrame({"step": [1, 2, 3]}), wrong, schedule, 3, Path("work"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_killed_launcher_leaves_no_worker_behind(tiny_model: Path, tmp_path: Path) -> None:
    """Which would hold the lock of the work folder."""
    launched = subprocess.Popen(**as_the_rule_starts_it(tmp_path, tiny_model, processes=2))
    until_a_worker_holds_the_lock(launched, tmp_path)
    family = psutil.Process(launched.pid).children(recursive=True)
    assert sum("train.py" in " ".join(member.cmdline()) for member in family) >= 2
    launched.kill()
    launched.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


@pytest.mark.parametrize(("zero_stage", "processes"), [(0, 2), (2, 1), (2, 2), (3, 2)])
def test_stages_and_processes_agree(uninterrupted: Path, tiny_model: Path, tmp_path: Path, zero_stage: int, processes: int) -> None:
    reference = load_file(last(uninterrupted) / "adapter_model.safetensors")
    weights = train(tmp_path, tiny_model, zero_stage=zero_stage, processes=processes)
    agree(tmp_path, weights, uninterrupted, reference)


def agree(folder: Path, weights: dict[str, torch.Tensor], other: Path, reference: dict[str, torch.Tensor]) -> None:
    """Weights to 2e-6, losses to 1e-5, gradient norms to 1e-4 of themselves; tokens and examples of every step exactly."""
    assert weights.keys() == reference.keys()
    for name, weight in weights.items():
        assert torch.allclose(weight, reference[name], rtol=0, atol=2e-6), (name, float((weight - reference[name]).abs().max()))
    ours, theirs = (pl.read_parquet(f / "history.parquet") for f in (folder, other))
    assert (ours["loss"] - theirs["loss"]).abs().max() < 1e-5
    assert (ours["grad_norm"] / theirs["grad_norm"] - 1).abs().max() < 1e-4
    assert ours["tokens"].to_list() == theirs["tokens"].to_list()
    ate, had = (sorted(pl.read_parquet(f / "consumed.parquet").select("step", "example_id").rows()) for f in (folder, other))
    assert ate == had


# ---- all parameters ----


# On a mixture whose epochs end in a smaller batch: 16 + 9 examples in batches of 4.
MIXED = FULL | {"schedule": MIXTURE, "export_second_moments": True}
full = trained("full", **MIXED)


@pytest.mark.parametrize(
    ("zero_stage", "processes", "more"),
    [
        (0, 2, {}),
        (1, 2, {}),
        (2, 1, {}),
        (2, 2, {}),
        (3, 1, {}),
        (3, 2, {}),
        (2, 2, {"offload": "optimizer"}),
        (3, 2, {"offload": "parameters"}),
        (0, 1, {"activation_checkpointing": True}),
    ],
)
def test_full_runs_agree_for_any_stage_and_number_of_processes(
    full: Path, tiny_model: Path, tmp_path: Path, zero_stage: int, processes: int, more: dict[str, object]
) -> None:
    weights = train(tmp_path, tiny_model, **MIXED | {"zero_stage": zero_stage, "processes": processes} | more)
    agree(tmp_path, weights, full, weights_of(full))
    ours, theirs = (load_file(last(f) / "exp_avg_sq.safetensors") for f in (tmp_path, full))
    assert ours.keys() == theirs.keys() == weights.keys()
    for name, moment in ours.items():
        assert moment.dtype == torch.float32
        assert torch.allclose(moment, theirs[name], rtol=1e-3, atol=1e-10), name


def test_a_full_run_trains_every_weight_and_is_a_model_again(full: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    before, after = load_file(tiny_model / "model.safetensors"), weights_of(full)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    model = AutoModelForCausalLM.from_pretrained(last(full))
    assert torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)  # tied, and saved once
    assert not list(last(full).glob("*.bin"))


def run_and_model(folder: Path, tiny_model: Path) -> tuple[Run, torch.nn.Module]:
    """The settings of a run of all parameters, and the model that it starts from."""
    settings = json.loads((last(folder) / "run.json").read_text())["settings"]
    return Run.model_validate(settings), load_model(tiny_model, Model()).requires_grad_(True)


def clipped_gradients(folder: Path, tiny_model: Path, run: Run, model: torch.nn.Module) -> Iterator[float]:
    """Give the model each batch's gradients in the order of a run's schedule, without DeepSpeed; yields the step's learning rate."""
    renderer = load_renderer(tiny_model, Model())
    tokens = {e.example_id: renderer.tokens(e) for e in [*some_examples(), *some_examples(9, " and why")]}
    schedule = pl.read_parquet(folder / "schedule.parquet")
    steps = schedule["step"].n_unique()
    for step in range(1, steps + 1):
        batch = [tokens[i] for i in schedule.filter(pl.col("step") == step)["example_id"]]
        model.zero_grad()
        (sum_losses(model, collate(batch, renderer.pad_id)).sum() / sum(t.n_completion for t in batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.clip_norm)
        yield learning_rate(run, step, steps)


def test_a_full_run_is_the_one_that_plain_torch_makes(full: Path, tiny_model: Path) -> None:
    """AdamW by torch alone."""
    run, model = run_and_model(full, tiny_model)
    optimizer = torch.optim.AdamW(model.parameters(), betas=run.betas, eps=run.epsilon, weight_decay=0)
    for rate in clipped_gradients(full, tiny_model, run, model):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    for name, weight in weights_of(full).items():
        assert torch.allclose(weight, model.state_dict()[name], rtol=0, atol=2e-6), name


def test_each_process_consumes_its_share_of_the_schedule(full: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Reads back what each of two processes worked on."""
    train(tmp_path, tiny_model, **FULL, schedule=MIXTURE, processes=2, zero_stage=2)
    consumed, schedule = pl.read_parquet(tmp_path / "consumed.parquet"), pl.read_parquet(tmp_path / "schedule.parquet")
    assert schedule.group_by("step").len().sort("step")["len"].to_list() == [4, 4, 4, 4, 4, 4, 1] * 2
    for step, used in schedule.group_by("step"):
        eaten = consumed.filter(pl.col("step") == step[0])
        assert sorted(eaten["example_id"]) == sorted(used["example_id"])
        shares = [eaten.filter(pl.col("process") == rank)["example_id"].to_list() for rank in (0, 1)]
        assert abs(len(shares[0]) - len(shares[1])) <= 1
        assert max(eaten.group_by("process", "micro_batch").len()["len"]) <= 2


def test_a_killed_full_run_resumes_and_ends_in_the_same_bytes(full: Path, tiny_model: Path, tmp_path: Path) -> None:
    resumes_in_the_same_bytes(tmp_path, tiny_model, full, **MIXED)


def test_a_run_starts_from_another_runs_checkpoint(full: Path, uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    """With a learning rate of nearly nothing the start's weights are what is left; the first loss is that of the start."""
    still = {"learning_rate": 1e-30, "final_learning_rate": 0.0, "warmup_steps": 0, "epochs": 1}
    weights = train(tmp_path / "full", tiny_model, full / "checkpoints", **FULL | still)
    assert all(torch.equal(weight, weights_of(full)[name]) for name, weight in weights.items())
    about = json.loads((last(tmp_path / "full") / "run.json").read_text())
    assert about["start"]["weights"] not in ("x", None)
    adapter = train(tmp_path / "lora", tiny_model, uninterrupted / "checkpoints", **still | {"checkpoint_every": None})
    reference = load_file(last(uninterrupted) / "adapter_model.safetensors")
    assert all(torch.equal(weight, reference[name]) for name, weight in adapter.items())


def test_bfloat16_keeps_float32_masters(tiny_model: Path, tmp_path: Path) -> None:
    """Steps far below bfloat16's resolution add up in the masters; saved are bfloat16 weights."""
    settings = FULL | {"dtype": "bfloat16", "zero_stage": 2, "learning_rate": 3e-4, "epochs": 6}
    weights = train(tmp_path, tiny_model, **settings)
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    history = pl.read_parquet(tmp_path / "history.parquet")
    assert history["loss"][-4:].mean() < history["loss"][:4].mean()


def test_loss_on_all_tokens_counts_the_prompts_as_well(tiny_model: Path, tmp_path: Path) -> None:
    train(tmp_path, tiny_model, **FULL, loss_on="all", epochs=1)
    renderer = load_renderer(tiny_model, Model())
    consumes(tmp_path, {e.example_id: len(renderer.tokens(e).ids) - 1 for e in some_examples()}, 4)


def test_a_checkpoint_of_another_model_is_a_sentence(full: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(full / "checkpoints", tmp_path / "checkpoints")
    other = last(tmp_path)
    for key, value in (("architectures", ["GPTNeoXForCausalLM"]), ("vocab_size", 7)):
        config = json.loads((last(full) / "config.json").read_text()) | {key: value}
        (other / "config.json").write_text(json.dumps(config))
        assert f"{other} is a checkpoint of another model: its {key} is" in fails(tmp_path / key, tiny_model, other.parent, **FULL)


def test_a_tokenizer_of_another_vocabulary_is_a_sentence(tiny_model: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    shutil.copytree(tiny_model, small)
    config = LlamaConfig.from_pretrained(tiny_model, vocab_size=100)
    LlamaForCausalLM(config).save_pretrained(small)
    assert "the model's vocabulary has 100 tokens" in fails(tmp_path / "run", small, **FULL)


def test_a_cut_short_start_is_a_sentence(full: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(full / "checkpoints", tmp_path / "checkpoints")
    cut = last(tmp_path)
    weights = cut / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(whole[: len(whole) // 2])
    assert f"{cut}/model.safetensors: the file is not whole" in fails(tmp_path / "run", tiny_model, cut.parent, **FULL)


def test_memory_that_runs_out_is_a_sentence_and_loses_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """The last step holds an example of 50,000 tokens: their logits alone are 10 GB, more than the process may have."""
    parts = {"schedule": [{"base": Part()}, {"base.cot": Part()}], "epochs": 1}
    line = command(tmp_path, tiny_model, settings=Model(max_length=10**6), **FULL | parts)
    monster = [example("?", "1 " * 25_000)]
    write_examples(tmp_path / "base.cot.parquet", monster)
    datasets = {"base": some_examples(), "base.cot": monster}
    write_table(tmp_path / "schedule.parquet", make_schedule(Run(**FULL | parts, batch_size=4, micro_batch_size=2), datasets, 17), SCHEDULE)
    for expected in ("step 4/5", "resuming after step 4 of 5"):
        done = subprocess.run(["prlimit", f"--as={10 * 10**9}", *line], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "Memory ran out" in done.stdout, done.stdout + done.stderr[-2000:]
        assert "micro_batch_size (2;" in done.stdout
        assert "Traceback" not in done.stdout
        assert expected in done.stdout or expected == "step 4/5"


# ---- nothing to train ----


def test_a_run_with_an_empty_schedule_is_the_model(tiny_model: Path, tmp_path: Path) -> None:
    finish(args=command(tmp_path, tiny_model, schedule=[]))
    assert pl.read_parquet(tmp_path / "checkpoints/checkpoints.parquet").rows() == [(1, 0, None, "model")]
    assert last_checkpoint(tmp_path / "checkpoints") is None
    for name, schema in (("history", HISTORY), ("consumed", CONSUMED)):
        assert read_table(tmp_path / f"{name}.parquet", schema).is_empty()
    assert list((tmp_path / "work").iterdir()) == [tmp_path / "work/lock"]
    model = load_checkpoint(tiny_model, Model(), last_checkpoint(tmp_path / "checkpoints"), Lora())
    assert torch.equal(model.get_input_embeddings().weight, load_model(tiny_model, Model()).get_input_embeddings().weight)


def test_a_run_of_no_examples_is_what_it_starts_from(full: Path, tiny_model: Path, tmp_path: Path) -> None:
    nothing = FULL | {"schedule": [{"base": Part(examples=0)}]}
    weights = train(tmp_path, tiny_model, full / "checkpoints", **nothing)
    assert pl.read_parquet(tmp_path / "checkpoints/checkpoints.parquet").rows() == [(1, 0, "step-000000", "full")]
    assert all(torch.equal(weight, weights_of(full)[name]) for name, weight in weights.items())


# ---- options ----

DROPOUT = {"lora": Lora(rank=4, alpha=8, dropout=0.5)}
dropped = trained("dropped", **DROPOUT)


def test_a_killed_run_with_dropout_resumes_and_ends_in_the_same_bytes(
    dropped: Path, uninterrupted: Path, tiny_model: Path, tmp_path: Path
) -> None:
    assert not same_losses(dropped, uninterrupted)
    resumes_in_the_same_bytes(tmp_path, tiny_model, dropped, **DROPOUT)


def test_dropout_is_the_same_where_activations_are_computed_again(dropped: Path, tiny_model: Path, tmp_path: Path) -> None:
    weights = train(tmp_path, tiny_model, **DROPOUT, activation_checkpointing=True)
    agree(tmp_path, weights, dropped, weights_of(dropped))


def test_dropout_has_masks_of_their_own_in_each_process(dropped: Path, tiny_model: Path, tmp_path: Path) -> None:
    """As the key says: weights then depend on the number of processes."""
    train(tmp_path, tiny_model, **DROPOUT, processes=2)
    assert not same_losses(tmp_path, dropped)


def same_losses(folder: Path, other: Path) -> bool:
    ours, theirs = (pl.read_parquet(f / "history.parquet")["loss"] for f in (folder, other))
    return bool((ours - theirs).abs().max() < 1e-5)


LION = FULL | {"schedule": MIXTURE, "optimizer": "lion", "learning_rate": 1e-5, "betas": (0.9, 0.95), "weight_decay": 0.1}
lions = trained("lions", **LION)


def test_lion_is_the_one_of_its_paper(lions: Path, tiny_model: Path) -> None:
    """Algorithm 2 of arXiv 2302.06675, written out. Where the update's sign hangs on rounding, a weight may be two steps off."""
    run, model = run_and_model(lions, tiny_model)
    moments = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    steps = 0
    for rate in clipped_gradients(lions, tiny_model, run, model):
        steps += 1
        with torch.no_grad():
            for name, weight in model.named_parameters():
                update = torch.sign(run.betas[0] * moments[name] + (1 - run.betas[0]) * weight.grad)
                weight.sub_(rate * (update + run.weight_decay * weight))
                moments[name] = run.betas[1] * moments[name] + (1 - run.betas[1]) * weight.grad
    for name, weight in weights_of(lions).items():
        off = (weight - model.state_dict()[name]).abs()
        assert float(off.max()) <= 2 * steps * run.learning_rate, name
        assert float((off > 2e-6).float().mean()) < 0.001, name


@pytest.mark.parametrize(("zero_stage", "processes", "more"), [(2, 2, {}), (3, 2, {}), (2, 1, {"offload": "optimizer"})])
def test_lion_agrees_for_any_stage_and_number_of_processes(
    lions: Path, tiny_model: Path, tmp_path: Path, zero_stage: int, processes: int, more: dict[str, object]
) -> None:
    weights = train(tmp_path, tiny_model, **LION, zero_stage=zero_stage, processes=processes, **more)
    for name, weight in weights_of(lions).items():
        assert float(((weight - weights[name]).abs() > 2e-6).float().mean()) < 0.001, name
    ours, theirs = (pl.read_parquet(f / "history.parquet")["loss"] for f in (tmp_path, lions))
    assert (ours - theirs).abs().max() < 1e-4


def test_a_killed_run_with_lion_resumes_and_ends_in_the_same_bytes(lions: Path, tiny_model: Path, tmp_path: Path) -> None:
    resumes_in_the_same_bytes(tmp_path, tiny_model, lions, **LION)


# Its loss on other data falls for some steps and then rises.
STOPS = FULL | {"early_stopping": HELD_OUT, "publish": "best", "epochs": 30, "learning_rate": 3e-3, "decay": "constant"}
stopped = trained("stopped", **STOPS)


def test_a_run_stops_where_the_held_out_loss_no_longer_falls_and_publishes_its_best_state(stopped: Path, tiny_model: Path) -> None:
    history = pl.read_parquet(stopped / "history.parquet")
    measured = history.drop_nulls("held_out_loss")
    assert measured["step"].to_list() == list(range(2, len(history) + 1, 2))
    losses = measured["held_out_loss"].to_list()
    assert pl.read_parquet(stopped / "checkpoints/checkpoints.parquet").rows() == [(1, b := measured["step"][-2], f"step-{b:06d}", "full")]
    assert 2 < len(losses) < 60
    assert losses[:-1] == sorted(losses[:-1], reverse=True)
    assert losses[-1] > losses[-2] == min(losses)
    assert pl.read_parquet(stopped / "consumed.parquet")["step"].max() == len(history)
    about = json.loads((last(stopped) / "run.json").read_text())
    assert about["step"] == measured["step"][-2]
    model, renderer = load_model(last(stopped), Model()), load_renderer(tiny_model, Model())
    tokens = [renderer.tokens(e) for e in some_examples(7, " of those held out")]
    there = float(sum_losses(model, collate(tokens, renderer.pad_id)).sum()) / sum(t.n_completion for t in tokens)
    assert there == pytest.approx(min(losses), abs=1e-5)


def test_a_killed_run_stops_early_at_the_same_step(stopped: Path, tiny_model: Path, tmp_path: Path) -> None:
    resumes_in_the_same_bytes(tmp_path, tiny_model, stopped, **STOPS)


def test_several_processes_stop_at_the_same_step(stopped: Path, tiny_model: Path, tmp_path: Path) -> None:
    train(tmp_path, tiny_model, **STOPS, processes=2, zero_stage=2)
    ours, theirs = (pl.read_parquet(f / "history.parquet") for f in (tmp_path, stopped))
    assert ours["step"].to_list() == theirs["step"].to_list()
    assert (ours["held_out_loss"] - theirs["held_out_loss"]).abs().max() < 1e-3


def test_early_stopping_counts_measurements_since_the_lowest() -> None:
    assert not is_enough([], 1)
    assert not is_enough([3.0, 2.0], 1)
    assert is_enough([3.0, 2.0, 2.0], 1)  # as low is not lower
    assert not is_enough([3.0, 2.0, 2.5], 2)
    assert is_enough([3.0, 2.0, 2.5, 2.1], 2)
    assert not is_enough([1.0, 2.0, 3.0, 4.0], None)


def test_which_states_are_published() -> None:
    every = Run(checkpoint_every=4)
    assert [step for step in range(1, 10) if is_published(every, step, step == 9, False)] == [4, 8, 9]
    assert [step for step in range(1, 9) if is_published(Run(checkpoint_every=None), step, step == 8, step == 4)] == [8]
    best = Run(checkpoint_every=None, publish="best", early_stopping=HELD_OUT)
    assert [step for step in range(1, 9) if is_published(best, step, step == 8, step == 4)] == [4]


# ---- what goes wrong ----


def test_publishing_that_fails_loses_nothing(uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = command(tmp_path, tiny_model)
    nowhere = [part if part != str(tmp_path / "checkpoints") else "/proc/nowhere/checkpoints" for part in line]
    failed = subprocess.run(nowhere, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "ERROR in train" in failed.stdout
    assert "resuming after step 8 of 8" in finish(args=line)
    same_bytes(tmp_path, uninterrupted)


def test_a_second_job_does_not_tread_on_a_worker_that_outlived_the_first(tiny_model: Path, tmp_path: Path) -> None:
    work_folder(tmp_path / "work", "somebody's")
    said = fails(tmp_path, tiny_model)
    assert "another process" in said
    assert f"pid {os.getpid()}" in said


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("zero_stage", [0, 2])
def test_a_diverging_run_is_a_sentence(tiny_model: Path, tmp_path: Path, method: str, zero_stage: int) -> None:
    said = fails(tmp_path, tiny_model, learning_rate=1e30, clip_norm=0.0, method=method, zero_stage=zero_stage)
    assert "training has diverged" in said
    assert "learning_rate" in said


def test_learning_rate_warms_up_and_decays_to_the_floor() -> None:
    run = Run(learning_rate=1e-5, final_learning_rate=1e-7, warmup_steps=10)
    rates = [learning_rate(run, step, 1200) for step in range(1, 1201)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[9] == pytest.approx(1e-5)
    assert rates[-1] == 1e-7
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[604] == pytest.approx((1e-5 + 1e-7) / 2, rel=1e-2)


@pytest.mark.parametrize("decay", ["linear", "cosine", "inverse_sqrt", "constant"])
@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("final", [0.0, 1e-6])
def test_learning_rates_are_those_of_transformers(decay: str, warmup: int, final: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-5)
    steps = {"num_warmup_steps": warmup, "num_training_steps": 100}
    theirs = {
        "linear": lambda: transformers.get_polynomial_decay_schedule_with_warmup(optimizer, **steps, lr_end=final),
        "cosine": lambda: transformers.get_cosine_with_min_lr_schedule_with_warmup(optimizer, **steps, min_lr=final),
        "inverse_sqrt": lambda: transformers.get_inverse_sqrt_schedule(optimizer, warmup),
        "constant": lambda: transformers.get_constant_schedule_with_warmup(optimizer, warmup),
    }[decay]()
    run = Run(learning_rate=1e-5, final_learning_rate=final, warmup_steps=warmup, decay=decay)
    for step in range(1, 101):
        optimizer.step()
        theirs.step()
        assert learning_rate(run, step, 100) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-15), step


def test_learning_rate_stays_where_it_is_constant() -> None:
    run = Run(learning_rate=1e-6, decay="constant", warmup_steps=0)
    assert {learning_rate(run, step, 30) for step in range(1, 31)} == {1e-6}
