"""The datasets of a configuration before they are made: built in this process where that costs nothing, else stood in for.

What is made from the sources and from examples' own fields is built by the functions that the rules use. A teacher's replies, the
base model's responses and hub data sets that are not on this machine have stand-ins of an assumed length, each named in ``notes``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swift_study.config import SELECTED, Config, HubSource, Panel, Source
from swift_study.data.sources import draw_base, read_source, split_panel, without_near_duplicates
from swift_study.data.strategies import apply_strategy, load_strategy
from swift_study.errors import UserError
from swift_study.evaluation.likelihood import golden_example
from swift_study.evaluation.responses import revise
from swift_study.examples import Example, Message
from swift_study.io.tables import read_examples
from swift_study.models.rendering import Renderer

NEVER = 2.0  # a similarity that no two queries have


@dataclass(frozen=True)
class Length:
    """Tokens of one example."""

    prompt: int
    completion: int

    @property
    def both(self) -> int:
        return self.prompt + self.completion


class PlannedData:
    """Datasets by name, each built once. ``renderer`` is None where the model's tokenizer is not on this machine."""

    def __init__(self, config: Config, renderer: Renderer | None, strategies: Path = Path("strategies")) -> None:
        self.config, self.renderer, self.strategies = config, renderer, strategies
        self.notes: list[str] = []
        self.read = 0  # datasets that were there already
        self._sources: dict[str, list[Example]] = {}
        self._examples: dict[str, list[Example]] = {}
        self._lengths: dict[str, list[Length]] = {}

    def examples(self, name: str) -> list[Example]:
        if name not in self._examples:
            file = Path(self.config.results) / "data" / f"{name}.parquet"
            self.read += file.is_file()
            self._examples[name] = read_examples(file) if file.is_file() else self._fit(self._build(name))
        return self._examples[name]

    def lengths(self, name: str, golden: bool = False) -> list[Length]:
        """Tokens of each example of a dataset, with ``golden`` those of its golden answers."""
        key = f"{name} golden" if golden else name
        if key not in self._lengths:
            self._lengths[key] = [self._length(golden_example(e) if golden else e) for e in self.examples(name)]
        return self._lengths[key]

    def text_tokens(self, messages: Sequence[Message]) -> int:
        """Of messages to another model, whose tokenizer is not known."""
        return round(sum(len(m.content) for m in messages) / self.config.plan.characters_per_token)

    def filler(self, tokens: int) -> str:
        """A text of about so many tokens by the way in which they are counted here."""
        if self.renderer is not None:
            return " ".join(["word"] * tokens)
        return "x" * round(tokens * self.config.plan.characters_per_token)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _length(self, example: Example) -> Length:
        plan, model = self.config.plan, self.config.model
        if self.renderer is not None:
            tokens = self.renderer.tokens(example)
            return Length(tokens.prompt_length, tokens.n_completion)
        prompt = self.text_tokens(example.messages[:-1]) + plan.template_tokens
        return Length(min(prompt, model.max_length), self.text_tokens(example.messages[-1:]) + 1)

    def _fit(self, examples: list[Example]) -> list[Example]:
        """As ``datasets.fit``; an example that is too long ends in its sentence when it is counted, unless it is to be skipped."""
        if self.renderer is None or self.config.model.overlong != "skip":
            return examples
        return [e for e in examples if not self.renderer.is_overlong(e)]

    def _build(self, name: str) -> list[Example]:
        parent, _, strategy = name.rpartition(".")
        if name in SELECTED:
            return self._selected(name)
        if name == "base":
            return self._base()
        if name in ("panel", "candidates", "questions"):
            return self._split(name)[0]
        if strategy == "analogues":
            return self._split(parent)[1]
        if strategy == "revised":
            return revise(self.examples(f"{parent}.clarify"), {e.example_id: e for e in self.examples(parent)})
        return self._derived(name, parent, strategy)

    def _base(self) -> list[Example]:
        base, stood_in = self.config.data.base, any(isinstance(s, HubSource) for s in self.config.data.base.sources)
        # Stand-ins are alike, and none is a probe.
        near = NEVER if stood_in else self.config.data.near_duplicate
        probes = [e for source in ("panel", "candidates", "questions") for part in self._split(source) for e in part]
        pool = self._fit([e for s in base.sources for e in self._source(s, base.examples)])
        return draw_base(pool, probes, base, near, self.config.runs["base"].seed)[0]

    def _split(self, name: str) -> tuple[list[Example], list[Example]]:
        panel: Panel = getattr(self.config.data, name)
        used, analogues = split_panel(self._fit([e for s in panel.sources for e in self._source(s, 0)]), panel)
        if name == "questions" and not any(isinstance(s, HubSource) for s in panel.sources):
            analogues, _ = without_near_duplicates(analogues, used, self.config.data.near_duplicate)
        return used, analogues

    def _source(self, source: Source, at_least: int) -> list[Example]:
        """A hub data set only where it is in the local cache; the script sees to it that the hub is not asked. Each is read once."""
        key = source.model_dump_json()
        try:
            if key not in self._sources:
                self._sources[key] = read_source(source)
            return self._sources[key]
        except UserError:
            if not isinstance(source, HubSource):
                raise
        plan = self.config.plan
        n = source.limit or max(plan.hub_examples, at_least)
        self.note(
            f"The hub data set {source.id!r} is not on this machine: {n} examples of {plan.hub_prompt_tokens} + "
            f"{plan.hub_completion_tokens} tokens are assumed (its limit, or plan.hub_examples; the other two are keys beside that)."
        )
        query, answer = self.filler(plan.hub_prompt_tokens), self.filler(plan.hub_completion_tokens)
        return [
            Example(
                task=source.task or source.id,
                messages=[Message(role="user", content=f"{source.id} {i} {query}"), Message(role="assistant", content=answer)],
                rationale=answer,
                golden=answer,
            )
            for i in range(n)
        ]

    def _derived(self, name: str, parent: str, strategy: str) -> list[Example]:
        settings, examples = self.config.strategies[strategy], self.examples(parent)
        if settings.by == "teacher":
            return self._stand_in(name, examples, strategy, "they are to be made by the teacher")
        source = parent.split(".", maxsplit=1)[0]
        split = source in ("panel", "candidates", "questions")
        analogues = self.examples(f"{source}.analogues") if split else []
        try:
            return apply_strategy(load_strategy(self.strategies / f"{strategy}.py"), settings, examples, analogues, name)[0]
        except UserError as error:
            return self._stand_in(name, examples, strategy, f"they could not be made beforehand ({error})")

    def _stand_in(self, name: str, examples: Sequence[Example], strategy: str, why: str) -> list[Example]:
        tokens = self.config.plan.teacher_reply_tokens
        self.note(
            f"Dataset {name}: {why}; completions of {tokens} tokens are assumed (plan.teacher_reply_tokens) behind the parent's query."
        )
        return [e.derive(strategy, e.query, self.filler(tokens)) for e in examples]

    def _selected(self, name: str) -> list[Example]:
        """The candidates of the first tasks: which ones the base model's responses choose is not known before they are there."""
        settings, kind = self.config.selection, name.split(".", maxsplit=1)[0]
        self.note(
            "Which candidates become negatives and positives is not known before the base model has responded: the first "
            f"{settings.tasks} tasks are taken, and responses of {self.response_tokens()} tokens (plan.response_share)."
        )
        if name == "negative.clarify":
            return _first_of_tasks(self.examples("candidates.clarify"), settings.tasks)
        parent = name.replace(kind, "candidates") + (".revised" if kind == "positive" else "")
        chosen = _first_of_tasks(self.examples(parent), settings.tasks)
        if kind == "positive" and settings.positive_response == "golden":
            return [e.derive(kind, e.query, e.completion) for e in chosen]
        return [e.derive(kind, e.query, self.filler(self.response_tokens())) for e in chosen]

    def response_tokens(self) -> int:
        return max(1, round(self.config.plan.response_share * self.config.generation.max_new_tokens))


def _first_of_tasks(examples: Sequence[Example], tasks: int) -> list[Example]:
    return list({e.task: e for e in reversed(examples)}.values())[::-1][:tasks]
