"""The gradient engine's memory, measured: its largest resident size stays under the stated budget, for few and for many examples."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT

MEASURE = """
import json, sys
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from swift_study.config import Gradients
from swift_study.gradients.engine import panel_gradients
from swift_study.gradients.memory import keep_freed_memory
from swift_study.models.tokens import Tokens

n, budget = int(sys.argv[1]), float(sys.argv[2])
torch.manual_seed(1)
torch.set_num_threads(2)
keep_freed_memory()
shape = dict(vocab_size=512, hidden_size=256, intermediate_size=704, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4)
model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
tokens = [Tokens(torch.randint(1, 512, (64 - i % 8,)).tolist(), 30) for i in range(n)]
Path("/proc/self/clear_refs").write_text("5")
for checkpoint in range(2 if n < 100 else 1):
    done = []
    found = panel_gradients(model, tokens, 0, Gradients(scope="full", memory_gb=budget), progress=done.append)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"peak_gb": int(peak.split()[1]) * 1024 / 1e9, "groups": done[-1] // n, "norm_sq": float(found.norms_sq[0])}))
"""


def measure(n: int, budget: float) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, str(n), str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT / "workflow/scripts")})
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the largest resident size is read from /proc")
@pytest.mark.parametrize(("n", "budget", "groups"), [(36, 3.0, 1), (36, 1.6, 1), (400, 2.4, 2)])
def test_the_largest_resident_size_stays_under_the_budget(n: int, budget: float, groups: int) -> None:
    """What 400 examples leave of all layers at once would be 3.4 GB."""
    found = measure(n, budget)
    assert found["peak_gb"] <= budget
    assert found["groups"] >= groups
