"""What each check of a key point accepts: a number is a number, a word is a word, and a pattern never hangs."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_study.data.generator import generate
from swift_study.errors import Rejected
from swift_study.examples import Example, KeyPoint, Message, judge_by_key_points

WITHIN = ["0.5", "-5", "−5", "–5", "5.7", "0,5 kg", "5,7 kg", "1,500", "5,000", "1 005", "5’000", "5e3", "1e5", "5×10^3", "-$5", "15", "55"]
WITHIN += ["5/8", "1/5", "5 / 8", "5½", "½5", r"\frac{5}{8}", r"5{,}000", "2^5", "5²", "x^5", "x₅", "x5", "1.2.5", "0x5", "5a1", "٥٥"]
WITHIN += ["√5", "5√2", "5π"]
ALONE = ["5", "5.", "5.0", "05", "+5", "５", "٥", "10/2", "5kg", "5%", "$5", "3–5", "(5)", "[4, 5]", "[4,5]", "x=5", "第5章", "5!", "50e-1"]
NO_NUMBERS = ["", "five", "5 apples", "3 of 4", "5-3", "-(5)", "2024-05-01", "1.2.3", "nan", "inf", "x", "10^10^9", "9" * 5000]


def point(check: str, value: str) -> KeyPoint:
    return KeyPoint.model_validate({"text": f"{check} {value}", "check": check, "value": value})


@pytest.mark.parametrize(
    ("value", "answer", "met"),
    [
        ("-5", "It is −5 degrees.", True),
        ("5", "It is −5 degrees.", False),
        ("4", "1/4", False),
        ("1/4", "It is ¼.", True),
        ("0.25", "1/4", True),
        ("1500", "1.5e3", True),
        ("3", "1.5e3", False),
        ("3", "1.5×10^3", False),
        ("1500", "about 1.5×10³ m", True),
        ("3", "x³", False),
        ("1080", r"\boxed{1{,}080}", True),
        ("80", r"\boxed{1{,}080}", False),
        ("1080", "1 080", True),
        ("1080", "1’080.", True),
        ("500", "1 500", False),
        ("5", "2 + 3 = 5.", True),
        ("5", "5, not 7", False),
        ("3", "5-3", True),
        ("-3", "5-3", False),
        ("5", "It is 5 (of 10^10^9).", False),
        ("5", "I cannot tell.", False),
        ("5", "It is 4,5", False),
        ("4.5", "It is 4,5", True),
        # The value may be written in the same ways.
        ("1,080", "1080", True),
        ("−5", "-5", True),
        ("$1,080.50", "1080.5", True),
        (r"\boxed{\frac{1}{4}}", "0.25", True),
        ("50%", "It is 50 percent, or 50", True),
        ("1e400", f"1{'0' * 400}", True),
        ("1e400", f"1{'0' * 399}1", False),
    ],
)
def test_number(value: str, answer: str, met: bool) -> None:
    assert point("number", value).is_met(answer) is met


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("check", ["number", "max_words", "min_words"])
def test_a_value_that_is_no_number_is_a_sentence(check: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{check} needs a number, not"):
        point(check, value)


@pytest.mark.parametrize("around", [("", ""), ("It is ", "."), ("(", ")"), ("**", "**"), ("$", "$"), ("答案是", "。")])
@pytest.mark.parametrize("text", WITHIN)
def test_a_number_is_not_part_of_another(text: str, around: tuple[str, str]) -> None:
    answer = f"{around[0]}{text}{around[1]}"
    assert point("contains", "5").is_met(answer) is False
    assert point("excludes", "5").is_met(answer) is True
    assert point("number", "5").is_met(answer) is False
    assert point("equals", "5").is_met(answer) is False
    assert point("contains", "5 apples").is_met(f"{text} apples") is False


@pytest.mark.parametrize("text", ALONE)
def test_a_number_is_met_wherever_it_stands_alone(text: str) -> None:
    for answer in (text, f"It is {text}", f"So, {text}, I think"):
        assert point("contains", "5").is_met(answer) is True
        assert point("excludes", "5").is_met(answer) is False


@pytest.mark.parametrize(
    ("value", "answer", "met"),
    [
        ("cat", "A cat.", True),
        ("cat", "concatenate", False),
        ("cat", "concaténate", False),
        ("cat", "catégorie", False),
        ("cat", "écat", False),
        ("été", "répété", False),
        ("été", "L’été, enfin", True),
        ("ÉTÉ", "l'e\u0301te\u0301", True),
        ("кот", "который", False),
        ("кот", "Это кот.", True),
        ("叁佰元整", "所以答案是：叁佰元整。", True),
        ("是", "答案是yes", True),
        ("yes", "答案是yes啊", True),
        ("1080 kg", "It weighs 1,080 kg.", True),
        ("x = 5", "so x = 5.7", False),
        ("5–7", "from 5–7 pm", True),
        ("a  b", "it says “A\nB”", True),
        ("c++", "in C++.", True),
        ("", "anything", True),
    ],
)
def test_contains_words_and_excludes_is_its_negation(value: str, answer: str, met: bool) -> None:
    assert point("contains", value).is_met(answer) is met
    assert point("excludes", value).is_met(answer) is not met


@pytest.mark.parametrize(
    ("value", "answer", "met"),
    [
        ("8", "8.0", True),
        ("1,080", "1080.", True),
        ("−5", "**-5**", True),
        ("1/2", "0.5", True),
        ("5", ".5", False),
        (".5", "0.5", True),
        ("$5", "5 €", False),
        ("5%", "5", False),
        ("['5.0']", "['5']", False),
        ("8", "It is 8", False),
        ("Yes", "“yes.”", True),
    ],
)
def test_equals_is_the_same_text_or_the_same_number(value: str, answer: str, met: bool) -> None:
    assert point("equals", value).is_met(answer) is met


def test_a_minus_is_a_minus_in_the_patterns_of_the_generator_too() -> None:
    for example in generate("complex_arithmetic", 30, 4):
        golden = example.golden or ""
        assert judge_by_key_points(golden.replace("-", "−"), example.key_points)[0] == 1, golden
        if golden[0] not in "-0":
            assert [judge_by_key_points(f"{minus}{golden}", example.key_points)[0] for minus in "-−–"] == [0, 0, 0], golden
    for example in generate("fraction_simplification", 10, 4):
        golden = example.golden or ""
        assert judge_by_key_points(golden.replace("/", "⁄"), example.key_points)[0] == 1
        assert [judge_by_key_points(f"{other}{golden}", example.key_points)[0] for other in ("-", "−", "3 ", "1", "0.")] == [0] * 5


@given(
    before=st.text(max_size=20),
    words=st.lists(st.from_regex(r"[a-zé]{1,8}|[0-9]{1,3}", fullmatch=True), min_size=1, max_size=4),
    end=st.sampled_from([".", "!", " x"]),
)
def test_words_between_spaces_are_always_found(before: str, words: list[str], end: str) -> None:
    text = " then ".join(words)
    assert point("contains", f"then {text} then").is_met(f"{before} : then {text} then{end}") is True
    assert point("contains", f"then {text} then").is_met(f"{before} : then {text} thenx") is False


# ---- patterns ----

SLOW = ["(a|a)*$", "(a|aa)+$", r"(a*)*(a*)*(a*)*\1$"]
HOSTILE = "a" * 20_000 + "!"


@pytest.mark.parametrize("pattern", ["(a+)+$", *SLOW])
def test_no_pattern_hangs(pattern: str) -> None:
    start = time.process_time()
    assert point("regex", pattern).is_met(HOSTILE) in (False, None)
    assert time.process_time() - start < 5


def test_a_pattern_that_takes_too_long_is_not_checked_and_named() -> None:
    slow, right, wrong = point("regex", SLOW[0]), point("contains", "a"), point("contains", "b")
    answer = "a a" + HOSTILE
    assert slow.is_met(answer) is None
    label, reason = judge_by_key_points(answer, [right, slow])
    assert label is None
    assert "'(a|a)*$'" in reason
    assert judge_by_key_points(answer, [slow, wrong]) == (0, "not met: contains b")


def test_an_example_whose_pattern_takes_too_long_is_rejected_by_evaluate() -> None:
    from tiny import ROOT

    from swift_study.data.strategies import load_strategy

    messages = [Message(role="user", content="q"), Message(role="assistant", content=HOSTILE)]
    example = Example(task="t", messages=messages, requirements=["r"], key_points=[point("regex", SLOW[0])])
    with pytest.raises(Rejected, match=r"\(a\|a\)"):
        load_strategy(ROOT / "strategies" / "evaluate.py").from_fields(example, None)


@pytest.mark.parametrize("pattern", ["(", "a{1000000000}", "(a{1000}){1000}", "(" * 3000 + ")" * 3000, "a" * 10_001, "(?<=a+)b", r"\p{L}"])
def test_a_pattern_that_does_not_compile_or_is_too_large_is_a_sentence(pattern: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match="does not compile: "):
        point("regex", pattern)
    assert time.process_time() - start < 2
