"""Aspects: the labels that a response gives to the aspects of a review, against those of the review's record.

The record's `aspects` are the asked ones with their labels; `parse` of the queries' design gives the `aspects` that a response states.
Labels are positive, neutral, negative and unmentioned.

The statistics are a confusion matrix, `{gold}_{predicted}`, in which every asked aspect of every response counts once. An asked aspect that
the response does not state is predicted `absent`. So are all asked aspects of a response that cannot be read. Absent agrees with nothing:
it is wrong in `accuracy` and `review_accuracy`, has the weight 0 in `kappa`, and lowers the recall of the gold label.

Metrics:

- `kappa`: agreement over chance, (p_o - p_e) / (1 - p_e), with WEIGHTS, gold in rows; not a number where p_e is 1. `unweighted_kappa`: the
  same, where only equal labels agree.
- `accuracy`, `review_accuracy`: share of aspects that are right, and of responses in which every asked aspect is right.
- `precision_positive`, `recall_positive`, ...: of each label.
- `said_unmentioned`, `absent`: share of aspects that are stated as unmentioned, and of aspects that are not stated.
- `wrong_format`: share of responses with an error of format. Kinds: `wrong_format_empty`, `wrong_format_unparsable` (also a label that is
  none of the four), `wrong_format_missing` (an asked aspect is not stated), `wrong_format_unknown` (an aspect is stated that is not asked).
- `wrong_format_soft`: share of responses that are empty or unparsable.

Options:

- `soft: true` forgives names and gaps. A stated aspect that is not asked stands for the first asked one, in the record's order, that has a
  word in its name, upper or lower case. An asked aspect that is then still not stated is unmentioned. A response that cannot be read stays
  absent everywhere. The errors of format are counted as without the option.
- `keywords: {food: [dish, meal]}` has the words of an aspect, beside its own name.
- `aspects: [food]` counts these aspects only. The errors of format stay those of the whole response.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from swift_study.data.designs import record_of
from swift_study.errors import Rejected
from swift_study.evaluation.scorers import Item, Metrics, Score, Sums

LABELS = ("positive", "neutral", "negative", "unmentioned")
PREDICTED = (*LABELS, "absent")
WEIGHTS = (  # a row for each gold label, a column for each of PREDICTED; not symmetric (SDE, arXiv 2404.13033)
    (1.0, 0.5, 0.0, 0.5, 0.0),
    (0.67, 1.0, 0.67, 0.67, 0.0),
    (0.0, 0.5, 1.0, 0.5, 0.0),
    (0.5, 0.67, 0.5, 1.0, 0.0),
)
EQUAL = tuple(tuple(float(gold == predicted) for predicted in PREDICTED) for gold in LABELS)
KINDS = ("empty", "unparsable", "missing", "unknown")
STATISTICS = (
    "positive_positive", "positive_neutral", "positive_negative", "positive_unmentioned", "positive_absent",
    "neutral_positive", "neutral_neutral", "neutral_negative", "neutral_unmentioned", "neutral_absent",
    "negative_positive", "negative_neutral", "negative_negative", "negative_unmentioned", "negative_absent",
    "unmentioned_positive", "unmentioned_neutral", "unmentioned_negative", "unmentioned_unmentioned", "unmentioned_absent",
    "right", "n", "wf", "wf_soft", "wf_empty", "wf_unparsable", "wf_missing", "wf_unknown",
)  # fmt: skip


def score(item: Item) -> Score:
    only, keywords = item.options.get("aspects"), item.options.get("keywords") or {}
    if not all(isinstance(words, list) for words in (only or [], *keywords.values())):
        raise ValueError("options.aspects, and options.keywords of each aspect, are lists, such as [food]")
    gold = _gold(item)
    stated, kind, why = _stated(item)
    format_errors = {
        "empty": kind == "empty",
        "unparsable": kind == "unparsable",
        "missing": not kind and any(aspect not in stated for aspect in gold),
        "unknown": not kind and any(aspect not in gold for aspect in stated),
    }
    if item.options.get("soft") and not kind:
        stated = _forgiven(stated, list(gold), keywords)
    counted = [aspect for aspect in gold if only is None or aspect in only]
    if not counted:
        raise Rejected("the record asks for none of the aspects in `options.aspects`")
    predicted = {aspect: stated.get(aspect, "absent") for aspect in counted}
    wrong = [f"{a}: {predicted[a]} for {gold[a]}" for a in counted if predicted[a] != gold[a]]
    statistics: dict[str, float] = dict.fromkeys(STATISTICS, 0)
    for aspect in counted:
        statistics[f"{gold[aspect]}_{predicted[aspect]}"] += 1
    statistics |= {f"wf_{kind}": error for kind, error in format_errors.items()}
    statistics |= {"right": not wrong, "n": 1, "wf": any(format_errors.values()), "wf_soft": bool(kind)}
    return Score(statistics, why or "; ".join(wrong) or "all aspects are right")


def metrics(sums: Sums) -> Metrics:
    cells = [[np.asarray(sums[f"{gold}_{predicted}"]) for predicted in PREDICTED] for gold in LABELS]
    aspects = sum(sum(row) for row in cells)
    gold = [sum(row) for row in cells]
    predicted = [sum(row[k] for row in cells) for k in range(len(PREDICTED))]
    found: Metrics = {
        "kappa": _kappa(cells, WEIGHTS),
        "accuracy": sum(cells[k][k] for k in range(len(LABELS))) / aspects,
        "review_accuracy": sums["right"] / sums["n"],
        "wrong_format": sums["wf"] / sums["n"],
        "wrong_format_soft": sums["wf_soft"] / sums["n"],
        "said_unmentioned": predicted[3] / aspects,
        "absent": predicted[4] / aspects,
        "unweighted_kappa": _kappa(cells, EQUAL),
    }
    found |= {f"wrong_format_{kind}": sums[f"wf_{kind}"] / sums["n"] for kind in KINDS}
    for k, label in enumerate(LABELS):
        found |= {f"precision_{label}": cells[k][k] / predicted[k], f"recall_{label}": cells[k][k] / gold[k]}
    return found


def _kappa(cells: list[list[Any]], weights: tuple[tuple[float, ...], ...]) -> Any:
    """Weighted agreement over that of chance; 0 / 0 where chance alone agrees in everything."""
    gold, predicted = [sum(row) for row in cells], [sum(row[k] for row in cells) for k in range(len(PREDICTED))]
    n = sum(gold)
    pairs = [(i, j, weights[i][j]) for i in range(len(LABELS)) for j in range(len(PREDICTED))]
    observed = sum(w * cells[i][j] for i, j, w in pairs) / n
    chance = sum(w * gold[i] * predicted[j] for i, j, w in pairs) / n**2
    return (observed - chance) / (1 - chance)


def _gold(item: Item) -> dict[str, str]:
    """The asked aspects with their labels."""
    aspects = record_of(item.example).get("aspects")
    if not isinstance(aspects, dict) or not aspects or not all(_is_label(label) for label in aspects.values()):
        raise Rejected(f"the record's `aspects` are no aspects with their labels, which are {', '.join(LABELS)}")
    return aspects


def _stated(item: Item) -> tuple[dict[Any, str], str, str | None]:
    """The aspects that the response states; where it cannot be read none, the kind of error, and the reason."""
    if item.unreadable is not None:
        return {}, "empty" if item.unreadable.startswith("empty:") else "unparsable", item.unreadable
    aspects = item.parsed.get("aspects") if isinstance(item.parsed, Mapping) else None
    if not isinstance(aspects, Mapping):
        raise Rejected("nothing says which aspects the response states: the queries stand in no design whose `parse` gives `aspects`")
    if other := [aspect for aspect, label in aspects.items() if not _is_label(label)]:
        return {}, "unparsable", f"unparsable: {str(other[0])[:60]!r} has none of the labels {', '.join(LABELS)}"
    return dict(aspects), "", None


def _forgiven(stated: Mapping[Any, str], asked: list[str], keywords: Mapping[str, list[str]]) -> dict[Any, str]:
    """The asked aspects with their labels, names read by keyword and gaps filled."""
    found = {aspect: label for aspect, label in stated.items() if aspect in asked}
    for name, label in stated.items():
        words = {aspect: [aspect, *keywords.get(aspect, [])] for aspect in asked}
        meant = next((a for a in asked if any(word.casefold() in str(name).casefold() for word in words[a])), None)
        if name not in asked and meant is not None:
            found.setdefault(meant, label)
    return {aspect: found.get(aspect, "unmentioned") for aspect in asked}


def _is_label(label: Any) -> bool:
    return isinstance(label, str) and label in LABELS
