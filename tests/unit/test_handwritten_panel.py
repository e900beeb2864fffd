"""The hand-written example panel: complete, in order, consistent with its key points, and free of near-duplicates."""

import itertools
import json
import re
from pathlib import Path

import pytest

from swift_study.examples import Example, judge_by_key_points

PANEL = Path(__file__).resolve().parents[2] / "data" / "panel" / "handwritten.jsonl"
TASKS = [
    "logic-reasoning",
    "classification",
    "chinese-digit-conversion",
    "semantic-similarity",
    "error-correction",
    "chinese-word-formation",
    "controlled-text-edit",
    "paragraph-analysis",
    "summarization",
    "controlled-question-generation",
    "text-editing",
    "information-extraction",
]
COLUMNS = ["task", "messages", "rationale", "requirements", "key_points", "golden", "unsatisfactory"]
MAX_OVERLAP = 0.5  # largest allowed share of common tokens between two queries (Jaccard)

ROWS = [json.loads(line) for line in PANEL.read_text(encoding="utf-8").splitlines()]
EXAMPLES = [Example(**row) for row in ROWS]
every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.task}-{e.example_id[:6]}")


def tokens(text: str) -> set[str]:
    """Lower-case words, numbers and single Chinese characters."""
    return set(re.findall(r"[a-z]+|\d+|[\u4e00-\u9fff]", text.lower()))


def overlap(a: str, b: str) -> float:
    return len(tokens(a) & tokens(b)) / len(tokens(a) | tokens(b))


def capital_numeral(amount: int) -> str:
    """A whole amount of yuan in the capital numerals of cheques, written from the rules and not from the panel.

    The digits are read in sections of four (units, 万, 亿). Zeros between two other digits are read as a single 零;
    zeros at the end of a section are silent unless the next section begins with a zero.
    """
    if not 0 < amount < 10**12:
        raise ValueError(f"{amount} is out of range")
    result, zero_pending = "", False
    for power, section_name in ((10**8, "亿"), (10**4, "万"), (1, "")):
        section = amount // power % 10**4
        for place, place_name in ((1000, "仟"), (100, "佰"), (10, "拾"), (1, "")):
            digit = section // place % 10
            if digit == 0:
                zero_pending = bool(result)
                continue
            result += ("零" if zero_pending else "") + "零壹贰叁肆伍陆柒捌玖"[digit] + place_name
            zero_pending = False
        if section:
            result += section_name
            zero_pending = False
    return result + "元整"


def test_tasks_are_complete_and_in_the_order_of_the_table() -> None:
    assert [task for task, _ in itertools.groupby(EXAMPLES, key=lambda e: e.task)] == TASKS
    for task in TASKS:
        assert sum(e.task == task for e in EXAMPLES) >= 2, task


def test_rows_have_exactly_the_columns() -> None:
    for row in ROWS:
        assert list(row) == COLUMNS
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"]


def test_ids_are_unique() -> None:
    assert len({e.example_id for e in EXAMPLES}) == len(EXAMPLES)


@every_example
def test_golden_is_the_completion_and_is_judged_right(example: Example) -> None:
    assert example.golden is not None
    assert example.golden == example.completion
    assert judge_by_key_points(example.golden, example.key_points) == (1, "all key points are met")


@every_example
def test_unsatisfactory_is_judged_wrong(example: Example) -> None:
    assert example.unsatisfactory
    verdict, reason = judge_by_key_points(example.unsatisfactory, example.key_points)
    assert verdict == 0, reason


@every_example
def test_copying_the_query_is_judged_wrong(example: Example) -> None:
    assert judge_by_key_points(example.query, example.key_points)[0] == 0


@every_example
def test_key_points_and_requirements_are_usable(example: Example) -> None:
    assert 1 <= len(example.key_points) <= 4
    assert all(point.text.strip() and point.check is not None for point in example.key_points)
    assert 2 <= len(example.requirements) <= 4
    assert all(requirement.strip() for requirement in example.requirements)


@every_example
def test_rationale_has_no_conclusion(example: Example) -> None:
    assert example.rationale
    assert "so the answer is" not in example.rationale.lower()


def test_no_two_queries_are_near_duplicates() -> None:
    for a, b in itertools.combinations(EXAMPLES, 2):
        assert overlap(a.query, b.query) <= MAX_OVERLAP, (a.query, b.query)


@pytest.mark.parametrize(
    ("amount", "numeral"),
    [
        (3_894_544, "叁佰捌拾玖万肆仟伍佰肆拾肆元整"),
        (10, "壹拾元整"),
        (1_001, "壹仟零壹元整"),
        (50_300, "伍万零叁佰元整"),
        (100_000_001, "壹亿零壹元整"),
        (200_000, "贰拾万元整"),
    ],
)
def test_capital_numeral(amount: int, numeral: str) -> None:
    assert capital_numeral(amount) == numeral


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.task == "chinese-digit-conversion"])
def test_digit_conversion_agrees_with_an_independent_converter(example: Example) -> None:
    number = re.search(r"\d[\d,]*", example.query)
    assert number is not None
    assert example.golden == capital_numeral(int(number.group().replace(",", "")))
