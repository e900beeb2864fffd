"""Settings on their way from rules to scripts."""

import json
from typing import Any

import pytest
from configuration import configured
from pydantic import Field

from swift_study.config import Config, Gradients, Run, Section
from swift_study.io.endpoint import EndpointSettings
from swift_study.io.settings import CHANGES_NOTHING, changing_nothing, deciding, limits, read_settings, settings


class Inner(Section):
    seed: int = 1
    memory: int = Field(default=2, json_schema_extra=CHANGES_NOTHING)


class Whole(Section):
    name: str = "x"
    speed: int = Field(default=3, json_schema_extra=CHANGES_NOTHING)
    inner: Inner = Inner()
    maybe: Inner | None = None
    plain: dict[str, int] = Field(default={"memory": 5})


def test_each_field_stands_in_one_of_the_two() -> None:
    value = Whole(speed=7, maybe=Inner(memory=8))
    assert deciding(value) == {"name": "x", "inner": {"seed": 1}, "maybe": {"seed": 1}, "plain": {"memory": 5}}
    assert changing_nothing(value) == {"speed": 7, "inner": {"memory": 2}, "maybe": {"memory": 8}}
    assert changing_nothing(Whole()) == {"speed": 3, "inner": {"memory": 2}}


@pytest.mark.parametrize("value", [Whole(), Whole(speed=7, inner=Inner(seed=9, memory=8), maybe=Inner(memory=4)), Whole(plain={})])
def test_what_is_told_in_two_texts_is_read_as_one(value: Whole) -> None:
    class Told(Section):
        whole: Whole
        n: int

    told, left = settings(whole=value, n=3), limits(whole=value)
    assert read_settings(Told, told, left) == Told(whole=value, n=3)
    assert "speed" not in told
    assert json.loads(limits(whole=value, other=[1])) == {"whole": changing_nothing(value), "other": [1]}


def test_marked_are_speed_price_and_memory() -> None:
    config: Config = configured()
    assert set(changing_nothing(config.gradients)) == {"memory_gb", "host_memory_gb"}
    assert set(changing_nothing(config.run("base"))) == {"nodes", "resume_every"}
    assert set(changing_nothing(config.generation)) == {"batch_size"}
    endpoint = EndpointSettings(base_url="http://localhost:1/v1", model="m")
    assert set(changing_nothing(endpoint)) == {
        "key_env", "concurrency", "timeout_s", "attempts", "backoff_s", "budget_usd", "usd_per_million_prompt_tokens",
        "usd_per_million_completion_tokens",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [Run, Gradients])
def test_a_section_without_them_has_their_defaults(kind: type[Section]) -> None:
    value: Any = kind()
    assert kind.model_validate(deciding(value)) == value
