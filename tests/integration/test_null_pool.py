"""The pool of real gradients from which panels without an effect are drawn."""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import null_pool  # noqa: E402


def test_pool_of_the_packaged_model(tmp_path: Path) -> None:
    pool = null_pool.make_pool(ROOT / ".cache", 2, 1, 1, families=("gcd", "count_bits"), steps=(1, 2))
    null_pool.save(pool, tmp_path / "a" / "pool.npz")
    again = null_pool.load(tmp_path / "a" / "pool.npz")
    assert all(np.array_equal(getattr(pool, name), getattr(again, name)) for name in vars(pool))
    assert pool.grams.shape == (2, 6, 6)
    assert np.allclose(pool.grams, pool.grams.transpose(0, 2, 1))
    assert (np.diagonal(pool.grams, axis1=1, axis2=2) > 0).all()
    assert not np.allclose(pool.grams[0], pool.grams[1])
    assert np.bincount(pool.family).tolist() == [3] * 2
