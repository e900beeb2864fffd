"""Ask an OpenAI-compatible chat server, such as a teacher or a judge, with retries, a reply cache and a budget.

Three things can go wrong, and each ends differently:

- a reply breaks the acceptance rule, is cut off, empty or a refusal: asked for again, at last a ``Failure``;
- one prompt gets no reply (5xx, time-outs) or is refused (400) by a server that answers others: a ``Failure``;
- the server as a whole does not answer, refuses every request, or the budget is used up: requests in flight finish, then
  a ``UserError`` ends the call. Every reply that came is in the cache, so the next call asks only for the rest.

The key is read from the environment and goes nowhere but into the request, and only to the server of the settings. A reply is
data: it is never evaluated or used as a path, and it is limited in size. What was sent and may have been charged for stands in a
ledger beside the cache, so that the budget holds over interrupted runs.
"""

import asyncio
import contextlib
import email.utils
import functools
import hashlib
import json
import logging
import math
import os
import random
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from swift_study.errors import Rejected, UserError
from swift_study.examples import Message
from swift_study.io.ledger import Ledger, lost
from swift_study.io.redaction import redactor
from swift_study.io.replies import whole_text
from swift_study.io.settings import CHANGES_NOTHING

if TYPE_CHECKING:  # imported where a request is sent: it is slow, and the configuration imports this module everywhere
    import openai

T = TypeVar("T")
logger = logging.getLogger(__name__)

# Fields of a request's body that this client sets, or that would change how many replies come, and how.
OWN_FIELDS = {"model", "messages", "temperature", "max_tokens", "max_completion_tokens", "seed", "response_format"}
OWN_FIELDS |= {"stream", "n", "best_of"}

RETRY_TEMPERATURE = 0.7  # for a second reply where the first was asked for at temperature 0, which would give the same again
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_WAIT = 600.0  # seconds; a longer Retry-After is cut to this
UNANSWERED_IN_A_ROW = 3  # prompts without a reply, one after another, after which the server is taken to be down
REFUSED_BEFORE_ANY_ANSWER = 3  # prompts, after which the server is taken to refuse every request
REFUSES_PROMPT = (400, 413, 422)  # statuses by which a server may refuse one prompt: too long for it, or filtered
PERHAPS_CHARGED = (504, 524)  # statuses by which a gateway says that the server behind it took too long
LONGEST_BODY = 2**20  # bytes of a response, decompressed, beside those of its tokens
BYTES_PER_TOKEN = 64  # far more than a token has, escapes included
LARGEST_COUNT = 2**31  # tokens; a server that says more does not count
ENVIRONMENT_NAME = r"^[A-Z_][A-Z0-9_]*$"
REFUSES_FORMAT = (400, 404, 422, 501)  # statuses by which a server may say that it does not know `response_format`


class EndpointSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    base_url: str = Field(description="Address of the server's API, such as https://api.openai.com/v1.")
    model: str = Field(min_length=1, description="Name under which the server knows the model.")
    key_env: str = Field(
        default="OPENAI_API_KEY",
        json_schema_extra=CHANGES_NOTHING | {"pattern": ENVIRONMENT_NAME},
        description="NAME of the environment variable that holds the key, in capital letters; a server on this machine needs none.",
    )
    temperature: float | None = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Sampling temperature; 0 takes the likeliest token; null sends none, for a server that takes only its own default.",
    )
    max_tokens: int = Field(
        default=512, ge=1, description="Longest reply in tokens, its reasoning included; a reply cut off here is not accepted."
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="Field of the request that holds max_tokens; some servers take only max_completion_tokens."
    )
    extra_body: dict[str, Any] = Field(
        default={},
        description="Further fields of the request, such as {top_k: 20}. They stand in the reply cache: put no secrets here.",
    )
    seed: int | None = Field(default=None, description="Sent with every request (plus 1 for each reply asked for again).")
    concurrency: int = Field(default=8, ge=1, json_schema_extra=CHANGES_NOTHING, description="Requests in flight at once.")
    timeout_s: float = Field(default=120.0, gt=0, json_schema_extra=CHANGES_NOTHING, description="Seconds until a reply must be complete.")
    attempts: int = Field(
        default=5,
        ge=1,
        json_schema_extra=CHANGES_NOTHING,
        description="Tries of a request that meets 408, 409, 429, 5xx, a time-out or a lost connection.",
    )
    backoff_s: float = Field(
        default=1.0,
        ge=0,
        json_schema_extra=CHANGES_NOTHING,
        description="Seconds before the second try; doubled for each further one, plus a random part.",
    )
    reply_attempts: int = Field(
        default=3,
        ge=1,
        description="Times a reply is asked for until one is accepted; where temperature is 0, from the second on 0.7.",
    )
    budget_usd: float | None = Field(
        default=None,
        ge=0,
        json_schema_extra=CHANGES_NOTHING,
        description="Most that replies to one dataset's prompts may cost, interrupted runs included; null: no limit.",
    )
    usd_per_million_prompt_tokens: float = Field(default=0.0, ge=0, json_schema_extra=CHANGES_NOTHING, description="Price.")
    usd_per_million_completion_tokens: float = Field(default=0.0, ge=0, json_schema_extra=CHANGES_NOTHING, description="Price.")

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("must not hold a user name or password: set the variable that key_env names")
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query and not parts.fragment
        except ValueError:  # its message may repeat the address
            usable = False
        if not usable:
            raise ValueError("must be like https://host/v1")
        return value.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        looks_like_a_key = any(len(word) > 15 and not word.isalpha() for word in value.split("_"))
        if not re.fullmatch(ENVIRONMENT_NAME, value) or looks_like_a_key:
            raise ValueError(
                "must be the NAME of an environment variable in capital letters, such as OPENAI_API_KEY. Put the key into that "
                "variable, never into the configuration"
            )
        return value

    @field_validator("extra_body")
    @classmethod
    def _adds_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        if own := sorted(OWN_FIELDS & set(value)):
            raise ValueError(f"must not hold {', '.join(own)}: this client sets these fields itself")
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError("must be JSON: text, numbers that are not NaN or infinite, lists and objects") from error
        return value

    @model_validator(mode="after")
    def _budget_has_a_price(self) -> Self:
        if self.budget_usd is not None and not self.usd_per_million_prompt_tokens + self.usd_per_million_completion_tokens:
            raise ValueError("budget_usd needs usd_per_million_prompt_tokens and usd_per_million_completion_tokens")
        return self

    @property
    def is_local(self) -> bool:
        return urlsplit(self.base_url).hostname in ("localhost", "127.0.0.1", "::1")

    def price(self, prompt_tokens: int, completion_tokens: int) -> float:
        prompt, completion = self.usd_per_million_prompt_tokens, self.usd_per_million_completion_tokens
        return (prompt_tokens * prompt + completion_tokens * completion) / 1e6


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What the acceptance rule made of the reply to prompt ``index``, and the reply, which was number ``attempts``."""

    index: int
    attempts: int
    value: T
    reply: str
    """As it came; where the reasoning came in a field of its own, it stands before the reply in a <think> block."""
    finish_reason: str | None = field(default=None, compare=False)
    tokens: int = field(default=0, compare=False)
    """Of prompt and reply."""
    completion_tokens: int = field(default=0, compare=False)
    """Of the reply alone."""
    cost_usd: float = field(default=0.0, compare=False)
    """The reply's price, also where it was paid by an earlier call: what this call paid stands in the account."""


@dataclass(frozen=True)
class Failure:
    """A prompt without an accepted reply: the last reason, and the last reply where there was one."""

    index: int
    attempts: int
    reason: str
    reply: str | None
    tokens: int = field(default=0, compare=False)
    """Of all its replies, and their price."""
    cost_usd: float = field(default=0.0, compare=False)
    refused: bool = field(default=False, compare=False)
    """The server does not take this prompt, or its filter lets no reply to it through: to ask again would not help."""


@dataclass(frozen=True)
class Account:
    """What one call of ``ask`` did. A cached reply costs nothing; the reply to a repeated prompt is one."""

    requests_sent: int
    """Tries included that met an error."""
    replies_from_cache: int
    retries: int
    """Tries after the first of a request."""
    rejected: int
    """Replies that were not accepted, those from the cache included."""
    failures: int
    prompt_tokens: int
    """Of the replies that came, as the server counted them."""
    completion_tokens: int
    cost_usd: float
    """A reply that was lost (time-out, broken connection, unreadable body) counts with the most it can have cost."""
    cached_prompt_tokens: int
    cached_completion_tokens: int
    tokens_estimated: bool
    """Some reply came without counts: one token was counted for every byte, which is never too few."""
    lost_usd: float = 0.0
    """The most that earlier calls can have paid for requests to which no reply came; 0 where there is no budget."""


