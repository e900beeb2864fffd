"""Mentions: the pairs of type and name that a response gives, such as entities or triggers of events, against those of the record.

The record's field has a list of [type, name], and so has what `parse` of the queries' design gives. Upper and lower case and space around
a text make no difference. A response that cannot be read states nothing: all mentions of its record are missed. It is never `right`, even
where the record has no mention.

Metrics:

- `f1`, `precision`, `recall`: over the mentions of all responses (micro). F1 is 2 TP / (2 TP + FP + FN).
- `f1_soft`, `precision_soft`, `recall_soft`: the same after each stated name is replaced by the record's most similar name, of any type, if
  the similarity (`difflib.SequenceMatcher`) is above 0.5. Of equally similar names the first one counts.
- `accuracy`: share of responses that state the record's mentions and nothing else.
- `wrong_format`: share of responses with an error of format. Kinds: `wrong_format_empty`, `wrong_format_unparsable` (also a mention that is
  no pair of texts), `wrong_format_unknown` (a type that is not in `options.types`; such a mention is a false positive).
- `wrong_format_soft`: share of responses that are empty or unparsable.

Options:

- `field`: the field of the record, `entities` (the default) or another one, such as `events`.
- `repeats: multiset` (the default) counts a mention as often as it occurs; `set` counts it once on both sides.
- `containment: true` replaces a name only if one of the two names contains the other.
- `types: [PER, LOC]`: the types that are asked; without it no type is unknown.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from swift_study.data.designs import record_of
from swift_study.errors import Rejected
from swift_study.evaluation.scorers import Item, Metrics, Score, Sums

KINDS = ("empty", "unparsable", "unknown")
STATISTICS = (
    "tp", "fp", "fn", "tp_soft", "fp_soft", "fn_soft", "right", "n", "wf", "wf_soft", "wf_empty", "wf_unparsable", "wf_unknown",
)  # fmt: skip
ALIKE = 0.5

Mention = tuple[str, str]


def score(item: Item) -> Score:
    options, field = item.options, item.options.get("field", "entities")
    repeats, types = options.get("repeats", "multiset"), options.get("types")
    if repeats not in ("multiset", "set") or not isinstance(types, list | None):
        raise ValueError("options.repeats is `multiset` or `set`, and options.types a list of types")
    gold = _pairs(record_of(item.example).get(field))
    if gold is None:
        raise Rejected(f"the record's {field!r} are no list of [type, name]")
    stated, kind, why = _stated(item, field)
    asked = None if types is None else {_plain(str(name)) for name in types}
    format_errors = {
        "empty": kind == "empty",
        "unparsable": kind == "unparsable",
        "unknown": asked is not None and any(name not in asked for name, _ in stated),
    }
    names = [name for _, name in gold]
    soft = [(type_, _nearest(name, names, bool(options.get("containment")))) for type_, name in stated]
    hard = _compared(stated, gold, repeats == "set")
    statistics = hard | {f"{name}_soft": value for name, value in _compared(soft, gold, repeats == "set").items()}
    statistics |= {"right": not kind and hard["fp"] == hard["fn"] == 0, "n": 1, "wf": any(format_errors.values()), "wf_soft": bool(kind)}
    statistics |= {f"wf_{name}": error for name, error in format_errors.items()}
    return Score(statistics, why or f"{hard['tp']} right, {hard['fp']} too many, {hard['fn']} missed")


def metrics(sums: Sums) -> Metrics:
    found: Metrics = {}
    for suffix in ("", "_soft"):
        tp, fp, fn = (sums[f"{name}{suffix}"] for name in ("tp", "fp", "fn"))
        found |= {f"f1{suffix}": 2 * tp / (2 * tp + fp + fn), f"precision{suffix}": tp / (tp + fp), f"recall{suffix}": tp / (tp + fn)}
    found |= {
        "accuracy": sums["right"] / sums["n"],
        "wrong_format": sums["wf"] / sums["n"],
        "wrong_format_soft": sums["wf_soft"] / sums["n"],
    }
    return found | {f"wrong_format_{kind}": sums[f"wf_{kind}"] / sums["n"] for kind in KINDS}


def _compared(stated: Sequence[Mention], gold: Sequence[Mention], once: bool) -> dict[str, int]:
    """Right, superfluous and missed mentions."""
    told, there = (Counter(set(side) if once else side) for side in (stated, gold))
    right = (told & there).total()
    return {"tp": right, "fp": told.total() - right, "fn": there.total() - right}


def _nearest(name: str, names: Sequence[str], containment: bool) -> str:
    """The name of the record that a stated one stands for, or the stated one."""
    if name in names or not names:
        return name
    similarity, nearest = max(((SequenceMatcher(a=name, b=other).ratio(), other) for other in names), key=lambda pair: pair[0])
    if similarity <= ALIKE or (containment and name not in nearest and nearest not in name):
        return name
    return nearest


def _stated(item: Item, field: str) -> tuple[list[Mention], str, str | None]:
    """The mentions that the response states; where it cannot be read none, the kind of error, and the reason."""
    if item.unreadable is not None:
        return [], "empty" if item.unreadable.startswith("empty:") else "unparsable", item.unreadable
    if not isinstance(item.parsed, Mapping) or field not in item.parsed:
        raise Rejected(f"nothing says which mentions the response states: the queries stand in no design whose `parse` gives {field!r}")
    pairs = _pairs(item.parsed[field])
    return ([], "unparsable", f"unparsable: {field!r} are no list of [type, name]") if pairs is None else (pairs, "", None)


def _pairs(mentions: Any) -> list[Mention] | None:
    """Mentions as they are compared; None for what is no list of pairs of texts."""
    if not isinstance(mentions, list | tuple):
        return None
    found = []
    for mention in mentions:
        if not isinstance(mention, list | tuple) or len(mention) != 2 or not all(isinstance(part, str) for part in mention):
            return None
        found.append((_plain(mention[0]), _plain(mention[1])))
    return found


def _plain(text: str) -> str:
    return text.strip().lower()
