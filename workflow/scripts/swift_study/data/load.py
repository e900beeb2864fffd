"""A dataset from its sources: conditions, what is kept out, the draw, and its parts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from swift_study.config import Dataset
from swift_study.data.draw import in_order
from swift_study.data.duplicates import nearest
from swift_study.data.strategies import Reject
from swift_study.errors import UserError
from swift_study.examples import Example


@dataclass(frozen=True)
class Loaded:
    """``parts`` by what stands behind the dot in their names, the dataset itself under the empty name; ``rejects`` likewise."""

    parts: dict[str, list[Example]]
    rejects: dict[str, list[Reject]] = field(default_factory=lambda: defaultdict(list))


def load(
    name: str, settings: Dataset, pool: Sequence[Example], others: Mapping[str, Sequence[Example]], near_duplicate: float, seed: int
) -> Loaded:
    """The dataset and its parts from the examples of its sources.

    ``others`` are the datasets that are kept out, by name. UserError where too few examples are left for what is asked.
    """
    loaded = Loaded({})
    examples = _of_tasks(pool, settings.tasks, name)
    examples, loaded.rejects[""] = _kept(examples, others, near_duplicate, name)
    examples, behind = _per_task(examples, settings.per_task, name)
    if settings.examples is not None:
        examples = _drawn(examples, settings.examples, len(pool), loaded.rejects[""], seed, name)
    parts = _split(examples, settings.split, seed, name) if settings.split else {"analogues": behind} if settings.per_task else {}
    if settings.distinct:
        before = [] if settings.split else examples
        for part, members in parts.items():
            label = f"{name}.{part}"
            parts[part], near = without_near_duplicates(members, before, near_duplicate)
            reason = "an analogue that is nearly one of the examples" if part == "analogues" else "nearly an example of a part before it"
            loaded.rejects[part] = [Reject(label, e.task, e.example_id, reason, 0, None) for e in near]
            before = [*before, *members]
    loaded.parts.update({"": [e for members in parts.values() for e in members] if settings.split else examples, **parts})
    return loaded


def without_near_duplicates(
    examples: Sequence[Example], others: Sequence[Example], near_duplicate: float
) -> tuple[list[Example], list[Example]]:
    """The examples whose text is not (nearly) one of ``others``, and those whose is."""
    if not others or not examples:
        return list(examples), []
    similarity, _ = nearest([e.text for e in examples], [e.text for e in others])
    near = [s >= near_duplicate for s in similarity]
    return [e for e, n in zip(examples, near, strict=True) if not n], [e for e, n in zip(examples, near, strict=True) if n]


def _of_tasks(pool: Sequence[Example], tasks: Sequence[str] | None, name: str) -> list[Example]:
    if tasks is None:
        return list(pool)
    by_task: dict[str, list[Example]] = defaultdict(list)
    for example in pool:
        by_task[example.task].append(example)
    for task in tasks:
        if task not in by_task:
            raise UserError(f"datasets.{name}.tasks: the sources have no task {task!r}; they have {', '.join(by_task)}.")
    return [e for task in tasks for e in by_task[task]]


def _kept(
    examples: Sequence[Example], others: Mapping[str, Sequence[Example]], near_duplicate: float, name: str
) -> tuple[list[Example], list[Reject]]:
    """The examples that are not (nearly) in the other datasets, and the rest with the reason."""
    texts: dict[str, str] = {}
    ids: dict[str, str] = {}
    for dataset, members in others.items():
        for e in members:
            texts.setdefault(e.text, dataset)
            ids.setdefault(e.example_id, dataset)
    if not texts or not examples:
        return list(examples), []
    known = sorted(texts)
    similarity, index = nearest([e.text for e in examples], known)
    kept, rejects = [], []
    for example, s, i in zip(examples, similarity.tolist(), index.tolist(), strict=True):
        same = ids.get(example.example_id) or texts.get(example.text)
        if same is None and s < near_duplicate:
            kept.append(example)
            continue
        reason = f"the same as an example of {same}" if same else f"nearly an example of {texts[known[i]]}"
        rejects.append(Reject(name, example.task, example.example_id, reason, 0, None))
    return kept, rejects


def _per_task(examples: Sequence[Example], per_task: int | str | None, name: str) -> tuple[list[Example], list[Example]]:
    """The first of each task, and those behind them, which are their analogues."""
    if per_task is None:
        return list(examples), []
    by_task: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_task[example.task].append(example)
    used, behind = [], []
    for task, members in by_task.items():
        n = per_task if isinstance(per_task, int) else max(1, len(members) // 2)
        if len(members) < 2 * n:
            raise UserError(
                f"Task {task!r} of the dataset {name!r} has {len(members)} example{'s' * (len(members) != 1)}, but {2 * n} are needed: "
                f"{n} to use and as many analogues. Add examples, lower `per_task`, or leave the task out by `tasks`."
            )
        used += members[:n]
        behind += members[n:]
    return used, behind


def _drawn(examples: list[Example], n: int, pool: int, rejects: Sequence[Reject], seed: int, name: str) -> list[Example]:
    if len(examples) < n:
        same = sum(r.reason.startswith("the same") for r in rejects)
        raise UserError(
            f"The dataset {name!r} needs {n} examples (datasets.{name}.examples), but its sources give {pool}, of which {same} are in "
            f"datasets that are kept out and {len(rejects) - same} nearly are: {len(examples)} are left. Add sources, raise `per_family`, "
            f"or lower datasets.{name}.examples."
        )
    return in_order(examples, seed)[:n]


def _split(examples: Sequence[Example], split: Mapping[str, int | float | str], seed: int, name: str) -> dict[str, list[Example]]:
    """Pieces of the order in which the examples are drawn."""
    ordered = in_order(examples, seed)
    sizes = {part: int(size * len(ordered)) if isinstance(size, float) else size for part, size in split.items()}
    named = sum(size for size in sizes.values() if isinstance(size, int))
    rest = len(ordered) - named
    if rest < 0 or ("rest" in sizes.values() and rest == 0):
        raise UserError(
            f"datasets.{name}.split asks for {named} examples{' and a rest' if 'rest' in sizes.values() else ''}, but there are "
            f"{len(ordered)}. Make the parts smaller, or add sources."
        )
    parts, start = {}, 0
    for part, size in sizes.items():
        end = start + (size if isinstance(size, int) else rest)
        if start == end:
            raise UserError(f"datasets.{name}.split.{part} is a share of {len(ordered)} examples that holds none. Make it larger.")
        parts[part] = ordered[start:end]
        start = end
    return parts
