"""The task generator: what it says must be right, whatever the seed."""

import ast
import hashlib
import json
import operator
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from math import gcd
from pathlib import Path

import pytest
import reasoning_gym
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_study.data import generator
from swift_study.data.generator import FAMILIES, generate
from swift_study.examples import Example, judge_by_key_points

SEEDS = (0, 1, 12345)
SCRIPTS = Path(generator.__file__).parents[2]
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def evaluate(expression: str) -> float:
    """The value of a sum, difference, product or quotient, by this file's own means."""

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        assert isinstance(node, ast.Constant)
        return node.value

    return value(ast.parse(expression.strip(), mode="eval").body)


def equations(text: str) -> list[tuple[str, str]]:
    """Both sides of every equation between numbers in the text."""
    number = r"\(?-?\d+(?:\.\d+)?"
    term = rf"(?<![\w*]){number}(?:\)? [-+*/] {number})*\)?"
    return [pair for match in re.findall(rf"{term}(?: = {term})+", text) for pair in pairwise(match.split(" = "))]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def examples(family: str) -> list[Example]:
    return [example for seed in SEEDS for example in generate(family, 60, seed)]


def test_the_equations_of_a_text_are_found() -> None:
    assert equations("Real: -3 * (-4) - 2 = 10; x = 5. (4 - 2) * 180 = 360, 7 = 6") == [
        ("-3 * (-4) - 2", "10"),
        ("(4 - 2) * 180", "360"),
        ("7", "6"),
    ]


def test_there_are_enough_families() -> None:
    assert 14 <= len(FAMILIES) <= 16


def test_examples_are_well_formed_and_short(family: str, examples: list[Example]) -> None:
    for example in examples:
        assert example.task == family.replace("_", "-")
        assert [message.role for message in example.messages] == ["user", "assistant"]
        assert example.golden == example.completion
        assert 1 <= len(example.query.split()) <= 40
        assert 8 <= len((example.rationale or "").split()) <= 40
        assert len(example.completion.split()) <= 9
        assert 2 <= len(example.requirements) <= 3
        assert 1 <= len(example.key_points) <= 3
        assert all(point.check for point in example.key_points)
        assert "So the answer is" not in (example.rationale or "")
        assert not re.search(r"\b(?:None|nan)\b|  ", f"{example.query} {example.rationale} {example.golden}")


def test_requirements_do_not_give_the_answer_away(examples: list[Example]) -> None:
    # They are sentences for the whole family, so no item's answer can be in them.
    assert len({tuple(re.sub(r"of [a-z]\.", "of it.", text) for text in example.requirements) for example in examples}) == 1


def test_right_and_wrong_answers_are_judged_so(examples: list[Example]) -> None:
    for example in examples:
        assert judge_by_key_points(example.golden or "", example.key_points)[0] == 1, example
        assert judge_by_key_points(example.unsatisfactory or "", example.key_points)[0] == 0, example
        assert example.unsatisfactory


def test_a_right_answer_is_still_right_after_its_reasoning(family: str, examples: list[Example]) -> None:
    for example in examples:
        if all(point.check in ("number", "regex") for point in example.key_points):
            answer = f"{example.rationale} So the answer is {example.golden}."
            assert judge_by_key_points(answer, example.key_points)[0] == 1, example