class _Stop(Exception):
    """The whole call ends; the message is a sentence."""


class _TryAgain(Exception):
    """A try of a request failed in a way that may pass."""

    def __init__(self, reason: str, *, wait: float = 0.0, hits_all: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.hits_all = wait, hits_all


class _Unanswered(Exception):
    """A prompt gets no reply; the message says why."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class _Filtered(Rejected):
    """The server, or the model behind it, refuses to reply."""


class _Refused(Exception):
    """The server refuses a request: this prompt, or every one. The message is the status and what the server says."""


class _FormatRefused(Exception):
    """The server may not know `response_format`."""


# The parts of a chat completion that matter here. A body that lacks them is not one.
class _BodyMessage(BaseModel):
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, message: Any) -> Any:
        """Reasoning has several places: a field of one of two names, or parts of the content, which then is a list."""
        if not isinstance(message, dict):
            return message
        content, reasoning = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
        if isinstance(content, list):
            parts = [part for part in content if isinstance(part, dict)]
            thoughts = [part["thinking"] for part in parts if isinstance(part.get("thinking"), list)]
            content, reasoning = _text(parts), "".join(map(_text, thoughts)) or reasoning
        return message | {"content": content, "reasoning": reasoning if isinstance(reasoning, str) else None}


def _text(parts: list[Any]) -> str:
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


class _BodyChoice(BaseModel):
    message: _BodyMessage
    finish_reason: str | None = None


class _Body(BaseModel):
    choices: list[_BodyChoice] = Field(min_length=1)
    usage: Any = None

    def count(self, name: str) -> int | None:
        """A count of tokens; None where the server gives none that can be one."""
        value = self.usage.get(name) if isinstance(self.usage, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LARGEST_COUNT:
            return None
        return int(value) if value == int(value) else None


class _Request(BaseModel):
    """Everything that affects a reply and nothing else; its hash names the reply's cache file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    model: str
    messages: list[Message]
    temperature: float | None
    max_tokens: int
    seed: int | None
    attempt: int
    # Not part of the hash where they have these values, so that older caches stay valid.
    max_tokens_field: str = "max_tokens"
    extra_body: dict[str, Any] = {}
    response_format: dict[str, Any] | None = None
    repeat: int = 0

    @property
    def key(self) -> str:
        content = json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=20).hexdigest()

    @property
    def most_prompt_tokens(self) -> int:
        """No tokenizer makes more tokens than bytes; the rest is room for a chat template and its system prompt."""
        further = sum(len(json.dumps(value)) for value in (self.response_format, self.extra_body) if value)
        return 128 + further + sum(16 + len(m.content.encode()) for m in self.messages)

    def forms(self) -> list["_Request"]:
        """This request and, where it asks for a format, the one without, for a server that does not know it."""
        return [self] if self.response_format is None else [self, self.model_copy(update={"response_format": None})]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    content: str | None
    refusal: str | None
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    tokens_estimated: bool
    reasoning: str | None = None

    @property
    def record(self) -> str | None:
        """The reply as it came. Reasoning that came in a field of its own stands before it, as a model without that field writes it."""
        return f"<think>\n{self.reasoning}\n</think>\n\n{self.content or ''}" if self.reasoning else self.content

    def text(self, allow_cut_off: bool) -> str:
        """The reply's text. Rejected where it is not a whole answer, or where there is none at all."""
        if self.refusal or self.finish_reason == "content_filter":
            raise _Filtered("the server refused to answer" + (f": {_line(self.refusal)}" if self.refusal else ""))
        if allow_cut_off:
            return self.content or ""
        if self.finish_reason == "length":
            raise Rejected(f"the reply was cut off after {self.completion_tokens} tokens (max_tokens)")
        if not self.content or not self.content.strip():
            raise Rejected("the reply is empty")
        return self.content


class _Entry(BaseModel):
    """A cache file. The request stands beside the reply for people who look into the cache."""

    request: _Request
    reply: _Reply


