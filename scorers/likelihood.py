"""Likelihood: how probable the run's model finds the golden answer, a finer measure of learning than right or wrong responses.

`nats` is the answer's log-probability with its end token, `nats_token` the mean over its tokens; both are at most 0, and higher is better.
"""

from swift_study.evaluation.scorers import Item, Metrics, Score, Sums

NEEDS = ("model",)
STATISTICS = ("nats", "tokens", "nats_token", "n")


def score(item: Item) -> Score:
    (golden,) = item.candidates
    statistics = {"nats": golden.nats, "tokens": golden.tokens, "nats_token": golden.nats / golden.tokens, "n": 1}
    return Score(statistics)


def metrics(sums: Sums) -> Metrics:
    return {"nats_token": sums["nats_token"] / sums["n"], "nats": sums["nats"] / sums["n"]}
