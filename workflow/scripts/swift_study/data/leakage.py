"""Whether what a run is trained on holds an example that is to be unseen, in whatever form.

Strategies may keep a query, wrap it, reword it or make another one, so none is trusted: an example is recognised by its own text and by
those of the examples that it was made from, as far as these are other forms of the same item (`root_id`).
"""

from collections.abc import Iterable, Mapping, Sequence

from swift_study.data.duplicates import nearest
from swift_study.examples import Example


def find_leaks(unseen: Sequence[Example], trained: Sequence[Example], ancestors: Iterable[Example], near_duplicate: float) -> list[str]:
    """One sentence for every example of ``unseen`` that is in ``trained``: of the same root, or nearly of the same text.

    ``ancestors`` are the examples that these were made from. Texts are near where the Jaccard similarity of their character 5-grams is at
    least ``near_duplicate``.
    """
    known = {e.example_id: e for e in (*ancestors, *unseen, *trained)}
    by_root = {e.root: e for e in reversed(trained)}
    learnt = [(text, e) for e in trained for text in forms(e, known)]
    asked = [(text, e) for e in unseen for text in forms(e, known)]
    if not asked or not learnt:
        return []
    similarity, index = nearest([text for text, _ in asked], [text for text, _ in learnt])
    closest: dict[str, tuple[float, Example]] = {}
    for (_, example), s, i in zip(asked, similarity.tolist(), index.tolist(), strict=True):
        if s > closest.get(example.example_id, (-1.0, example))[0]:
            closest[example.example_id] = (s, learnt[i][1])
    leaks = []
    for example in unseen:
        s, other = closest[example.example_id]
        if example.root in by_root:
            leaks.append(f"{_named(example)} is another form of {_named(by_root[example.root])}, which is trained on")
        elif s >= near_duplicate:
            leaks.append(f"{_named(example)} is like {_named(other)}, which is trained on (similarity {s:.2f})")
    return leaks


def forms(example: Example, known: Mapping[str, Example]) -> list[str]:
    """The texts by which an example is recognised: its own and those of the examples that it is another form of.

    A text that repeats the parent's with a frame around it is left out: frames make short queries look alike.
    """
    found: list[str] = []
    following: Example | None = example
    while following is not None:
        parent = known.get(following.parent_id or "") if following.root_id else None
        if (parent is None or parent.text not in following.text) and following.text not in found:
            found.append(following.text)
        following = parent
    return found


def _named(example: Example) -> str:
    source = f", {example.source}" if example.source else ""
    return f"the example {example.example_id} ({example.strategy}, task {example.task!r}, {example.query[:60]!r}{source})"
