"""Tokens per second of our generation, over a bare loop of ``model.generate``: same prompts, batch size, numerics and responses.

    python benchmarks/generation.py --queries 96 --repeats 5 --threads 2

The bare loop takes the queries as they come and decodes what it gets. Both ways run in turn in one process; the numbers are of whole
calls. With ``--adapter`` the model carries a LoRA adapter: the bare loop generates with it, ours merges it first, as respond.py does.
Prints JSON: the ratio of each repeat (above 1: ours is faster), the median speeds, the machine and the versions. Where
the responses differ, it ends with an error. ``cpu_ratio`` is of CPU seconds: beside other work it is the steadier one, with one thread.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import torch  # noqa: E402
from machine import machine, versions  # noqa: E402

from swift_study.config import FileSource, Generation, Lora, Model  # noqa: E402
from swift_study.data.sources import read_source  # noqa: E402
from swift_study.evaluation.prompts import Prompts  # noqa: E402
from swift_study.evaluation.responses import merge_adapter, respond  # noqa: E402
from swift_study.examples import Example  # noqa: E402
from swift_study.models.loading import add_lora, exact_numerics, load_model, packaged_model, quiet_libraries  # noqa: E402
from swift_study.models.rendering import Renderer, load_renderer  # noqa: E402


@torch.inference_mode()
def bare(model: Any, renderer: Renderer, examples: list[Example], settings: Generation) -> tuple[list[str], int]:
    """What one writes first: batches in the given order, padded by the tokenizer. The responses, and the tokens generated."""
    texts, tokens = [], 0
    for start in range(0, len(examples), settings.batch_size):
        chats = [[m.model_dump() for m in e.messages[:-1]] for e in examples[start : start + settings.batch_size]]
        inputs = renderer.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        inputs = inputs.to(model.device)
        with exact_numerics():
            output = model.generate(
                **inputs, do_sample=False, max_new_tokens=settings.max_new_tokens, pad_token_id=renderer.pad_id,
                temperature=None, top_p=None, top_k=None,
            )  # fmt: skip
        new = output[:, inputs["input_ids"].shape[1] :]
        texts += [t.strip() for t in renderer.tokenizer.batch_decode(new, skip_special_tokens=True)]
        ends = (new == renderer.tokenizer.eos_token_id).int()
        tokens += int(torch.where(ends.any(dim=1), ends.argmax(dim=1) + 1, new.shape[1]).sum())
    return texts, tokens


def main(a: argparse.Namespace) -> None:
    quiet_libraries()
    torch.set_num_threads(a.threads)
    folder = packaged_model(ROOT / ".cache")
    renderer = load_renderer(folder, Model())
    renderer.tokenizer.padding_side = "left"

    def adapted() -> Any:
        model = load_model(folder, Model())
        if a.adapter:
            model = add_lora(model, Lora(), seed=1)
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=1e-3)
        return model.eval().requires_grad_(False)

    theirs = adapted()
    ours = merge_adapter(adapted()) if a.adapter else theirs
    examples = read_source(FileSource(path="data/panel/handwritten.jsonl"))[: a.queries]
    settings = Generation(max_new_tokens=a.max_new_tokens, batch_size=a.batch_size)
    warm_up = settings.model_copy(update={"max_new_tokens": 2})
    bare(theirs, renderer, examples[:2], warm_up)
    respond(ours, Prompts(renderer), examples[:2], warm_up)

    ours_s, bare_s, ours_cpu, bare_cpu = [], [], [], []
    for repeat in range(a.repeats):
        for who in ("ours", "bare") if repeat % 2 else ("bare", "ours"):
            start, start_cpu = time.perf_counter(), time.process_time()
            if who == "ours":
                responses = respond(ours, Prompts(renderer), examples, settings)
                ours_s.append(time.perf_counter() - start)
                ours_cpu.append(time.process_time() - start_cpu)
            else:
                texts, tokens = bare(theirs, renderer, examples, settings)
                bare_s.append(time.perf_counter() - start)
                bare_cpu.append(time.process_time() - start_cpu)
        if [r.response for r in responses] != texts or sum(r.n_tokens for r in responses) != tokens:
            sys.exit("The responses differ: the speeds are not those of the same work.")
    ratios = [b / o for o, b in zip(ours_s, bare_s, strict=True)]
    result = {
        "benchmark": "generation",
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(r, 3) for r in ratios],
        "cpu_ratio": round(statistics.median(b / o for o, b in zip(ours_cpu, bare_cpu, strict=True)), 3),
        "tokens_per_s": round(tokens / statistics.median(ours_s), 1),
        "tokens_per_s_bare": round(tokens / statistics.median(bare_s), 1),
        "responses_equal": True,
        "queries": len(examples),
        "tokens": tokens,
        **vars(a),
        "machine": machine(),
        "versions": versions("torch", "transformers"),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--queries", type=int, default=48)
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--max-new-tokens", type=int, default=32)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--adapter", action="store_true", help="the model carries an adapter, which ours merges")
    main(p.parse_args())
