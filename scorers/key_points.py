"""Key points that a machine can check: a response is right if it meets all of them."""

from swift_study.evaluation.scorers import Item, Metrics, Score, Sums
from swift_study.examples import judge_by_key_points

STATISTICS = ("right", "n")


def score(item: Item) -> Score:
    right, reason = judge_by_key_points(item.response or "", item.example.key_points)
    return Score(None if right is None else {"right": right, "n": 1}, reason)


def metrics(sums: Sums) -> Metrics:
    return {"accuracy": sums["right"] / sums["n"]}
