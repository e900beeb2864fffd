"""The datasets of a configuration before they are made: built in this process where that costs nothing, else stood in for.

What is made from the sources and from examples' own fields is built by the functions that the rules use. A teacher's replies, the
base model's responses and hub data sets that are not on this machine have stand-ins of an assumed length, each named in ``notes``.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swift_study.config import Condition, Config, HubSource, Source, lineage
from swift_study.data.designs import apply_design, load_design
from swift_study.data.load import Loaded, load
from swift_study.data.sources import read_sources
from swift_study.data.strategies import apply_strategy, load_strategy
from swift_study.errors import UserError
from swift_study.evaluation.likelihood import golden_example
from swift_study.examples import Example, Message
from swift_study.io.tables import read_examples
from swift_study.io.user_files import find_file
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
        self._loaded: dict[str, Loaded] = {}
        self._examples: dict[str, list[Example]] = {}
        self._lengths: dict[str, list[Length]] = {}

    def examples(self, name: str) -> list[Example]:
        if name not in self._examples:
            file = Path(self.config.results) / "data" / f"{name}.parquet"
            self.read += file.is_file()
            self._examples[name] = read_examples(file) if file.is_file() else self._build(name)
        return self._examples[name]

    def lengths(self, name: str, golden: bool = False) -> list[Length]:
        """Tokens of each example of a dataset, with ``golden`` those of its golden answers."""
        key = f"{name} golden" if golden else name
        if key not in self._lengths:
            found = [self._length(golden_example(e) if golden else e) for e in self.examples(name)]
            self._lengths[key] = [length for length in found if length is not None]
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

    def _length(self, example: Example) -> Length | None:
        """None for an example that is too long and left out."""
        plan, model = self.config.plan, self.config.model
        if self.renderer is not None:
            tokens = self.renderer.tokens_or_none(example)
            return None if tokens is None else Length(tokens.prompt_length, tokens.n_completion)
        prompt = self.text_tokens(example.messages[:-1]) + plan.template_tokens
        return Length(min(prompt, model.max_length), self.text_tokens(example.messages[-1:]) + 1)

    def _build(self, name: str) -> list[Example]:
        if lineage.is_loaded(self.config, name):
            first, _, part = name.partition(".")
            return self._load(first).parts[part]
        if name in lineage.outputs(self.config):
            return self._selected(name)
        parent, _, last = name.rpartition(".")
        if last in self.config.designs:
            settings = self.config.designs[last]
            design = load_design(find_file("designs", settings.like or last))
            return apply_design(design, settings.options, self.examples(parent), name)[0]
        return self._derived(name, parent, last)

    def _load(self, name: str) -> Loaded:
        if name not in self._loaded:
            settings = self.config.datasets[name]
            # Stand-ins are alike, and none is in another dataset.
            stood_in = any(isinstance(s, HubSource) for s in settings.sources)
            pool = [e for s in settings.sources for e in self._source(s, settings.where, settings.examples or 0)]
            others = {other: self.examples(other) for other in settings.exclude}
            near = NEVER if stood_in else self.config.near_duplicate
            self._loaded[name] = load(name, settings, pool, others, near, self.config.data_seed)
        return self._loaded[name]

    def _source(self, source: Source, where: Mapping[str, Condition], at_least: int) -> list[Example]:
        """A hub data set only where it is in the local cache; the script sees to it that the hub is not asked. Each is read once."""
        key = f"{source.model_dump_json()} {where}"
        try:
            if key not in self._sources:
                self._sources[key] = read_sources([source], where)
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
        loaded = self.config.datasets.get(source)
        analogues = self.examples(f"{source}.analogues") if loaded is not None and loaded.per_task is not None else []
        parents = [e for above in lineage.parents(self.config, parent) for e in self.examples(above)]
        file = self.strategies / f"{settings.like or strategy}.py"
        try:
            return apply_strategy(load_strategy(file, settings.options, parents), settings, examples, analogues, name)[0]
        except UserError as error:
            return self._stand_in(name, examples, strategy, f"they could not be made beforehand ({error})")

    def _stand_in(self, name: str, examples: Sequence[Example], strategy: str, why: str) -> list[Example]:
        tokens = self.config.plan.teacher_reply_tokens
        self.note(
            f"Dataset {name}: {why}; completions of {tokens} tokens are assumed (plan.teacher_reply_tokens) behind the parent's query."
        )
        return [e.derive(strategy, e.query, self.filler(tokens)) for e in examples]

    def _selected(self, name: str) -> list[Example]:
        """The first examples of the first tasks: which ones the scores choose is not known before they are there."""
        selection = self.config.selections[lineage.outputs(self.config)[name]]
        take, output = selection.take, selection.outputs[name]
        self.note(
            f"Which of {selection.examples} the selection chooses is not known before there are scores: the first ones are taken, and "
            f"responses of {self.response_tokens()} tokens (plan.response_share)."
        )
        by_task: dict[str, list[Example]] = defaultdict(list)
        for example in self.examples(selection.dataset_of(output.of)):
            by_task[example.task].append(example)
        chosen = [e for members in list(by_task.values())[: take.tasks] for e in members[: take.per_task]][: take.examples]
        if output.completion == "response":
            return [e.derive(name, e.query, self.filler(self.response_tokens())) for e in chosen]
        return [e.model_copy(update={"strategy": name}) for e in chosen]

    def response_tokens(self) -> int:
        return max(1, round(self.config.plan.response_share * self.config.generation.max_new_tokens))
