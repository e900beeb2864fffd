"""A scorer says what one response is worth. It is one file, ``scorers/<name>.py``:

- ``STATISTICS``: the names of the numbers that it gives for a query, such as ``("right", "n")``. They are summed over queries.
- ``score(item)``: the ``Score`` of one item.
- ``metrics(sums)``: from the sums of the statistics the metrics, such as ``{"accuracy": sums["right"] / sums["n"]}``. A sum may be a number
  or an array with one number for each resample, so that only arithmetic that works on both is used.
- ``estimate(statistics, weights)``, only where sums are not enough (a rank correlation): ``statistics`` maps names to arrays (queries,),
  ``weights`` has the shape (draws, queries); the result maps metrics to arrays (draws,).
- ``NEEDS``, where a scorer needs something else than the response, or more: a tuple of ``"response"``, ``"model"`` and ``"endpoint"``,
  and beside ``"model"`` of ``"prompt"`` and ``"values"``.

With ``"model"`` the run's model gives the log-probabilities of texts as completions of the query: those that ``candidates(item)`` lists, or
the golden answer where there is no such function. They are ``item.candidates``. With ``"prompt"`` as well each candidate has the
log-probability of its prompt, with ``"values"`` that of the values in it.

With ``"endpoint"`` a server is asked. The file then has, in place of ``score``, ``prompt(item)``, the messages, and
``from_reply(item, reply)``, the score; a constant ``RESPONSE_FORMAT``, if there is one, is the parameter of that name in the request.

``STATISTICS`` and ``NEEDS`` are literals: they are read from the file without running it, since they decide where a job runs. A scorer
raises ``Rejected`` with the reason where an item cannot be scored. Any other exception, and any other result, is the file's fault and stops
the job with a sentence.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from swift_study.config.evaluations import Declared, Scoring, declared
from swift_study.data.designs import DesignFile, load_design, record_of
from swift_study.errors import Rejected, Stopped, UserError
from swift_study.evaluation.judging import read_instructions
from swift_study.examples import Example, Message
from swift_study.io.endpoint import Account, Answer, EndpointSettings, ask
from swift_study.io.tables import ITEMS, RESPONSES, SCORES, read_examples, read_table, write_table
from swift_study.io.user_files import described, line_of, load_module, short, told
from swift_study.io.work import fingerprint

Sums = Mapping[str, Any]  # of statistics by name: numbers, or arrays (draws,)
Metrics = dict[str, Any]  # by name, numbers or arrays as the sums are
NO_RESPONSE = "there is no response: the server refused the query"


@dataclass(frozen=True)
class Candidate:
    """A completion of the query, and how probable the run's model finds it with its end token."""

    text: str
    nats: float
    """Log-probability, at most 0."""
    tokens: int
    """The end token counts."""
    prompt_nats: float | None = None
    """Log-probability of the prompt, the chat template's tokens and solved examples included; None unless NEEDS has `prompt`."""
    prompt_tokens: int | None = None
    """Without the first token, which has nothing before it to be predicted from."""
    value_nats: float | None = None
    """Log-probability of the completion's values; None unless NEEDS has `values` and the text is the example's completion in a design."""
    value_tokens: int | None = None


@dataclass(frozen=True)
class Item:
    """What is known about one query and its response."""

    example: Example
    response: str | None = None
    """None where a server refused the query, and for scorers that need no response."""
    parsed: Any = None
    """What the response states, as the design of the query reads it; None without a design, or where it cannot be read."""
    unreadable: str | None = None
    """Why the design cannot read the response."""
    opponent: str | None = None
    """The response of the run that this one is compared with."""
    candidates: tuple[Candidate, ...] = ()
    """For scorers that need the model."""
    too_long: str | None = None
    """Why the model cannot take the query with one of its candidates; it is then not scored."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """`scorers.<name>.options`."""
    model: str | None = None
    """`scorers.<name>.model`: a folder or a hub id, for scorers with a model of their own."""
    instructions: str = ""
    """For scorers that need an endpoint: the text of `scorers.<name>.instructions`."""


@dataclass(frozen=True)
class Score:
    """What an item is worth: additive statistics. None: it could not be scored, which is counted and never taken for 0."""

    statistics: Mapping[str, float] | None
    reason: str | None = None
    raw: str | None = None
    """What it was read from, such as a judge's reply."""


@dataclass(frozen=True)
class Scored:
    """An item's score with where it comes from: rows of the tables."""

    item: Item
    score: Score
    judge: str
    """The scorer, or the model behind the endpoint."""
    prompt_hash: str | None = None
    tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True)
