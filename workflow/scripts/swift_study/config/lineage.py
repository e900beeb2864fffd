"""What a dataset's name says: what it is made from, and by what.

A name is that of an entry of `datasets:` or of an output of `selections:`; behind dots follow a part of it, strategies and designs:
``masa_d1.train.inst_first``, ``panel.similar.cot``. All these names are disjoint, so that a name has one reading.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from swift_study.config.base import nearest

if TYPE_CHECKING:
    from swift_study.config.root import Config

RESERVED = {"analogues": "the part of a dataset behind the examples that are used", "rejects": "a folder", "accounts": "a folder",
            "leakage": "a folder"}  # fmt: skip


def check_name(config: "Config", where: str, dataset: str) -> None:
    """ValueError unless this is the name of a dataset."""
    if len(dataset) > 200:  # it names a file
        raise ValueError(f"{where}: the dataset name {dataset[:40]!r}… has {len(dataset)} characters, more than 200")
    first, *rest = dataset.split(".")
    roots = [*config.datasets, *outputs(config)]
    if first not in roots:
        raise ValueError(f"{where}: unknown dataset {dataset!r}{nearest(first, roots)}; known are {', '.join(roots)}, and any of them "
                         f"followed by a dot and a strategy ({', '.join(config.strategies)}) or a design")  # fmt: skip
    parts = config.datasets[first].parts() if first in config.datasets else []
    for place, word in enumerate(rest):
        steps = [*config.strategies, *config.designs]
        if word not in steps and not (place == 0 and word in parts):
            known = [*(parts if place == 0 else []), *steps]
            before = ".".join([first, *rest[:place]])
            wrong, right = f"{before}.{word}", [f"{before}.{k}" for k in known]
            raise ValueError(f"{where}: unknown dataset {wrong!r}{nearest(wrong, right)}; behind {before!r} can stand {', '.join(known)}")


def check_names(config: "Config") -> None:
    """ValueError where a name that stands in datasets' names has two readings."""
    owners = {name: f"reserved: it is {what}" for name, what in RESERVED.items()}
    kinds: dict[str, Iterable[str]] = {
        "datasets": config.datasets, "selections": config.selections, "strategies": config.strategies, "designs": config.designs,
        "outputs of selections": outputs(config), "parts of a split": dict.fromkeys(p for d in config.datasets.values() for p in d.split),
    }  # fmt: skip
    for kind, names in kinds.items():
        for name in names:
            if name in owners:
                raise ValueError(f"the name {name!r} under {kind} is {owners[name]}; datasets, parts, strategies, designs, selections and "
                                 "their outputs have names of their own, so that a dotted name has one reading")  # fmt: skip
            owners[name] = f"also under {kind}"
    for name, selection in config.selections.items():
        if len(set(selection.outputs)) < len(selection.outputs):
            raise ValueError(f"selections.{name}.outputs: two have one name")


def check_exclusions(config: "Config") -> None:
    """ValueError where a dataset keeps itself out, also by way of others."""
    for name, settings in config.datasets.items():
        for other in settings.exclude:
            check_name(config, f"datasets.{name}.exclude", other)

    def kept_out(name: str) -> set[str]:
        """The entries of `datasets:` of which this one keeps out examples."""
        named = config.datasets[name].exclude
        return {d.split(".")[0] for d in (*named, *ancestors(config, named)) if d.split(".")[0] in config.datasets}

    for name in config.datasets:
        found: set[str] = set()
        following = kept_out(name)
        while following:
            if name in following:
                raise ValueError(f"datasets.{name}.exclude: what is kept out is made from {name!r} itself, or keeps it out in turn; name "
                                 "other datasets")  # fmt: skip
            found |= following
            following = {d for other in following for d in kept_out(other)} - found


def outputs(config: "Config") -> dict[str, str]:
    """By the name of each dataset that a selection makes, the selection. ValueError where two make one of the same name."""
    found: dict[str, str] = {}
    for name, selection in config.selections.items():
        for output in selection.outputs:
            if output in found:
                raise ValueError(f"selections.{name}.outputs: {output!r} is an output of {found[output]!r} as well; take another name")
            found[output] = name
    return found


def is_loaded(config: "Config", dataset: str) -> bool:
    """Whether it is read from sources: an entry of `datasets:`, or a part of one."""
    first, _, rest = dataset.partition(".")
    return first in config.datasets and (not rest or rest in config.datasets[first].parts())


def parents(config: "Config", dataset: str) -> list[str]:
    """The datasets whose examples this one's are made from."""
    if is_loaded(config, dataset):
        return []
    if dataset in (made := outputs(config)):
        selection = config.selections[made[dataset]]
        return [selection.dataset_of(selection.outputs[dataset].of)]
    return [dataset.rpartition(".")[0]]


def ancestors(config: "Config", datasets: Iterable[str]) -> list[str]:
    """The datasets that hold what the examples of these were made from, however far back, each once; these ones only where they do."""
    found: dict[str, None] = {}
    following = list(datasets)
    while following:
        following = [p for d in following for p in parents(config, d) if p not in found]
        found |= dict.fromkeys(following)
    return list(found)


def needed(config: "Config", datasets: Iterable[str]) -> list[str]:
    """These datasets and all that they are made from, what a selection chooses among included; each behind what it is made from."""
    found: dict[str, None] = {}

    def add(dataset: str) -> None:
        if dataset in found:
            return
        made = outputs(config)
        if dataset in made:
            selection = config.selections[made[dataset]]
            for name in (selection.examples, *selection.relatives.values()):
                add(name)
        for name in parents(config, dataset):
            add(name)
        found[dataset] = None

    for dataset in datasets:
        add(dataset)
    return list(found)


def size(config: "Config", dataset: str) -> int | None:
    """How many examples it has, where the configuration says so."""
    first, _, part = dataset.partition(".")
    settings = config.datasets.get(first)
    if settings is None:
        return None
    if not part:
        return settings.examples
    count = settings.split.get(part)
    return count if isinstance(count, int) else None
