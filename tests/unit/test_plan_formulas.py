"""The plan's formulas against cases computed by hand, and its stand-ins for data that are not there yet."""

import json
import struct
from pathlib import Path

import pytest
from configuration import configured

from swift_study.config import Config, Gradients, Lora, Part, Plan, Run
from swift_study.errors import UserError
from swift_study.io.endpoint import EndpointSettings
from swift_study.planning.costs import (
    LIVE_PARAMETERS,
    Memory,
    Size,
    activations,
    certificate_memory,
    checkpoint_bytes,
    configured_size,
    cost,
    forward_flops,
    full_gradient_memory,
    generation_memory,
    gpu_hours,
    gradient_file_bytes,
    gradient_memory,
    read_jobs,
    read_size,
    state_bytes,
    training_flops,
    training_memory,
    training_tokens,
    warning,
    what_to_change,
)
from swift_study.planning.data import PlannedData
from swift_study.planning.report import Planner, text

# 10^9 weights, 10 layers of width 1,000; an adapter of rank 8 on up_proj and down_proj has 8 × 2 × 50,000 = 800,000.
SIZE = Size(1e9, 1000, 10, 32000, 500, {"up_proj": 50_000, "down_proj": 50_000}, tokenizer_bytes=123)
FULL = Run(method="full", dtype="bfloat16", zero_stage=1, processes=4, batch_size=16, micro_batch_size=4)
LORA = Run(lora=Lora(rank=8), micro_batch_size=4)
GB = 1e9


# ---- memory ----


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer"),
    [
        (1, 2.0, 4.0, 12 / 4),
        (2, 2.0, 4 / 4, 12 / 4),
        (3, 2 / 4 + LIVE_PARAMETERS * 2 / GB, 4 / 4, 12 / 4),
    ],
)
def test_zero_divides_what_its_stage_says(stage: int, weights: float, gradients: float, optimizer: float) -> None:
    run = FULL.model_copy(update={"zero_stage": stage})
    memory = training_memory(run, SIZE, "bfloat16", 100)
    assert memory.weights == pytest.approx(weights * GB)
    assert memory.gradients == pytest.approx(gradients * GB)
    assert memory.optimizer == pytest.approx(optimizer * GB)
    assert memory.host == 0


def test_without_zero_every_process_holds_all_and_float32_needs_no_copy() -> None:
    memory = training_memory(FULL.model_copy(update={"zero_stage": 0, "dtype": "float32"}), SIZE, "float32", 100)
    assert (memory.weights, memory.gradients, memory.optimizer) == (4e9, 4e9, 8e9)


def test_lion_has_one_moment() -> None:
    assert training_memory(FULL.model_copy(update={"optimizer": "lion", "zero_stage": 0}), SIZE, "float32", 100).optimizer == 4e9
    assert state_bytes(FULL, SIZE, "bfloat16") - state_bytes(FULL.model_copy(update={"optimizer": "lion"}), SIZE, "bfloat16") == 8e9


def test_offload_moves_to_the_host() -> None:
    of_optimizer = training_memory(FULL.model_copy(update={"zero_stage": 2, "offload": "optimizer"}), SIZE, "bfloat16", 100)
    assert (of_optimizer.weights, of_optimizer.optimizer, of_optimizer.host) == (2e9, 0, 3e9)
    of_both = training_memory(FULL.model_copy(update={"zero_stage": 3, "offload": "parameters"}), SIZE, "bfloat16", 100)
    assert (of_both.weights, of_both.optimizer, of_both.host) == (LIVE_PARAMETERS * 2, 0, 3e9 + 0.5e9)


def test_adapters_have_small_states_beside_frozen_weights() -> None:
    memory = training_memory(LORA, SIZE, "bfloat16", 100)
    assert SIZE.lora(LORA.lora) == 800_000
    assert (memory.weights, memory.gradients, memory.optimizer) == (2e9 + 3.2e6, 3.2e6, 6.4e6)


def test_activations_by_hand() -> None:
    logits = 4 * 100 * 32000 * 4 * 3
    assert activations(SIZE, 4, 100, "bfloat16", kept=True) == 4 * 100 * 1000 * 34 * 10 + logits
    assert activations(SIZE, 4, 100, "float32", kept=True) == 4 * 100 * 1000 * 68 * 10 + logits
    assert activations(SIZE, 4, 100, "bfloat16", kept=True, again=True) == 4 * 100 * 1000 * (34 + 2 * 10) + logits
    assert activations(SIZE, 4, 100, "bfloat16", kept=False) == 4 * 100 * 1000 * 34 + 4 * 100 * 32000 * 4 * 2