class ScorerFile:
    """A scorer file's functions. Whatever goes wrong in one of them is a UserError that names file, line and query."""

    path: Path
    declared: Declared
    functions: Mapping[str, Callable[..., Any]]
    response_format: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    def score(self, item: Item) -> Score:
        return self._checked("score", item, lambda: self.functions["score"](item))

    def from_reply(self, item: Item, reply: str) -> Score:
        """Raises Rejected where the reply cannot be read."""
        made = self._call("from_reply", item, lambda: self.functions["from_reply"](item, reply))
        return self._whole("from_reply", item, made)

    def prompt(self, item: Item) -> list[Message]:
        """Raises Rejected where the item has not what the endpoint must be told."""
        made = self._call("prompt", item, lambda: self.functions["prompt"](item))
        if isinstance(made, list | tuple) and made and all(type(m) is Message for m in made):
            return list(made)
        raise self._wrong("prompt", item, f"returned {described(made)}", "Return a list of Message.")

    def candidates(self, item: Item) -> list[str]:
        """The completions whose log-probabilities the scorer needs: the golden answer, or what the file lists."""
        if "candidates" not in self.functions:
            return [item.example.golden or item.example.completion]
        made = self._call("candidates", item, lambda: self.functions["candidates"](item))
        if isinstance(made, list | tuple) and made and all(isinstance(text, str) and text.strip() for text in made):
            return list(made)
        raise self._wrong("candidates", item, f"returned {described(made)}", "Return a list of texts, none of them empty.")

    def metrics(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics from sums of the statistics: numbers, or arrays (draws,). UserError if the file's function fails."""
        given = {name: np.asarray(value, dtype=np.float64) for name, value in sums.items()}
        shape = np.shape(next(iter(sums.values()), 0.0))
        made = self._measured("metrics", shape, lambda: self.functions["metrics"](given))
        return {name: np.asarray(value, dtype=np.float64) if shape else float(value) for name, value in made.items()}

    def estimate(self, statistics: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics in every resample: (draws,) each. ``statistics`` are (queries,), NaN where a query could not be scored, which then
        counts nowhere; ``weights`` are (draws, queries). UserError if the file's function fails."""
        if "estimate" in self.functions:
            made = self._measured("estimate", (len(weights),), lambda: self.functions["estimate"](statistics, weights))
            return {name: np.asarray(value, dtype=np.float64) for name, value in made.items()}
        return self.metrics({name: weights @ np.nan_to_num(values) for name, values in statistics.items()})

    def _measured(self, name: str, shape: tuple[int, ...], call: Callable[[], Any]) -> Mapping[str, Any]:
        """What one of the functions of metrics returned, checked."""
        try:
            with np.errstate(divide="ignore", invalid="ignore"):  # where nothing is scored, a metric is 0 / 0: not a number
                made = call()
        except Stopped:
            raise
        except BaseException as error:
            line = line_of(self.path, error)
            raise UserError(f"{self.path}{f', line {line}' if line else ''}: {name} raised {told(error)}. Mend the function.") from error
        if not isinstance(made, Mapping) or not made or not all(isinstance(metric, str) and metric for metric in made):
            raise UserError(f"{self.path}: {name} returned {described(made)}. Return a dictionary from names of metrics to numbers.")
        for metric, value in made.items():
            if np.shape(value) != shape or np.asarray(value).dtype.kind not in "fiub":
                raise UserError(
                    f"{self.path}: the metric {metric!r} of {name} is {short(value)}; a number was expected for each of the sums, of the "
                    f"shape {shape}."
                )
        return made

    # ---- checks ----

    def _checked(self, name: str, item: Item, call: Callable[[], Any]) -> Score:
        try:
            made = self._call(name, item, call)
        except Rejected as error:
            return Score(None, str(error))
        return self._whole(name, item, made)

    def _call(self, name: str, item: Item, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (Rejected, Stopped):
            raise
        except BaseException as error:  # a scorer may also call sys.exit, which would end the job without a word
            remedy = "Mend the function, or raise Rejected with the reason where an item cannot be scored."
            raise self._wrong(name, item, f"raised {told(error)}", remedy, line_of(self.path, error)) from error

    def _whole(self, name: str, item: Item, made: Any) -> Score:
        if type(made) is not Score:
            raise self._wrong(name, item, f"returned {described(made)}", "Return a Score.")
        for part in ("reason", "raw"):
            if not isinstance(getattr(made, part), str | None):
                raise self._wrong(name, item, f"gave the {part} {described(getattr(made, part))}", "Give text, or None.")
        if made.statistics is None:
            return made if made.reason else replace(made, reason="the scorer gives no reason")
        names = tuple(made.statistics) if isinstance(made.statistics, Mapping) else ()
        if set(names) != set(self.declared.statistics):
            expected = ", ".join(self.declared.statistics)
            what = f"gave the statistics {', '.join(map(str, names)) or described(made.statistics)}"
            raise self._wrong(name, item, what, f"Give those of STATISTICS: {expected}.")
        for statistic, value in made.statistics.items():
            if not isinstance(value, int | float | np.number) or not math.isfinite(value):
                raise self._wrong(name, item, f"gave the statistic {statistic!r} the value {short(value)}", "Give a finite number.")
        return made

    def _wrong(self, name: str, item: Item, what: str, remedy: str, line: int | None = None) -> UserError:
        if line is None:
            line = getattr(getattr(self.functions[name], "__code__", None), "co_firstlineno", None)
        example = item.example
        return UserError(
            f"{self.path}{f', line {line}' if line else ''}: {name} {what} for the query {example.example_id} (task {example.task!r}, "
            f"{short(example.query)}). {remedy}"
        )


def load_scorer(path: Path) -> ScorerFile:
    """Import a scorer file. UserError if it is missing, does not run, or lacks one of its parts."""
    known = declared(path)
    module = load_module(path, "scorer")
    functions = {
        name: found
        for name in ("score", "prompt", "from_reply", "candidates", "metrics", "estimate")
        if callable(found := getattr(module, name, None))
    }
    needed = ("prompt", "from_reply", "metrics") if "endpoint" in known.needs else ("score", "metrics")
    for name in needed:
        if name not in functions:
            raise UserError(f"{path}: the function `{name}` is missing; this scorer file needs {', '.join(needed)}.")
    return ScorerFile(path, known, functions, getattr(module, "RESPONSE_FORMAT", None))


# ---- scoring ----


def score_items(scorer: ScorerFile, items: Sequence[Item]) -> list[Scored]:
    """The scores of a scorer that asks no endpoint. An item whose response is missing, or too long for the model, is not scored."""
    scored = []
    for item in items:
        missing = "response" in scorer.declared.needs and item.response is None
        reason = NO_RESPONSE if missing else item.too_long
        scored.append(Scored(item, scorer.score(item) if reason is None else Score(None, reason), scorer.name))
    return scored


def score_by_endpoint(
    scorer: ScorerFile,
    items: Sequence[Item],
    settings: EndpointSettings,
    cache: Path,
    progress: Callable[[str], None] | None = None,
    name: str = "endpoint",
    repeat: int = 0,
    proven: bool = False,
) -> tuple[list[Scored], Account]:
    """The scores of a scorer that asks an endpoint, and what it took. An item to which no reply could be read is not scored.

    ``name`` is the endpoint's place in the configuration, for sentences. With another ``repeat`` the endpoint is asked anew; ``proven``
    says that it has just answered others.
    """
    asked: list[int] = []
    prompts: list[list[Message]] = []
    scores: dict[int, Scored] = {}
    for i, item in enumerate(items):
        plain = Scored(item, Score(None, NO_RESPONSE), settings.model)
        if "response" in scorer.declared.needs and item.response is None:
            scores[i] = plain
            continue
        try:
            prompts.append(scorer.prompt(item))
            asked.append(i)
        except Rejected as error:
            scores[i] = replace(plain, score=Score(None, str(error)))
    outcomes, account = ask(
        settings, prompts, lambda k, reply: scorer.from_reply(items[asked[k]], reply), cache, progress, name,
        response_format=scorer.response_format, repeat=repeat, proven=proven,
    )  # fmt: skip
    asked_by = prompt_hash(scorer, items[asked[0]]) if asked else None
    for i, outcome in zip(asked, outcomes, strict=True):
        score = outcome.value if isinstance(outcome, Answer) else Score(None, outcome.reason)
        score = replace(score, raw=outcome.reply)
        scores[i] = Scored(items[i], score, settings.model, asked_by, outcome.tokens, outcome.cost_usd)
    return [scores[i] for i in range(len(items))], account


def prompt_hash(scorer: ScorerFile, item: Item) -> str:
    """16 hexadecimal digits that tell one way of asking from another: the scorer's file, its options and its instructions."""
    return fingerprint(scorer.path.read_text(encoding="utf-8"), dict(item.options), item.instructions)


def totals(scorer: ScorerFile, scored: Sequence[Scored]) -> dict[str, float]:
    """The sums of the statistics over the items that could be scored."""
    found = [s.score.statistics for s in scored if s.score.statistics is not None]
    return {name: math.fsum(statistics[name] for statistics in found) for name in scorer.declared.statistics}


def summary(scorer: ScorerFile, scored: Sequence[Scored]) -> str:
    """The metrics as a part of a sentence, with the number of items that could not be scored."""
    metrics = scorer.metrics(totals(scorer, scored))
    values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    return f"{values} over {len(scored)} queries; {sum(s.score.statistics is None for s in scored)} could not be scored"


def is_right(score: Score) -> int | None:
    """The label that a score with the statistic `right` stands for: 0 or 1; None where there is none."""
    return None if score.statistics is None else round(score.statistics["right"])


# ---- tables ----


def write_scores(folder: Path, scorer: ScorerFile, scored: Sequence[Scored], metadata: Mapping[str, str] | None = None) -> None:
    """Write ``scores.parquet``, a row for each query and statistic, null where the query could not be scored, and ``items.parquet``."""
    rows = [
        {
            "query_id": s.item.example.example_id,
            "task": s.item.example.task,
            "statistic": name,
            "value": None if s.score.statistics is None else float(s.score.statistics[name]),
        }
        for s in scored
        for name in scorer.declared.statistics
    ]
    items = [
        {
            "query_id": s.item.example.example_id,
            "reason": s.score.reason,
            "raw": s.score.raw,
            "judge": s.judge,
            "prompt_hash": s.prompt_hash,
            "tokens": s.tokens,
            "cost": s.cost,
        }
        for s in scored
    ]
    types = {"query_id": pl.String, "task": pl.String, "statistic": pl.String, "value": pl.Float64}
    texts = dict.fromkeys(("query_id", "reason", "raw", "judge", "prompt_hash"), pl.String)
    write_table(folder / "scores.parquet", pl.DataFrame(rows, schema=types), SCORES, metadata)
    write_table(folder / "items.parquet", pl.DataFrame(items, schema=texts | {"tokens": pl.Int64, "cost": pl.Float64}), ITEMS, metadata)


def read_statistics(path: Path) -> pl.DataFrame:
    """A scores table with a row for each query: `query_id`, `task` and a column for each statistic, in the order of the file."""
    frame = read_table(path, SCORES)
    wide = frame.pivot(on="statistic", index=["query_id", "task"], values="value", maintain_order=True)
    if len(wide) * frame["statistic"].n_unique() != len(frame):
        raise UserError(f"{path}: it does not have each statistic of each query once. Delete it and run snakemake again.")
    return wide


def read_responses(path: Path) -> dict[str, str | None]:
    """The responses by their query's id; None where there is none."""
    return dict(read_table(path, RESPONSES).select("query_id", "response").iter_rows())


def read_items(
    dataset: Path,
    settings: Scoring,
    responses: Path | None = None,
    opponents: Path | None = None,
    instructions: Path | None = None,
    design: Path | None = None,
) -> list[Item]:
    """The items of a dataset's examples with the responses to them, as the file of their design reads them. UserError where a file does not
    hold a response to each query."""
    examples = read_examples(dataset)
    given, others = ({} if path is None else _responses_to(examples, path) for path in (responses, opponents))
    told = "" if instructions is None else read_instructions(instructions)
    same = Item(examples[0], options=settings.options, model=settings.model, instructions=told)
    items = [replace(same, example=e, response=given.get(e.example_id), opponent=others.get(e.example_id)) for e in examples]
    return items if design is None else read_back(items, load_design(design), settings.design_options)


def read_back(items: Sequence[Item], design: DesignFile, options: Mapping[str, Any]) -> list[Item]:
    """The items with what their responses state, or why that cannot be read."""
    found = []
    for item in items:
        if item.response is None:
            found.append(item)
            continue
        try:
            found.append(replace(item, parsed=design.parse(item.response, record_of(item.example), options)))
        except Rejected as error:
            found.append(replace(item, unreadable=str(error)))
    return found


def _responses_to(examples: Sequence[Example], path: Path) -> dict[str, str | None]:
    found, ids = read_responses(path), {e.example_id for e in examples}
    if other := [q for q in (*found, *ids) if (q in found) != (q in ids)]:
        raise UserError(f"{path}: it does not hold a response to each query of the dataset, such as {other[0]}. Delete it and run again.")
    return found
