"""Perplexity: how probable the run's model finds queries and golden answers in their design.

Metrics are log-probabilities, at most 0, and higher is better: means over all tokens, or characters, of all queries. Perplexities (SDE,
arXiv 2404.13033) are exp(-x) of `prompt_nats_token` and `output_nats_token`.

- `prompt_nats_token`: of the prompt's tokens behind the first one, those of the chat template and of solved examples included.
- `output_nats_token`: of the golden answer's tokens, the end token included.
- `value_nats_token`: of the tokens of its values, which the design names; not a number where no query has any. Tokens of the format do not
  count, so that a format with many predictable tokens has no advantage.
- `nats_character`: the log-probability of the golden answers, divided by their characters.
"""

from swift_study.evaluation.scorers import Item, Metrics, Score, Sums

NEEDS = ("model", "prompt", "values")
STATISTICS = ("prompt_nats", "prompt_tokens", "output_nats", "output_tokens", "value_nats", "value_tokens", "characters", "n")


def score(item: Item) -> Score:
    (golden,) = item.candidates
    statistics = {
        "prompt_nats": golden.prompt_nats or 0,
        "prompt_tokens": golden.prompt_tokens or 0,
        "output_nats": golden.nats,
        "output_tokens": golden.tokens,
        "value_nats": golden.value_nats or 0,
        "value_tokens": golden.value_tokens or 0,
        "characters": len(golden.text),
        "n": 1,
    }
    return Score(statistics)


def metrics(sums: Sums) -> Metrics:
    return {
        "prompt_nats_token": sums["prompt_nats"] / sums["prompt_tokens"],
        "output_nats_token": sums["output_nats"] / sums["output_tokens"],
        "value_nats_token": sums["value_nats"] / sums["value_tokens"],
        "nats_character": sums["output_nats"] / sums["characters"],
    }