def test_jobs_beside_training_by_hand() -> None:
    gradients = gradient_memory(LORA, SIZE, "bfloat16", 4, 100, panel=50)
    assert (gradients.weights, gradients.gradients) == (2e9 + 3.2e6, 50 * 3.2e6)
    within = gradient_memory(LORA, SIZE, "bfloat16", 4, 100, panel=5000, budget=12e9)
    assert within.gpu == 12e9
    full = full_gradient_memory(SIZE, "bfloat16", 4, 100, 12e9)
    assert (full.weights, full.gpu) == (2e9, 12e9)
    certificate = certificate_memory(SIZE.lora(LORA.lora), SIZE, 100, sampled=4)
    assert (certificate.weights, certificate.gradients) == (8e9 + 6.4e6, 4 * 6.4e6)
    whole = certificate_memory(SIZE.parameters, SIZE, 100, sampled=4)
    assert (whole.weights, whole.gradients) == (8e9, 2e9)
    responses = generation_memory(SIZE, "bfloat16", 64, 200, 0)
    assert responses.activations == 2 * 64 * 200 * 500 * 10 * 2 + 64 * 200 * 1000 * 34 + 2 * 64 * 32000 * 4


def test_a_warning_names_the_run_and_what_to_change() -> None:
    memory, plan = training_memory(FULL, SIZE, "bfloat16", 100), Plan(gpu_memory_gb=8, overhead_gb=1)
    said = warning("The training of 'full_base'", memory, plan, what_to_change("full_base", FULL, memory))
    assert said is not None
    assert said.startswith("WARNING: The training of 'full_base' needs about 10 GB on a GPU of 8 GB (plan.gpu_memory_gb).")
    for key in ("runs.full_base", "zero_stage (now 1)", "processes (now 4)", "offload", "micro_batch_size", "activation_checkpointing"):
        assert key in said
    assert warning("The training", memory, Plan(gpu_memory_gb=11, overhead_gb=1), "") is None
    large = Memory(weights=1e9, activations=9e9)
    assert "lower micro_batch_size (now 4" in what_to_change("full_base", FULL, large)


# ---- operations, disk, money ----


def test_operations_by_hand() -> None:
    again = {"activation_checkpointing": True}
    assert training_flops(FULL, SIZE, 10) == 6e10
    assert training_flops(FULL.model_copy(update=again), SIZE, 10) == 8e10
    assert training_flops(LORA, SIZE, 10) == (4e9 + 6 * 800_000) * 10
    assert training_flops(LORA.model_copy(update=again), SIZE, 10) == (6e9 + 6 * 800_000) * 10
    assert forward_flops(SIZE, 10) == 2e10
    plan = Plan(teraflops=1000, teraflops_float32=50, utilisation=0.4, generation_utilisation=0.02)
    assert gpu_hours(400e12 * 3600, plan, "bfloat16") == pytest.approx(1)
    assert gpu_hours(20e12 * 3600, plan, "float32") == pytest.approx(1)
    assert gpu_hours(20e12 * 3600, plan, "bfloat16", generating=True) == pytest.approx(1)


def test_files_by_hand() -> None:
    assert checkpoint_bytes(FULL, SIZE, "bfloat16") == 2e9 + 123
    moments = LORA.model_copy(update={"export_second_moments": True})
    assert checkpoint_bytes(LORA, SIZE, "bfloat16") == 3.2e6 + 123
    assert checkpoint_bytes(moments, SIZE, "bfloat16") == 6.4e6 + 123
    assert state_bytes(FULL, SIZE, "bfloat16") == 2 * (2e9 + 12e9)
    assert state_bytes(LORA, SIZE, "bfloat16") == 2 * (3.2e6 + 6.4e6)
    alone = Gradients(by_module=False)
    assert gradient_file_bytes(1000, alone, 1e6, 4, adam=False) == pytest.approx(1000 * 1000 * 8, rel=0.2)
    assert gradient_file_bytes(1000, alone, 1e6, 4, adam=True) == pytest.approx(2 * 1000 * 1000 * 8, rel=0.2)
    assert gradient_file_bytes(1000, Gradients(), 1e6, 4, adam=False) == pytest.approx((1.15 + 2 * 0.83) * 1000 * 1000 * 8, rel=0.02)
    exact, sketch = (Gradients(representation=r, by_module=False) for r in ("exact", "sketch"))
    assert gradient_file_bytes(1000, exact, 1e6, 4, adam=False) == pytest.approx(1000 * 1e6 * 4, rel=0.2)
    assert gradient_file_bytes(1000, sketch, 1e6, 4, adam=True) == pytest.approx(1000 * 8192 * 4, rel=0.2)


