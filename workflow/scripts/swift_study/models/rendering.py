"""Examples as tokens: the one place that renders. Training, gradients, likelihoods and generation all read from here.

The tokens are those of the chat template's own rendering of the whole conversation. The prompt is its beginning, up to the part that the
template marks as generated (`{% generation %}`) or, without marks, the rendering that asks for a response; what follows is the completion,
up to and including the first token at which generation stops. What a template writes behind that is no label (DESIGN, Numerics 2).
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from swift_study.config import LossOn, Model
from swift_study.errors import UserError
from swift_study.examples import Example, Message
from swift_study.models.tokens import Tokens

PROBE = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"}]


class Renderer:
    """A model's tokenizer with its chat template and the settings of the section `model`.

    ``vocabulary`` is the number of rows of the model's embedding, and ``ends`` are the tokens at which its generation configuration stops.
    """

    def __init__(self, tokenizer: Any, settings: Model, vocabulary: int | None = None, ends: Sequence[int] = ()) -> None:
        self.tokenizer, self.settings, self.vocabulary = tokenizer, settings, vocabulary
        self.template: str = tokenizer.get_chat_template()
        self._configured_ends = ends

    # ---- what callers need ----

    def tokens(self, example: Example, loss_on: LossOn = "completion") -> Tokens:
        """The example's tokens, the loss on its completion, on all of them, or on the values in its completion.

        With `overlong: truncate` a prompt that is too long is cut from the left, behind its first token if that opens the sequence (BOS).

        Raises UserError if the template refuses or changes the example, or if it is longer than ``max_length`` tokens.
        """
        prompt, completion = self._split(example)
        excess = len(prompt) + len(completion) - self.settings.max_length
        if excess > 0 and self.settings.overlong == "truncate":
            kept = int(prompt[:1] == [self.tokenizer.bos_token_id])
            if excess < len(prompt) - kept:
                prompt, excess = prompt[:kept] + prompt[kept + excess :], 0
        if excess > 0:
            raise Overlong(
                f"{_who(example)} has {len(prompt)} + {len(completion)} tokens, more than model.max_length = {self.settings.max_length}. "
                "Raise it, or set model.overlong to 'skip' or 'truncate'.",
                len(prompt),
                len(completion),
            )
        tokens = Tokens(prompt + completion, len(prompt))
        if loss_on == "all":  # the first token has nothing before it to be predicted from
            return replace(tokens, loss_spans=((1, len(tokens.ids)),))
        return _with_loss_on(tokens, self._values(example, completion)) if loss_on == "values" else tokens

    def prompt(self, example: Example) -> list[int]:
        """What generation sees: the prompt that training sees. Only a prompt that `overlong: truncate` would cut has a limit."""
        if self.settings.overlong == "truncate":
            tokens = self.tokens(example)
            return tokens.ids[: tokens.prompt_length]
        return self._split(example)[0]

    def raw(self, prompt: str, completion: str | None, value_spans: Sequence[tuple[int, int]] = ()) -> Tokens:
        """Tokens of raw text, without the chat template: the prompt and, where there is one, behind a space the completion, with no end
        token. The loss is on the completion, or on the values in it, if there are any. UserError where the two are longer than
        ``max_length`` tokens."""
        encode = self._encode_plain
        before = encode(prompt)
        if completion is None:
            return Tokens(before, len(before))
        behind = f" {completion.strip()}"
        whole = encode(prompt + behind)
        # Where a token would reach over the border: generation sees the prompt alone.
        ids = whole if whole[: len(before)] == before else before + _behind_a_line_break(encode, behind)
        if len(ids) > self.settings.max_length:
            raise Overlong(f"the text {prompt[:60]!r} has with its completion {len(ids)} tokens, more than model.max_length = "
                           f"{self.settings.max_length}. Raise it.", len(before), len(ids) - len(before))  # fmt: skip
        if not value_spans:
            return Tokens(ids, len(before))
        at = len(prompt) + 1 - (len(completion) - len(completion.lstrip()))
        spans = [(at + first, at + last) for first, last in value_spans]
        return _with_loss_on(Tokens(ids, len(before)), _pieces(encode, prompt + behind, len(prompt), ids[len(before) :], spans))

    def _encode_plain(self, text: str) -> list[int]:
        """Of raw text: control tokens in it stay plain text."""
        from transformers.utils.chat_template_utils import mark_control_tokens

        if not self._controls.search(text):
            return self._encode(text)
        marked: list[dict[str, str]] = mark_control_tokens([{"role": "user", "content": text}], self._controls)
        return self._encode_marked(marked[0]["content"])

    def tokens_or_none(self, example: Example, loss_on: LossOn = "completion") -> Tokens | None:
        """The example's tokens; None where it is too long and `overlong: skip` leaves it out."""
        try:
            return self.tokens(example, loss_on)
        except Overlong:
            if self.settings.overlong != "skip":
                raise
            return None

    @cached_property
    def pad_id(self) -> int:
        """A token that exists in the model, to fill batches with; it is never attended to."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, *self.end_ids)
        return next((i for i in known if i is not None and (self.vocabulary is None or i < self.vocabulary)), 0)

    @cached_property
    def end_ids(self) -> list[int]:
        """Tokens at which generation stops: the tokenizer's end token, those of the generation configuration, and the one that the template
        itself puts behind a completion."""
        text, start = self._render(PROBE)
        behind = text[text.index(PROBE[-1]["content"], start) :]
        found = self._first_added_token(behind)
        ends = {*self._configured_ends, self.tokenizer.eos_token_id, found} - {None}
        ids = self._encode(text)
        if not ends.intersection(ids[len(self._encode(text[:start])) :]):
            raise UserError(
                "The chat template writes no token behind a completion at which generation stops (it ends in "
                f"{behind[-40:]!r}), so a model that is trained with it would never stop. Set model.chat_template to one that ends a "
                "completion in {{ eos_token }}."
            )
        return sorted(ends)

    def depends_on_date(self) -> bool:
        """Whether the template writes the day's date, in place of which it gets ``template_date``."""
        other = self.settings.model_copy(update={"template_date": self.settings.template_date + timedelta(days=400)})
        return self._text(PROBE) != Renderer(self.tokenizer, other)._text(PROBE)

    # ---- text ----

    def _split(self, example: Example) -> tuple[list[int], list[int]]:
        """Tokens of the prompt and of the completion."""
        messages = [{"role": m.role, "content": m.content} for m in turns(example, self.settings)]
        marked = self._mark_control_tokens(messages, example)
        try:
            text, start = self._render(marked or messages)
        except UserError as error:
            raise UserError(f"{_who(example)}: {error}") from error
        self._check_contents(marked or messages, text, start, example)
        encode = self._encode_marked if marked else self._encode
        whole, prompt = encode(text), encode(text[:start])
        # Where a token would reach over the border: generation sees the prompt alone, so training does as well.
        is_prefix = whole[: len(prompt)] == prompt
        completion = whole[len(prompt) :] if is_prefix else _behind_a_line_break(encode, text[start:])
        end = next((k for k, i in enumerate(completion) if i in self.end_ids), None)
        if end is None:
            raise UserError(
                f"{_who(example)}: the chat template writes no token behind the completion at which generation stops. Set "
                "model.chat_template to one that ends a completion in {{ eos_token }}."
            )
        return prompt, completion[: end + 1]

    def _values(self, example: Example, completion: Sequence[int]) -> list[tuple[int, int]]:
        """The pieces of the completion's tokens that hold the answer's characters, a token that reaches over a border included."""
        if not example.value_spans:
            raise UserError(
                f"{_who(example)} does not say which part of its completion is the answer, so that the loss cannot be on values. Put its "
                "dataset through a design (docs/data.md), or set loss_on to 'completion'."
            )
        messages = [{"role": m.role, "content": m.content} for m in turns(example, self.settings)]
        if self._controls.search(example.completion):
            raise UserError(f"{_who(example)} has a control token in its completion, where the loss cannot be on values. Take it out.")
        marked = self._mark_control_tokens(messages, example)
        text, start = self._render(marked or messages)
        encode = self._encode_marked if marked else self._encode
        content = example.completion.strip()
        at = text.find(content, start)
        if at < 0:
            raise UserError(f"{_who(example)}: the chat template changes the completion, so that the loss cannot be on values.")
        at -= len(example.completion) - len(example.completion.lstrip())
        return _pieces(encode, text, start, completion, [(at + first, at + last) for first, last in example.value_spans])

    def _render(self, messages: Sequence[dict[str, str]]) -> tuple[str, int]:
        """The whole conversation as text, and the position at which the completion begins."""
        text, generated = self._text(messages)
        if generated:
            return text, generated[-1][0]
        prompt, _ = self._text(messages[:-1], add_generation_prompt=True)
        if not text.startswith(prompt):
            common = next(k for k in range(len(prompt)) if not text.startswith(prompt[: k + 1]))
            asked, written = prompt[max(0, common - 20) :], text[max(0, common - 20) : common + 40]
            raise UserError(
                f"the chat template asks for a response with {asked!r}, but writes {written!r} at this place of a whole conversation. The "
                "model would be trained on another prompt than it is asked with. Set model.chat_template_kwargs so that the two agree "
                "(such as enable_thinking: false), or model.chat_template."
            )
        return text, len(prompt)

    def _text(self, messages: Sequence[dict[str, str]], add_generation_prompt: bool = False) -> tuple[str, list[tuple[int, int]]]:
        """A rendering, and the positions of the parts that the template marks as generated."""
        from transformers.utils.chat_template_utils import render_jinja_template

        marks = re.search(r"\{%-?\s*generation\s*-?%\}", self.template) is not None
        values = {**self.tokenizer.special_tokens_map, **self.settings.chat_template_kwargs}
        try:
            self._fix_date()
            texts, generated = render_jinja_template(
                [list(messages)],
                chat_template=self.template,
                return_assistant_tokens_mask=marks and not add_generation_prompt,
                add_generation_prompt=add_generation_prompt,
                **values,
            )
        except Exception as error:  # a template may raise anything
            advice = " Set model.fold_system_message: true to put the system message in front of the user's first turn."
            raise UserError(
                f"the chat template refuses a conversation with the turns {', '.join(m['role'] for m in messages)}: {error}."
                + (advice if messages[0]["role"] == "system" else " Change the turns, or set model.chat_template.")
            ) from error
        return texts[0], generated[0] if generated else []

    def _fix_date(self) -> None:
        """Give the template one date in place of today's. The library passes no functions on to a template, so this one is put where it
        keeps its own."""
        from transformers.utils.chat_template_utils import _compile_jinja_template

        _compile_jinja_template(self.template).globals["strftime_now"] = self.settings.template_date.strftime

    def _check_contents(self, messages: Sequence[dict[str, str]], text: str, start: int, example: Example) -> None:
        """UserError where the template leaves out or changes a message. Reasoning of earlier turns may go; white space may change."""
        everything, completion = _bare(text), _bare(text[start:])
        for message in messages[:-1]:
            if message["role"] != "assistant" and _bare(message["content"]) not in everything:
                raise UserError(
                    f"{_who(example)}: the chat template leaves out or changes the message of role '{message['role']}' "
                    f"({message['content'][:60]!r}). Set model.chat_template"
                    + (", or model.fold_system_message: true." if message["role"] == "system" else ".")
                )
        if _bare(messages[-1]["content"]) not in completion:
            raise UserError(
                f"{_who(example)}: the chat template leaves out or changes a part of the completion ({messages[-1]['content'][:60]!r}). "
                "Set model.chat_template, or take that part out of the data."
            )

    # ---- tokens ----

    def _encode(self, text: str) -> list[int]:
        return self._opened(self.tokenizer.encode(text, add_special_tokens=False))

    def _encode_marked(self, text: str) -> list[int]:
        """Of a rendering in which control tokens of the data are marked: these become plain text."""
        from transformers.utils.chat_template_utils import encode_marked_chat

        return self._opened(encode_marked_chat(self.tokenizer, text))

    def _opened(self, ids: list[int]) -> list[int]:
        """With what opens a sequence (BOS) exactly once, whether the template writes it, the tokenizer adds it, or both."""
        opening, bos = self._opening, self.tokenizer.bos_token_id
        if ids[: len(opening)] != opening:
            ids = [*opening, *ids]
        while bos is not None and ids[:2] == [bos, bos]:
            ids = ids[1:]
        return ids

    @cached_property
    def _opening(self) -> list[int]:
        """What the tokenizer itself puts in front of a text."""
        bare, whole = (self.tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
        return next((whole[:k] for k in range(len(whole)) if whole[k : k + len(bare)] == bare), [])

    def _mark_control_tokens(self, messages: list[dict[str, str]], example: Example) -> list[dict[str, str]] | None:
        """The messages with their control tokens marked; None where they have none. UserError where these are to be an error."""
        from transformers.utils.chat_template_utils import mark_control_tokens

        found = next((match[0] for m in messages if (match := self._controls.search(m["content"]))), None)
        if found is None:
            return None
        if self.settings.control_tokens == "error":
            raise UserError(
                f"{_who(example)} holds {found!r} as text, which is a control token of the model. Take it out, or set model.control_tokens "
                "to 'text', which keeps it as plain text."
            )
        marked: list[dict[str, str]] = mark_control_tokens(messages, self._controls)
        return marked

    @cached_property
    def _controls(self) -> re.Pattern[str]:
        special = sorted((t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, special)) or "(?!)")

    def _first_added_token(self, text: str) -> int | None:
        """The first token in the text that is none of plain text."""
        known = self.tokenizer.added_tokens_decoder.items()
        added = {t.content: i for i, t in known if t.content in text and not t.content.isspace()}
        return added[min(added, key=lambda content: (text.index(content), -len(content)))] if added else None