def ask(
    settings: EndpointSettings,
    prompts: Sequence[Sequence[Message]],
    accept: Callable[[int, str], T],
    cache_dir: Path,
    progress: Callable[[str], None] | None = None,
    name: str = "endpoints.teacher",
    *,
    allow_cut_off: bool = False,
    response_format: dict[str, Any] | None = None,
    repeat: int = 0,
    proven: bool = False,
) -> tuple[list[Answer[T] | Failure], Account]:
    """Get an accepted reply to every prompt: the outcomes in the order of ``prompts``, and what it took.

    ``accept(index, reply)`` turns a reply into a value or raises ``Rejected``. ``name`` is the place of the
    settings in the configuration, for error sentences. Raises UserError where the server as a whole fails or the budget is used up.

    ``allow_cut_off`` takes a reply as it comes, also cut off or empty. ``response_format`` is the API's parameter of that
    name; a server that refuses it is asked without, and ``accept`` must check the reply in any case. With another
    ``repeat`` the same prompts are asked anew, not looked up in the cache. ``proven``: the server has answered other prompts under
    these settings just now, so that any number of these may be refused.
    """
    call = _Call(
        settings, prompts, accept, cache_dir, progress or (lambda _: None), name,
        allow_cut_off=allow_cut_off, response_format=response_format, repeat=repeat, proven=proven,
    )  # fmt: skip
    return asyncio.run(call.run())


