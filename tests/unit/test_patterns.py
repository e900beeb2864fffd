"""Bounded patterns mean what Python's `re` says."""

import json
import re
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from swift_study.config import Column, Columns, FileSource, Gradients
from swift_study.data.generator import FAMILIES, generate
from swift_study.data.sources import read_source
from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.models.weights import select_weights
from swift_study.patterns import DOTALL, IGNORECASE, MULTILINE, TooSlow, remove, search

ROOT = Path(__file__).resolve().parents[2]
FLAGS = re.MULTILINE | re.IGNORECASE


def span(match: "re.Match[str] | None") -> object:
    return match and (match.span(), match.groups())


def test_every_pattern_of_the_panel_and_the_generator_finds_what_re_finds() -> None:
    rows = (ROOT / "data" / "panel" / "handwritten.jsonl").read_text(encoding="utf-8").splitlines()
    examples = [Example(**json.loads(row)) for row in rows] + [e for f in FAMILIES for e in generate(f, 20, 3)]
    texts = [text for e in examples for text in (e.golden, e.unsatisfactory, e.query)]
    patterns = {p.value for e in examples for p in e.key_points if p.check == "regex"}
    assert len(patterns) > 100
    for pattern in patterns:
        for text in texts[::7]:
            assert span(search(pattern, text, MULTILINE | IGNORECASE)) == span(re.search(pattern, text, FLAGS)), (pattern, text)


ATOMS = ["a", "B", "é", "ß", "1", " ", ".", r"\w", r"\d", r"\s", r"\b", r"\.", "[a-c]", "[^b]", r"[\w.]", "^", "$", r"\A", r"\Z", "(?=a)"]
ATOMS += ["(?!b)", "(?<=a)", "(?<!a)", "{", "}", "{e}", "{i<=1}", "{,}", "{}", r"\{", "]", "-", "[&&a]", "[a||b]", "(?i:B)", "°"]
ATOMS += [r"\N{DEGREE SIGN}"]
TIMES = st.sampled_from(["", "", "", "?", "*", "+?", "{2}", "{1,2}", "{,1}"])


@settings(max_examples=400, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.sampled_from(ATOMS), TIMES), min_size=1, max_size=5),
    text=st.text("aBbé°ßs1 .\n{}-]e", max_size=12),
    grouped=st.booleans(),
)
def test_a_pattern_finds_what_re_finds(pieces: list[tuple[str, str]], text: str, grouped: bool) -> None:
    written = [f"({atom}){times}" if grouped else atom + times for atom, times in pieces]
    pattern = "|".join(written[:2]) + "".join(written[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected, rest = re.search(pattern, text, FLAGS), re.sub(pattern, "", text, flags=re.DOTALL)
        except re.error:
            assume(False)
    assert span(search(pattern, text, MULTILINE | IGNORECASE)) == span(expected), pattern
    assert remove(pattern, text, DOTALL) == rest, pattern


def test_a_search_and_a_removal_that_take_too_long_say_where() -> None:
    for function in (search, remove):
        with pytest.raises(TooSlow, match=r"^data\.jsonl, row 3: the regular expression '\(a\|a\)\*\$' was stopped after 1 s"):
            function("(a|a)*$", "a" * 5000 + "b", 0, "data.jsonl, row 3")


@pytest.mark.parametrize("key", ["pattern", "remove"])
def test_a_column_whose_pattern_takes_too_long_stops_with_file_and_row(key: str, tmp_path: Path) -> None:
    rows = [{"q": "fine", "a": "aaa"}, {"q": "slow", "a": "a" * 5000 + "b"}]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    column = Column.model_validate({"column": "a", key: "^((?:a|a)*)$" if key == "pattern" else "(?:a|a)+$"})
    columns = Columns(prompt="q", completion="a", rationale=column)
    with pytest.raises(UserError, match=r"data\.jsonl, row 2, column a: the regular expression .* was stopped after 1 s"):
        read_source(FileSource(path=str(path), task="t", columns=columns))


def test_a_pattern_of_weights_that_takes_too_long_is_named() -> None:
    model = torch.nn.Module()
    model.register_module("a" * 60, torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match=r"^gradients\.modules: the regular expression '\^\(a\|a\)\*\$' was stopped"):
        select_weights(model, "full", "^(a|a)*$")
    select_weights(model, "full", "a.weight$")
    assert [p.requires_grad for p in model.parameters()] == [True, False]


def test_patterns_of_the_configuration_that_are_too_large_are_refused_before_a_run() -> None:
    with pytest.raises(ValidationError, match=r"is not a regular expression: its length times its repetitions"):
        Column(column="a", remove="a{1000000000}")
    with pytest.raises(ValidationError, match=r"gradients.modules .* is not a regular expression: its length times"):
        Gradients(modules="(a{1000}){1000}")
