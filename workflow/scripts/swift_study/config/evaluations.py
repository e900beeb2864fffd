"""Responses, and the audit of a judge."""

from typing import Self

from pydantic import Field, model_validator

from swift_study.config.base import FilePath, Section, Seed
from swift_study.io.endpoint import EndpointSettings


class Responses(Section):
    max_new_tokens: int = Field(default=32, ge=1, le=10**6)
    """Longest response."""
    batch_size: int = Field(default=64, ge=1)
    """Responses generated at once; the same ones for any value in float32."""
    temperature: float = Field(default=0.0, ge=0)
    """0 takes the likeliest token (greedy)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """With a temperature: only the likeliest tokens that together have this probability."""
    seed: Seed = 17
    """With a temperature: another seed, other responses."""
    stop: list[str] = []
    """Texts at which a response ends, beside the model's end token; they are cut off."""
    server: EndpointSettings | None = None
    """An OpenAI-compatible server that responds instead; `{run}` in its `model` stands for the run's name."""

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if "" in self.stop:
            raise ValueError("`stop` holds an empty text, which would end every response before it begins")
        if self.server is not None and self.top_p < 1:
            raise ValueError(f"top_p is {self.top_p}: it cannot be sent to a server. Set it to 1, or server to null")
        return self


class Audit(Section):
    labels: FilePath | None = None
    """Your labels: JSONL, Parquet or CSV with `query`, `response` and `label` (1 right, 0 not); null: right and wrong answers of Q_eval."""
    examples: int = Field(default=60, ge=2)
    """So many responses, at most, are judged for the audit, each twice; each one rightly judged wrong once more, with a hostile text."""
    reference: float = Field(default=0.87, ge=0, le=1)
    """The agreement that is shown beside: 87% in the paper, between its judge and people."""
