"""Near-duplicate queries, so that probes stay out of the base data."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from swift_study.examples import fold

SHINGLE = 5


def shingles(text: str) -> set[str]:
    """The character 5-grams of the folded text; the text itself if it is shorter."""
    folded = fold(text)
    return {folded[i : i + SHINGLE] for i in range(max(1, len(folded) - SHINGLE + 1))}


def nearest(queries: Sequence[str], others: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """For each query the largest Jaccard similarity of its 5-gram set to any of ``others``, and that one's index.

    Shapes: (len(queries),) float64 in [0, 1], and int64. Exact; ``others`` must not be empty.
    """
    vocabulary: dict[str, int] = {}
    a, b = (_matrix([shingles(text) for text in texts], vocabulary) for texts in (queries, others))
    width = len(vocabulary)
    a.resize((a.shape[0], width))
    b.resize((b.shape[0], width))
    best, index = np.zeros(len(queries)), np.zeros(len(queries), dtype=np.int64)
    sizes_b = b.sum(axis=1)
    for start in range(0, len(queries), 1024):
        rows = a[start : start + 1024]
        shared = (rows @ b.T).toarray()
        similarity = shared / (rows.sum(axis=1)[:, None] + sizes_b[None, :] - shared)
        best[start : start + 1024] = similarity.max(axis=1)
        index[start : start + 1024] = similarity.argmax(axis=1)
    return best, index


def _matrix(sets: Sequence[set[str]], vocabulary: dict[str, int]) -> csr_array:
    columns = [vocabulary.setdefault(s, len(vocabulary)) for members in sets for s in sorted(members)]
    pointers = np.cumsum([0, *map(len, sets)])
    return csr_array((np.ones(len(columns)), columns, pointers), shape=(len(sets), max(1, len(vocabulary))))