def test_equations_in_the_rationale_are_true(family: str, examples: list[Example]) -> None:
    checked = 0
    for example in examples:
        for left, right in equations(example.rationale or ""):
            assert evaluate(left) == pytest.approx(evaluate(right), abs=1e-9), example.rationale
            checked += 1
        for left, sign, right in re.findall(r"(-?\d+(?:\.\d+)?) ([<>]) (-?\d+(?:\.\d+)?)", example.rationale or ""):
            assert (float(left) < float(right)) == (sign == "<")
            checked += 1
    # These have steps of another kind, which are checked below.
    wordy = {"fraction_simplification", "spiral_matrix", "word_sorting", "word_sequence_reversal", "needle_haystack"}
    assert checked >= (0 if family in wordy else len(examples) // 4)


def test_the_library_scores_every_golden_answer_with_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Looked up anew: which library item each query came from is noted while it is explained.
    items: dict[str, dict] = {}
    chosen = FAMILIES[family]

    def explain(item):
        explanation = chosen.explain(item)
        if explanation is not None:
            items.setdefault(explanation.query, item)
        return explanation

    monkeypatch.setitem(FAMILIES, family, replace(chosen, explain=explain))
    dataset = reasoning_gym.create_dataset(family, seed=0, size=1, **chosen.config)
    for example in generate(family, 40, 7):
        assert dataset.score_answer(example.golden, items[example.query]) == 1.0
        assert dataset.score_answer(example.unsatisfactory, items[example.query]) < 1.0


def test_six_hundred_distinct_examples_are_possible(family: str) -> None:
    examples = generate(family, 600, 0)
    assert len({example.query for example in examples}) == 600
    assert len({example.example_id for example in examples}) == 600
    other = generate(family, 100, 1)
    assert len({example.query for example in examples} & {example.query for example in other}) <= 2


@settings(max_examples=40, deadline=None)
@given(family=st.sampled_from(list(FAMILIES)), seed=st.integers(-(2**40), 2**40), few=st.integers(0, 8), more=st.integers(0, 8))
def test_fewer_examples_are_the_beginning_of_more(family: str, seed: int, few: int, more: int) -> None:
    longer = generate(family, few + more, seed)
    assert len(longer) == few + more
    assert generate(family, few, seed) == longer[:few]


def digest() -> str:
    texts = [example.model_dump_json() for family in FAMILIES for example in generate(family, 25, 3)]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_another_process_gives_the_same_examples(hash_seed: str) -> None:
    program = (
        "import hashlib, json\n"
        "from swift_study.data.generator import FAMILIES, generate\n"
        "texts = [example.model_dump_json() for family in FAMILIES for example in generate(family, 25, 3)]\n"
        "print(hashlib.sha256(json.dumps(texts).encode()).hexdigest())\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(SCRIPTS)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest()


# The reasoning of single families, checked by other means than it was made with.


def test_greatest_common_divisors() -> None:
    for example in generate("gcd", 100, 5):
        first, second = map(int, re.findall(r"\d+", example.query))
        assert gcd(first, second) == int(example.completion)
        for prime in re.findall(r"(\d+) is prime", example.rationale or ""):
            assert all(int(prime) % divisor for divisor in range(2, int(prime)))


def test_fractions_keep_their_value_at_each_step() -> None:
    for example in generate("fraction_simplification", 100, 5):
        fractions = re.findall(r"(\d+)/(\d+)", f"{example.query} {example.rationale} {example.completion}")
        top, bottom = map(int, fractions[-1])
        assert gcd(top, bottom) == 1
        assert all(int(a) * bottom == int(b) * top for a, b in fractions)
        *_, (a, b) = re.findall(r"(\d+)/(\d+)", example.rationale or "")
        assert (int(a), int(b)) == (top, bottom)


def test_complex_numbers() -> None:
    for example in generate("complex_arithmetic", 100, 5):
        first, sign, second = re.search(r"(\(.*?\)) ([-+*]) (\(.*?\)),", example.query).groups()
        one, two, answer = (complex(re.sub(r"[() ]", "", text).replace("i", "j")) for text in (first, second, example.completion))
        assert {"+": one + two, "-": one - two, "*": one * two}[sign] == answer


def test_equations_are_solved() -> None:
    for example in generate("simple_equations", 100, 5):
        name, left, right = re.fullmatch(r"Solve for (\w): (.*) = (.*)", example.query).groups()
        assert evaluate(re.sub(rf"\b{name}\b", f"({example.completion})", left)) == int(right)


def test_bits_are_grouped_without_loss() -> None:
    for example in generate("count_bits", 100, 5):
        number = int(re.findall(r"\d+", example.query)[-1])
        groups = re.search(r"bits: ([01 ]+)\.", example.rationale)[1].split()
        assert all(len(group) == 4 for group in groups)
        assert int("".join(groups), 2) == number
        assert number.bit_count() == int(example.completion)


def test_words_are_compared_rightly() -> None:
    for example in generate("word_sorting", 150, 5):
        words = example.query.split(": ")[1].split(", ")
        downward = "reverse" in example.query
        assert example.completion == ", ".join(sorted(words, reverse=downward))
        for step in (example.rationale or "").rstrip(".").split("; "):
            if match := re.fullmatch(r"(\w+) before (\w+): (\w) ([<>]) (\w)(?: at letter (\d+))?", step):
                place = int(match[6] or 1) - 1
                assert match[1][:place] == match[2][:place]
                assert (match[1][place], match[2][place]) == (match[3], match[5])
                assert match[4] == (">" if downward else "<")
                assert (match[3] < match[5]) == (match[4] == "<")
            else:
                one, other = re.fullmatch(r"(\w+) before (\w+): one begins the other", step).groups()
                assert one.startswith(other) if downward else other.startswith(one)


def test_letters_are_counted() -> None:
    for example in generate("letter_counting", 150, 5):
        letter, text = re.fullmatch(r'How often does the letter "(.)", small or capital, occur in "(.*)"\?', example.query).groups()
        assert sum(character in (letter, letter.upper()) for character in text) == int(example.completion)
        for word, times in re.findall(r"(\w+) (\d+)(?=[,.])", (example.rationale or "").split("Together")[0]):
            assert word.lower().count(letter) == int(times)


def test_word_lists_are_reversed() -> None:
    for example in generate("word_sequence_reversal", 60, 5):
        words = example.query.split(": ")[1].split(", ")
        assert example.completion.split(", ") == words[::-1]
        steps = re.findall(r"(?:list:|to) last (\w+),", example.rationale or "")
        assert [*steps, re.search(r"first word, (\w+)\.$", example.rationale)[1]] == words[::-1]


def test_matrices_are_read_as_spirals() -> None:
    for example in generate("spiral_matrix", 60, 5):
        rows = [row.split() for row in example.query.split(": ")[1].split(" / ")]
        spiral = []
        while rows:
            spiral += rows.pop(0)
            rows = [list(column) for column in zip(*rows, strict=True)][::-1]
        assert example.completion.split() == spiral
        assert re.findall(r"\d", example.rationale or "") == spiral


def test_needles_are_found_once() -> None:
    for example in generate("needle_haystack", 100, 5):
        *statements, question = example.query.split(". ")
        asked = question.removeprefix("Who ").removesuffix("?")
        assert [s.removesuffix(f" {asked}") for s in statements if s.endswith(f" {asked}")] == [example.completion]
        place = int(re.search(r"statement (\d+)", example.rationale)[1])
        assert statements[place - 1] == f"{example.completion} {asked}"


def test_dates_are_counted_over_months_and_leap_years() -> None:
    from datetime import datetime

    for example in generate("time_intervals", 150, 5):
        first, second = (datetime.strptime(text, "%d %B %Y") for text in re.findall(r"\d+ \w+ \d{4}", example.query))
        assert (second - first).days == int(example.completion)


# What is refused.


def test_an_unknown_family_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no task family 'leg-countin'; did you mean 'leg_counting'\? The families are: .*gcd"):
        generate("leg-countin", 1, 0)


def test_more_than_a_family_can_give_is_refused_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(FAMILIES["gcd"], config={"min_value": 4, "max_value": 5})
    monkeypatch.setitem(FAMILIES, "gcd", tiny)
    with pytest.raises(ValueError, match=r"'gcd' could give only [1-4] distinct examples with seed 0, not the 50 asked for"):
        generate("gcd", 50, 0)


def test_an_answer_that_is_not_the_librarys_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = FAMILIES["gcd"]

    def explain(item):
        return chosen.explain({**item, "metadata": {"numbers": [1999, 1999]}})

    monkeypatch.setitem(FAMILIES, "gcd", replace(chosen, explain=explain))
    with pytest.raises(RuntimeError, match="is not the library's"):
        generate("gcd", 1, 0)
