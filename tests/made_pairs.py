"""Made-up pairs tables for tests of studies."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from swift_study.io.tables import PAIRS


def pairs_table(curve_values: Mapping[tuple[str, str, str], Sequence[float]], spread: float = 0.01, study: str = "cot") -> pl.DataFrame:
    """Pairs whose curves (probe set, context, target set) have these values at steps 1, 2, …; eight tasks, some noise between tasks."""
    rng = np.random.default_rng(3)
    rows = []
    for (probe_set, context, target_set), values in curve_values.items():
        noise = rng.normal(0, spread, (8, 8))
        counts = np.eye(8, dtype=bool) if context == "in-task" else ~np.eye(8, dtype=bool)
        noise -= noise[counts].mean()
        for step, value in enumerate(values, 1):
            rows += [
                {
                    "study": study, "run": "base", "step": step, "probe_set": probe_set, "target_set": target_set,
                    "probe_id": f"{probe_set}{i}", "target_id": f"{target_set}{j}", "probe_task": f"t{i}", "target_task": f"t{j}",
                    "context": context, "dot": value, "probe_norm_sq": 1.0, "target_norm_sq": 1.0, "rel_inf": value + noise[i, j],
                    "cosine": (value + noise[i, j]) / 2, "probe_tokens": 10, "target_tokens": 20,
                }
                for i in range(8) for j in range(8) if counts[i, j]
            ]  # fmt: skip
    return pl.DataFrame(rows, schema=dict(zip(PAIRS.names, pl.DataFrame(PAIRS.empty_table()).dtypes, strict=True)))


COT = {
    ("CoT", "in-task", "non-CoT"): [0.9, 0.6, 0.5, 0.4],
    ("non-CoT", "in-task", "non-CoT"): [1.0, 0.9, 0.8, 0.7],
    ("CoT", "cross-task", "non-CoT"): [-0.2, 0.04, 0.05, 0.06],
    ("non-CoT", "cross-task", "non-CoT"): [0.1, 0.02, 0.02, 0.02],
}