class _Call(Generic[T]):
    """One call of ``ask``: its counts, and the steps from a prompt down to a single HTTP request."""

    def __init__(
        self,
        settings: EndpointSettings,
        prompts: Sequence[Sequence[Message]],
        accept: Callable[[int, str], T],
        cache_dir: Path,
        progress: Callable[[str], None],
        name: str,
        *,
        allow_cut_off: bool,
        response_format: dict[str, Any] | None,
        repeat: int,
        proven: bool,
    ) -> None:
        self.settings, self.prompts, self.accept, self.progress, self.name = settings, prompts, accept, progress, name
        self.cache_dir = cache_dir
        self.allow_cut_off, self.response_format, self.repeat = allow_cut_off, response_format, repeat
        self.server = f"{name}: the server {settings.base_url} (model {settings.model})"
        self.outcomes: list[Answer[T] | Failure | None] = [None] * len(prompts)
        self.client: openai.AsyncOpenAI | None = None
        self.key = os.environ.get(settings.key_env, "").strip()
        self.without_key = redactor(self.key)
        self.ledger = Ledger(cache_dir / "ledger")

        self.stopped = asyncio.Event()
        self.error: Exception | None = None
        self.asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by request, so that none is sent twice at once
        self.answering = False  # the server has given a reply, now or when the cache was filled
        self.answers_now = proven
        self.refused: dict[str, str] = {}  # prompts that the server did not take, before its first answer, and what it said
        self.pending = 0  # requests whose prompts are neither answered nor given up
        self.unanswered_in_a_row = 0
        self.takes_format: bool | None = None  # not known before the first reply

        self.earlier = 0.0  # USD that earlier calls paid: for the cached replies and, at most, for requests without a reply
        self.lost = 0.0  # USD of it for requests without a reply
        self.most_above = 0  # prompt tokens by which the server has counted more than a request can have
        self.spent = 0.0  # USD
        self.reserved: list[float] = []  # USD at most, for each request in flight
        self.settled = asyncio.Event()  # set when a request in flight ends
        self.requests_sent = self.replies_from_cache = self.retries = self.rejected = 0
        self.prompt_tokens = self.completion_tokens = self.cached_prompt_tokens = self.cached_completion_tokens = 0
        self.tokens_estimated = False

    async def run(self) -> tuple[list[Answer[T] | Failure], Account]:
        if self.settings.budget_usd is not None:
            self.lost = self._cost_of_lost_replies()
            self.earlier = self._cost_of_cached_replies() + self.lost
        indices = iter(range(len(self.prompts)))
        try:
            await asyncio.gather(*(self._work_through(indices) for _ in range(self.settings.concurrency)))
        finally:
            if self.client is not None:
                await self.client.close()
            self.ledger.close()
        if self.refused and not self.answering and self.error is None:
            self.error = self._refuses_all(next(iter(self.refused.values())))
        outcomes = [o for o in self.outcomes if o is not None]
        if isinstance(self.error, _Stop):
            answered = sum(isinstance(o, Answer) for o in outcomes)
            raise UserError(
                f"{self.error} {answered} of {len(self.prompts)} prompts are answered; every reply so far is kept in "
                f"{self.cache_dir}, so that the same command asks only for the rest."
            ) from None
        if self.error is not None:
            raise self.error
        return outcomes, Account(
            requests_sent=self.requests_sent,
            replies_from_cache=self.replies_from_cache,
            retries=self.retries,
            rejected=self.rejected,
            failures=sum(isinstance(o, Failure) for o in outcomes),
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost_usd=self.spent,
            cached_prompt_tokens=self.cached_prompt_tokens,
            cached_completion_tokens=self.cached_completion_tokens,
            tokens_estimated=self.tokens_estimated,
            lost_usd=self.lost,
        )

    # ---- prompts ----

    async def _work_through(self, indices: Iterator[int]) -> None:
        """Take the next prompt until there is none, or until the call is stopped; all workers share the iterator."""
        for index in indices:
            try:
                self.outcomes[index] = await self._outcome(index)
            except Exception as error:  # also a bug in `accept`: the other workers' requests in flight still finish
                self.error = self.error or error
                self.stopped.set()
            if self.stopped.is_set():
                return
            outcomes = [o for o in self.outcomes if o is not None]
            failures = sum(isinstance(o, Failure) for o in outcomes)
            self.progress(f"{len(outcomes)} of {len(self.prompts)} prompts, {failures} failed, {self.spent:.4f} USD")

    async def _outcome(self, index: int) -> Answer[T] | Failure:
        reason, refused = "", False
        text: str | None = None
        tokens, cost = 0, 0.0
        for attempt in range(1, self.settings.reply_attempts + 1):
            try:
                reply = await self._reply(self._request(index, attempt))
                text = reply.record
                reply_tokens = reply.prompt_tokens + reply.completion_tokens
                reply_cost = self.settings.price(reply.prompt_tokens, reply.completion_tokens)
                tokens, cost = tokens + reply_tokens, cost + reply_cost
                value = self.accept(index, reply.text(self.allow_cut_off))
                return Answer(index, attempt, value, text or "", reply.finish_reason, reply_tokens, reply.completion_tokens, reply_cost)
            except Rejected as error:
                self.rejected += 1
                reason, refused = str(error), isinstance(error, _Filtered)
            except _Unanswered as error:
                return Failure(index, attempt, str(error), text, tokens, cost, error.refused)
        return Failure(index, self.settings.reply_attempts, reason, text, tokens, cost, refused)

    def _request(self, index: int, attempt: int) -> _Request:
        s = self.settings
        return _Request(
            base_url=s.base_url,
            model=s.model,
            messages=list(self.prompts[index]),
            temperature=RETRY_TEMPERATURE if attempt > 1 and s.temperature == 0 else s.temperature,
            max_tokens=s.max_tokens,
            max_tokens_field=s.max_tokens_field,
            extra_body=s.extra_body,
            seed=None if s.seed is None else s.seed + attempt - 1,
            attempt=attempt,
            response_format=self.response_format,
            repeat=self.repeat,
        )

    async def _reply(self, request: _Request) -> _Reply:
        """The reply from the cache, else from the server; then it is in the cache before anything else is done."""
        async with self.asking[request.key]:
            for form in request.forms():
                reply = self._cached(form)
                if reply is not None:
                    self.answering = True
                    self.replies_from_cache += 1
                    self.cached_prompt_tokens += reply.prompt_tokens
                    self.cached_completion_tokens += reply.completion_tokens
                    return reply
            return await self._send_as_taken(request)

    # ---- cache ----

    def _path(self, request: _Request) -> Path:
        return self.cache_dir / request.key[:2] / f"{request.key}.json"

    def _cached(self, request: _Request) -> _Reply | None:
        try:
            entry = _Entry.model_validate_json(self._path(request).read_bytes())
        except (OSError, ValidationError):  # not there, or cut short: it is asked for and written again
            return None
        return self._without_key(entry.reply) if entry.request == request else None

    def _keep(self, request: _Request, reply: _Reply) -> None:
        path = self._path(request)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # two processes may write the same reply
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(_Entry(request=request, reply=reply).model_dump_json(exclude_defaults=True), encoding="utf-8")
            os.replace(part, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise _Stop(f"{path}: a reply could not be written ({error.strerror}). Make room or check who may write there.") from None

    def _cost_of_cached_replies(self) -> float:
        paid: dict[str, float] = {}
        for index in range(len(self.prompts)):
            for attempt in range(1, self.settings.reply_attempts + 1):
                replies = {form.key: reply for form in self._request(index, attempt).forms() if (reply := self._cached(form))}
                if not replies:
                    break
                paid |= {key: self.settings.price(r.prompt_tokens, r.completion_tokens) for key, r in replies.items()}
        return sum(paid.values())

    def _cost_of_lost_replies(self) -> float:
        folder, attempts = self.ledger.path.parent, range(1, self.settings.reply_attempts + 1)
        if not any(folder.glob("*")):
            return 0.0
        requests = (self._request(index, attempt) for index in range(len(self.prompts)) for attempt in attempts)
        keys = {form.key for request in requests for form in request.forms()}
        return sum(self.settings.price(*tokens) for tokens in lost(folder, keys))

    # ---- server ----

    async def _send_as_taken(self, request: _Request) -> _Reply:
        """The server's reply to the request, or to the one without the format where it does not take that."""
        form, *without = request.forms()
        if without and self.takes_format is not False:
            try:
                reply = await self._send(form)
                self.takes_format = True
                return reply
            except _FormatRefused:
                reply = await self._send(without[0])
                self.takes_format = False
                logger.info("%s does not take `response_format`; it is asked without", self.server)
                return reply
        return await self._send(without[0] if without else form)

    async def _send(self, request: _Request) -> _Reply:
        """Try until the server replies. _Unanswered if it does not reply to this prompt, _Stop if it does to none."""
        tries = AsyncRetrying(
            retry=retry_if_exception_type(_TryAgain),
            stop=stop_after_attempt(self.settings.attempts),
            wait=self._wait,
            before_sleep=self._note_retry,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            reply = await self._until_it_ends(tries(self._send_once, request))
        except _Refused as error:
            if not self.answers_now:
                self.refused[json.dumps([[m.role, m.content] for m in request.messages])] = str(error)
                if await self._refuses_every_prompt():
                    raise self._refuses_all(str(error)) from None
            raise _Unanswered(f"the server does not take this prompt: {error}", refused=True) from None
        except _TryAgain as error:
            self.unanswered_in_a_row += 1
            reason = f"{error}, {self.settings.attempts} times"
            if error.hits_all or not self.answering or self.unanswered_in_a_row >= UNANSWERED_IN_A_ROW:
                raise _Stop(
                    f"{self.server} does not answer: {reason}. Check that it runs, its base_url and model, and "
                    f"whether `{self.name}.concurrency` is too high or `{self.name}.timeout_s` too short for it."
                ) from None
            raise _Unanswered(reason) from None
        self.answering, self.unanswered_in_a_row = True, 0
        return reply

    async def _until_it_ends(self, sending: Awaitable[_Reply]) -> _Reply:
        self.pending += 1
        try:
            reply = await sending
            self.answers_now = True
            return reply
        finally:
            self.pending -= 1
            self.settled.set()

    async def _refuses_every_prompt(self) -> bool:
        """Whether so many prompts are refused, and none answered, that it must be the server or the settings.

        A refusal comes faster than a reply, so that what is pending is waited for. A reply of an earlier call speaks for the settings;
        where more prompts are refused than were answered, it does not.
        """
        if len(self.refused) < REFUSED_BEFORE_ANY_ANSWER or len(self.refused) <= self._answered_earlier:
            return False
        while self.pending and not self.answers_now:
            self.settled.clear()
            await self.settled.wait()
        return not self.answers_now

    @functools.cached_property
    def _answered_earlier(self) -> int:
        """Prompts whose first reply is in the cache."""
        return sum(any(self._cached(form) for form in self._request(i, 1).forms()) for i in range(len(self.prompts)))

    def _refuses_all(self, reason: str) -> _Stop:
        return _Stop(f"{self.server} refuses the request: {reason}. Check `{self.name}.model` and the settings beside it.")

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        first = self.settings.backoff_s
        own = min(first * 2.0 ** (state.attempt_number - 1), LONGEST_BACKOFF) + random.uniform(0, first)
        return max(own, error.wait if isinstance(error, _TryAgain) else 0.0)

    def _note_retry(self, state: RetryCallState) -> None:
        self.retries += 1
        error = state.outcome.exception() if state.outcome else None
        logger.info("%s: %s; try %d in %.1f s", self.name, error, state.attempt_number + 1, state.upcoming_sleep)

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not on once the call is stopped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopped.wait()

    async def _send_once(self, request: _Request) -> _Reply:
        """One HTTP request; its reply is in the cache before anything else is done.

        Errors are raised anew without their cause, whose text may hold the key.
        """
        import httpx2
        import openai

        from swift_study.io.bounded_http import TooLong

        s = self.settings
        client = self._connect()
        most_tokens = request.most_prompt_tokens + self.most_above, request.max_tokens
        most = s.price(*most_tokens)
        await self._reserve(most)
        cost = 0.0
        noted = None
        try:
            if s.price(1, 1):
                with self._noting():
                    noted = self.ledger.reserve(request.key, *most_tokens)
            cost = most  # of a reply that does not arrive: the server may have written it, and charged for it
            self.requests_sent += 1
            async with asyncio.timeout(s.timeout_s):  # the library's own time-out starts anew with every byte
                response = await client.chat.completions.with_raw_response.create(
                    model=request.model,
                    messages=[{"role": m.role, "content": m.content} for m in request.messages],  # type: ignore[misc]
                    temperature=openai.omit if request.temperature is None else request.temperature,
                    seed=openai.omit if request.seed is None else request.seed,
                    response_format=openai.omit if request.response_format is None else request.response_format,  # type: ignore[arg-type]
                    extra_body={request.max_tokens_field: request.max_tokens, **request.extra_body},
                )
            reply = self._read(request, response.content)
            cost = s.price(reply.prompt_tokens, reply.completion_tokens)
            self._keep(request, reply)
            self._settle(noted)
        except openai.APIStatusError as error:
            answer = error.response
            if answer.status_code not in PERHAPS_CHARGED:
                cost = 0.0
                self._settle(noted)
            if request.response_format is not None and not self.takes_format and answer.status_code in REFUSES_FORMAT:
                raise _FormatRefused from None
            raise self._by_status(answer.status_code, answer.text, answer.headers) from None
        except TooLong as error:
            raise Rejected(f"{error}") from None
        except (TimeoutError, openai.APIConnectionError) as error:
            cause = error.__cause__
            if isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout)):
                cost = 0.0
                self._settle(noted)
                text = _line(self.without_key(str(cause))) or type(cause).__name__
                raise _TryAgain(f"it cannot be reached ({text})", hits_all=True) from None
            late = isinstance(error, (TimeoutError, openai.APITimeoutError))
            raise _TryAgain(f"no reply within {s.timeout_s:g} s" if late else "the connection broke off") from None
        finally:
            self.spent += cost
            self.reserved.remove(most)
            self.settled.set()
        self.most_above = max(self.most_above, reply.prompt_tokens - request.most_prompt_tokens)
        if reply.completion_tokens > request.max_tokens:
            raise _Stop(
                f"{self.server} counts {reply.completion_tokens} tokens in a reply that may have {request.max_tokens} (max_tokens): it "
                f"does not keep to the limit, so that no budget holds. Set `{self.name}.max_tokens_field` to the field that it takes."
            )
        return reply

    def _settle(self, noted: int | None) -> None:
        if noted is not None:
            with self._noting():
                self.ledger.settle(noted)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _Stop(
                f"{self.ledger.path}: what was sent could not be noted ({error.strerror or error}). Make room or check who may write there."
            ) from None

    def _connect(self) -> "openai.AsyncOpenAI":
        if self.stopped.is_set():
            raise _Stop("stopped")  # another worker has said why
        if self.client is None:
            import openai

            from swift_study.io.bounded_http import limited_to

            s = self.settings
            if not self.key and not s.is_local:
                raise _Stop(f"{self.name}: the environment variable {s.key_env} is not set. Put the key "
                            f"of {s.base_url} into it, or name another variable in `{self.name}.key_env`.")  # fmt: skip
            if not (self.key.isascii() and self.key.isprintable()):
                raise _Stop(f"{self.name}: the value of the environment variable {s.key_env} is not a key: it has "
                            "characters that cannot be sent, such as a line break. Set it again.")  # fmt: skip
            self.client = openai.AsyncOpenAI(
                api_key=self.key or "none",
                base_url=s.base_url,
                max_retries=0,
                timeout=openai.Timeout(s.timeout_s, connect=min(10.0, s.timeout_s / 2)),
                http_client=openai.DefaultAsyncHttpxClient(
                    trust_env=not s.is_local,  # a proxy of the environment does not lead to this machine
                    follow_redirects=False,  # prompts go nowhere but to this server
                    event_hooks={"response": [limited_to(LONGEST_BODY + BYTES_PER_TOKEN * s.max_tokens)]},
                ),
            )
        return self.client

    async def _reserve(self, most: float) -> None:
        """Set aside the most that a request can cost. Where that is too much, those in flight may turn out cheaper."""
        budget = self.settings.budget_usd
        while budget is not None and self.earlier + self.spent + sum(self.reserved) + most > budget:
            if not self.reserved:
                raise _Stop(
                    f"{self.name}: the budget is used up: {self.earlier + self.spent:.6f} of {budget:g} USD are spent"
                    + (f" ({self.earlier:.6f} of it by earlier runs)" if self.earlier else "")
                    + f", and the next request may cost up to {most:.6f} USD. Raise `{self.name}.budget_usd` to go on."
                )
            self.settled.clear()
            await self.settled.wait()
            self._connect()  # ends here if the call was stopped meanwhile
        self.reserved.append(most)

    def _read(self, request: _Request, content: bytes) -> _Reply:
        """The reply in a response's body. Rejected, and not kept, where the body is not a chat completion."""
        try:
            body = _Body.model_validate(json.loads(content.decode("utf-8-sig", "replace"), parse_int=_short_int))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Rejected(f"the response is not a chat completion: {where + ': ' if where else ''}{_line(first['msg'])}") from None
        except (ValueError, RecursionError) as error:  # not JSON, or nested too deeply
            raise Rejected(f"the response is not a chat completion: {_line(str(error))}") from None
        message = body.choices[0].message
        prompt_tokens, completion_tokens = body.count("prompt_tokens"), body.count("completion_tokens")
        estimated = prompt_tokens is None or completion_tokens is None
        if prompt_tokens is None:
            prompt_tokens = request.most_prompt_tokens
        if completion_tokens is None:
            said = (message.content, message.reasoning, message.refusal)
            completion_tokens = min(request.max_tokens, sum(len(whole_text(text or "").encode()) for text in said))
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.tokens_estimated |= estimated
        return self._without_key(
            _Reply(
                content=message.content,
                refusal=message.refusal,
                finish_reason=body.choices[0].finish_reason,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                tokens_estimated=estimated,
                reasoning=message.reasoning,
            )
        )

    def _by_status(self, status: int, text: str, headers: Any) -> Exception:
        """What an error status means: try again, give up this prompt, or stop."""
        said = f"status {status}" + (f" ({_line(self.without_key(text))})" if text.strip() else "")
        if status < 400:
            address = _line(self.without_key(_origin(headers.get("location", ""))))
            return _Stop(
                f"{self.server} sends requests on to {address or 'another address'} (status {status}): prompts are not sent there. "
                f"If it is the right server, write its address into `{self.name}.base_url`."
            )
        if status in (408, 409, 500):
            return _TryAgain(said, wait=_retry_after(headers.get("retry-after")))
        if status == 429 or status > 500:
            return _TryAgain(said, wait=_retry_after(headers.get("retry-after")), hits_all=True)
        if status in REFUSES_PROMPT:
            return _Refused(said)
        if status in (401, 403):  # what the server says is left out: some repeat a part of the key
            return _Stop(f"{self.server} refuses the key: status {status}. Check the environment variable {self.settings.key_env}.")
        if status == 404:
            return _Stop(f"{self.server} answers with {said}. Check `{self.name}.base_url` (it often ends in /v1) and `{self.name}.model`.")
        return self._refuses_all(said)

    def _without_key(self, reply: _Reply) -> _Reply:
        """Some servers repeat the request's headers; the key must not reach the cache or a dataset that way."""
        texts = {name: text for name in ("content", "refusal", "finish_reason", "reasoning") if (text := getattr(reply, name)) is not None}
        return reply.model_copy(update={name: self.without_key(whole_text(text)) for name, text in texts.items()})


def _short_int(digits: str) -> float:
    """A whole number of JSON; one of very many digits, which Python would refuse to read, is infinite."""
    return int(digits) if len(digits) < 100 else math.inf


def _origin(address: str) -> str:
    """Scheme, host and port of an address, without what else it may hold; empty where there is none."""
    try:
        parts = urlsplit(address)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}" if parts.hostname else ""
    except ValueError:
        return ""


def _line(text: str) -> str:
    """A stranger's text as a part of a sentence: one line, short, printable."""
    line = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return line if len(line) <= 300 else line[:300] + "…"


def _retry_after(value: str | None) -> float:
    """Seconds that the header asks to wait: it holds a number or a date."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)