def test_cost_by_hand() -> None:
    assert cost(2_000_000, 100_000, 2.5, 10) == 6.0


def test_tokens_of_a_schedule() -> None:
    run = Run(schedule=[{"a": Part(), "b": Part(examples=10, weight=0.5)}, {"a": Part(weight=2)}], epochs=3)
    assert training_tokens(run, {"a": (100, 20.0), "b": (40, 8.0)}) == 3 * (100 * 20 + 5 * 8 + 200 * 20)


# ---- the jobs and the model's size ----


def test_jobs_are_read_from_a_dry_run() -> None:
    listed = "rule respond:\n    input: a\n    wildcards: run=base, queries=questions.similar\n\nlocalrule all:\n    jobid: 0\n"
    jobs = read_jobs(listed)
    assert [(j.rule, dict(j.wildcards)) for j in jobs] == [("all", {}), ("respond", {"run": "base", "queries": "questions.similar"})]


def test_size_is_read_from_the_headers(tmp_path: Path) -> None:
    shapes = {
        "model.embed_tokens.weight": [100, 8],
        "model.layers.0.mlp.up_proj.weight": [16, 8],
        "model.layers.1.mlp.up_proj.weight": [16, 8],
        "model.norm.weight": [8],
    }
    header = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    config = {"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 100, "num_attention_heads": 4, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")
    size = read_size(tmp_path)
    assert size == Size(800 + 2 * 128 + 8, 8, 2, 100, 4, {"up_proj": 48}, 2)
    assert size.lora(Lora(rank=2, targets=["up_proj"])) == 2 * 48
    with pytest.raises(UserError, match=r"lora\.targets names 'down_proj'"):
        size.lora(Lora())


def test_a_model_that_is_not_here_needs_its_size() -> None:
    with pytest.raises(UserError, match=r"Set plan\.hidden_size, plan\.vocabulary"):
        configured_size(Plan(parameters=1e9, intermediate_size=4, layers=2), "some/model")
    size = configured_size(Plan(parameters=1e9, hidden_size=10, intermediate_size=20, layers=2, vocabulary=5, key_value_size=4), "m")
    assert (size.linear["up_proj"], size.linear["q_proj"], size.linear["k_proj"]) == (60, 40, 28)


# ---- the data ----


def config_with(tmp_path: Path, values: dict[str, object]) -> Config:
    return configured({"results": str(tmp_path / "results")} | values)


def test_teachers_replies_are_assumed_and_paid_for(tmp_path: Path) -> None:
    prices = {"usd_per_million_prompt_tokens": 1.0, "usd_per_million_completion_tokens": 2.0}
    teacher = EndpointSettings(base_url="http://localhost:1/v1", model="m", **prices)
    config = config_with(tmp_path, {"endpoints": {"teacher": teacher.model_dump()}, "strategies": _by_teacher("cot")})
    data = PlannedData(config, None)
    assert {x.completion for x in data.lengths("panel.cot")} == {config.plan.teacher_reply_tokens + 1}
    jobs = read_jobs("rule apply_strategy:\n    wildcards: parent=panel, strategy=cot\n")
    planner = Planner(config, jobs, {"main": SIZE}, data)
    planned = planner.plan()
    n = len(data.examples("panel"))
    row = planned.money[0]
    assert (row["replies"], row["completion tokens"]) == (n, 150 * n)
    assert row["USD"] == pytest.approx((float(str(row["prompt tokens"])) + 2 * 150 * n) / 1e6)
    assert "WARNING" not in text(config, jobs, {"main": SIZE}, planned, data.notes)


def _by_teacher(name: str) -> dict[str, object]:
    return {s: {"by": "teacher"} if s == name else {} for s in configured().strategies}