def turns(example: Example, settings: Model) -> list[Message]:
    """The example's messages, a system message in front of the user's first turn where the settings say so."""
    first, *rest = example.messages
    if not (settings.fold_system_message and first.role == "system" and rest[0].role == "user"):
        return example.messages
    return [Message(role="user", content=f"{first.content}\n\n{rest[0].content}"), *rest[1:]]


class Overlong(UserError):
    """An example is longer than the model's context: ``prompt`` and ``completion`` are its tokens."""

    def __init__(self, message: str, prompt: int, completion: int) -> None:
        super().__init__(message)
        self.prompt, self.completion = prompt, completion


def load_renderer(folder: Path, settings: Model) -> Renderer:
    """The tokenizer in a model's folder with its chat template. UserError if it cannot be read, or if training and generation would
    see different prompts with its template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=settings.trust_remote_code)
        config, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
    except Exception as error:  # the library raises many kinds for a file that is missing, cut short or another program's
        raise UserError(
            f"{folder}: the tokenizer could not be loaded from tokenizer.json, tokenizer_config.json and config.json: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]} Fetch these files again."
        ) from error
    vocabulary = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    if vocabulary is not None and tokenizer.vocab_size > vocabulary:
        raise UserError(
            f"{folder}: the model's vocabulary has {vocabulary} tokens by config.json, the tokenizer {tokenizer.vocab_size}: they are of "
            "two models. Put the model's own tokenizer files there."
        )
    if settings.chat_template is not None:
        tokenizer.chat_template = settings.chat_template
    if not tokenizer.chat_template:
        raise UserError(f"{folder}: the tokenizer has no chat template. Write one into model.chat_template, as scales/7b.yaml does.")
    ends = generation.get("eos_token_id")
    renderer = Renderer(tokenizer, settings, vocabulary, ends if isinstance(ends, list) else [] if ends is None else [ends])
    try:
        renderer.end_ids  # noqa: B018 - renders a conversation, so that a template that cannot be used is told here
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    return renderer


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text())) if file.is_file() else {}


def _who(example: Example) -> str:
    return f"Example {example.example_id} (task {example.task!r}, strategy {example.strategy!r}, query {example.query[:60]!r})"


def _bare(text: str) -> str:
    """Without white space."""
    return "".join(text.split())


def _behind_a_line_break(encode: Callable[[str], list[int]], text: str) -> list[int]:
    """Tokens of a text that continues another: at the beginning of a text some tokenizers add a space."""
    before, both = encode("\n"), encode("\n" + text)
    return both[len(before) :] if both[: len(before)] == before else encode(text)


def _pieces(
    encode: Callable[[str], list[int]], text: str, start: int, completion: Sequence[int], spans: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The pieces of the completion's tokens that hold the characters of the text in these spans, a token that reaches over a border
    included. The completion begins at ``start``."""
    whole, prompt = encode(text), encode(text[:start])

    def before(position: int) -> tuple[int, bool]:
        """How many of the completion's tokens lie before a position of the text, and whether one reaches over it."""
        if whole[: len(prompt)] == prompt:
            ids, of = encode(text[:position]), [*prompt, *completion]
            skipped = len(prompt)
        else:
            ids, of = _behind_a_line_break(encode, text[start:position]), [*completion]
            skipped = 0
        common = next((k for k, (a, b) in enumerate(zip(ids, of, strict=False)) if a != b), min(len(ids), len(of)))
        return max(0, common - skipped), common < len(ids)

    found: list[tuple[int, int]] = []
    for first, last in spans:
        begin, (end, reaches) = before(first)[0], before(last)
        end += reaches
        if found and begin <= found[-1][1]:  # two values in one token
            begin = found.pop()[0]
        found.append((begin, max(end, begin + 1)))
    return found


def _with_loss_on(tokens: Tokens, pieces: Sequence[tuple[int, int]]) -> Tokens:
    """The tokens with the loss on pieces of their completion."""
    return replace(tokens, loss_spans=tuple((a + tokens.prompt_length, b + tokens.prompt_length) for a, b in pieces))
