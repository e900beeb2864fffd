"""Numbers in texts: each spelling against the number that Python's own types, or the Unicode database, say it is."""

import sys
import time
import unicodedata
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from swift_study.numerals import Number, same_key, sole_number, tokens

MINUSES = "-−–‐‑‒－﹣˗"
SPACES = "\u0020\u00a0\u2009\u202f\u2007\u2008"


def numbers(text: str) -> list[Fraction | None]:
    return [token.value for token in tokens(text) if isinstance(token, Number)]


def fractions(*values: str) -> list[Fraction]:
    return [Fraction(value) for value in values]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("It is −5 degrees.", ["-5"]),
        ("x = - 5, y=-3", ["-5", "-3"]),
        ("(-5)", ["-5"]),
        ("− 5 degrees\n− 6\n- 7 apples", ["-5", "-6", "7"]),
        ("Answer: - 5 or : −5", ["-5", "-5"]),
        ("答案是-5。", ["-5"]),
        ("第5章", ["5"]),
        ("5-3 and 3–5", ["5", "3", "3", "5"]),
        ("5 - 3", ["5", "3"]),
        ("5 -3", ["5", "-3"]),
        ("2024-05-01 or 2024/05/01, 555-0142", ["2024", "2024", "555", "142"]),
        ("COVID-19, UTF-8", ["19", "8"]),
        ("Answer—5", ["5"]),
        ("1/4 or 3 / 4 or 5⁄8 or 1/-4", ["1/4", "3/4", "5/8", "-1/4"]),
        ("on 1/2/2024", ["1", "2", "2024"]),
        ("1 1/2 cups, -1 1/2, 10½", ["3/2", "-3/2", "21/2"]),
        (r"\frac{1}{4} -\dfrac14 2\frac{1}{2} \frac{-1}{4}", ["1/4", "-1/4", "5/2", "-1/4"]),
        (r"\frac 1 4, 1 ÷ 4, 10<sup>3</sup>, 1.5x10^3", ["1/4", "1/4", "1000", "1500"]),
        (r"5^\circ 5^{\circ} 5^{th} 5^\text{th}", ["5"] * 4),
        ("1.5e3 and 2E-2kg", ["1500", "1/50"]),
        (
            r"1.5×10^3, 1.5 × 10³, 1.5 x 10^{3}, 1.5*10**3, 1.5 \times 10^{-3}, 1.5\cdot10^3, 2·10⁻²",
            [*["1500"] * 4, "0.0015", "1500", "0.02"],
        ),
        ("10³ 2^10 2^-2 2**3", ["1000", "1024", "1/4", "8"]),
        ("1,080 12,34,567 1'080 1’080 1_080 1٬٠٨٠", ["1080", "1234567", "1080", "1080", "1080", "1080"]),
        (r"\boxed{1{,}080} $1,\!080$ 1\,080", ["1080"] * 3),
        ("1,080,000.25 | 1 080 000,25 | 1'080'000.25 | 1.080.000,25", ["1080000.25"] * 4),
        ("1, 080", ["1", "80"]),
        ("[1,080,3]", ["1", "80", "3"]),
        ("1\n080\t100", ["1", "80", "100"]),
        ("4567 123 456", ["4567", "123", "456"]),
        ("1.080", ["1.08"]),
        ("0,5 0,500 12,50", ["0.5", "0.5", "12.5"]),
        (r"[0,5] (3,4) \{1,2\} [-3,4] 5,6,7", ["0", "5", "3", "4", "1", "2", "-3", "4", "5", "6", "7"]),
        ("(1.500,2.5) 1,2.5 (1.5,2)", ["1.5", "2.5", "1", "2.5", "1.5", "2"]),
        (".5 -.5 No.5 ...5", ["0.5", "-0.5", "5", "5"]),
        ("5. 5, 5! (5) **5** 5%, 5 % 5\\% 5kg 3rd 5°", ["5"] * 9 + ["3", "5"]),
        ("$5 -$5 −$1,080.50 $-5$ \\(-5\\) -US$5 5€ £5", ["5", "-5", "-1080.5", "-5", "-5", "-5", "5", "5"]),
        ("٣ ५ １２ 𝟓 ①", ["3", "5", "12", "5", "1"]),
        ("5 m² and 5.¹", ["5", "5"]),
        ("1011₂ and 1011_2", ["1011", "1011"]),
        ("-0 +5 ±5", ["0", "5", "5"]),
        ("007 _5_ __6__ №7", ["7", "5", "6", "7"]),
        ("\u200e-\u200e5 \u2066−6\u2069 \ufeff7", ["-5", "-6", "7"]),
        ("1e400", ["1e400"]),
        ("H2O v1.2 A4 0x1F 2x3 1.2.3 192.168.0.1 x^2 (x)^2 m² x_1 x₁ 2^x 2^{n} 2^(n) √2 2√3 5π 2\\pi \\sqrt{2} five 五", []),
    ],
)
def test_numbers_of_a_text(text: str, values: list[str]) -> None:
    assert numbers(text) == fractions(*values)


ABSURD = ["10^10^9", "2^2^2^2", "9" * 10_000, "1e999999999", "1×10^999999999", "5/0", "0^-1", "\U00010d40", f"1/{'9' * 2000}"]


@pytest.mark.parametrize("text", ABSURD)
def test_a_number_of_absurd_size_is_one_without_a_value(text: str) -> None:
    start = time.process_time()
    assert numbers(f"Not 5 but {text}") == [5, None]
    assert sole_number(text, frozenset()) is None
    assert time.process_time() - start < 1


def test_every_fraction_sign_and_every_digit_of_unicode_has_its_value() -> None:
    for character in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(character) == "Nd":
            assert numbers(f"It is {character}.") == [unicodedata.digit(character)], hex(ord(character))
        if unicodedata.decomposition(character).startswith("<fraction>") and character != "⅟":
            exact = Fraction(unicodedata.numeric(character)).limit_denominator(20)
            assert numbers(f"{character} 3{character} -{character}") == [exact, 3 + exact, -exact], character


# ---- every spelling of a number is that number ----

WHOLE = st.integers(0, 10**12)
KINDS = ["plain", "grouped", "point", "comma", "grouped comma", "exponent", "power of ten", "fraction", "mixed", "latex"]
AROUND = [
    ("", ""),
    ("It is ", " degrees."),
    ("**", "**"),
    ("$", "$"),
    ("= ", "."),
    ("答案是", "。"),
    ("(", ")"),
    ("“", "”"),
    (r"\boxed{", "}"),
    ("~", "%"),
]


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, Fraction]:
    """A number without a sign, in one of the spellings of the grammar, and its value by Python's own types."""
    whole, digits = draw(WHOLE), draw(st.integers(1, 9999))
    grouped = f"{whole:,}"
    kind = draw(st.sampled_from(KINDS))
    match kind:
        case "plain":
            return str(whole), Fraction(whole)
        case "grouped":
            separator = draw(st.sampled_from([",", *SPACES, "'", "’", "_", "{,}", ",\\!", r"\,"]))
            return grouped.replace(",", separator), Fraction(whole)
        case "point":
            return f"{grouped}.{digits}", Fraction(Decimal(f"{whole}.{digits}"))
        case "comma":
            part = draw(st.sampled_from(["5", "05", "0005"])) if whole else f"{digits}"
            return f"{whole},{part}", Fraction(Decimal(f"{whole}.{part}"))
        case "grouped comma":
            grouped = f"{whole + 1000:,}"
            separator = draw(st.sampled_from([*SPACES, "'", "’", "."]))
            text = f"{grouped.replace(',', separator)},{digits}5"
            return text, Fraction(Decimal(f"{whole + 1000}.{digits}5"))
        case "exponent":
            text = f"{Decimal(whole) / 1000:{draw(st.sampled_from('eE'))}}"
            return text, Fraction(Decimal(text))
        case "power of ten":
            exponent = draw(st.integers(-20, 20))
            times = draw(st.sampled_from(["×", " × ", "*", " x ", "·", r"\times", r" \cdot "]))
            return f"{digits}{times}10^{{{exponent}}}", Fraction(digits) * Fraction(10) ** exponent
        case "fraction":
            return f"{whole}{draw(st.sampled_from(['/', ' / ', '⁄', '∕']))}{digits}", Fraction(whole, digits)
        case "mixed":
            part = digits % 98 + 1
            return f"{whole} {part}/{part + 1}", whole + Fraction(part, part + 1)
        case _:
            return rf"\frac{{{whole}}}{{{digits}}}", Fraction(whole, digits)


AROUND = [
    ("", ""),
    ("It is ", " degrees."),
    ("**", "**"),
    ("$", "$"),
    ("= ", "."),
    ("答案是", "。"),
    ("(", ")"),
    ("“", "”"),
    (r"\boxed{", "}"),
    ("~", "%"),
]


@settings(max_examples=400, deadline=None)
@given(spelling=spellings(), minus=st.sampled_from(["", *MINUSES]), around=st.sampled_from(AROUND))
def test_every_spelling_is_read_as_its_number(spelling: tuple[str, Fraction], minus: str, around: tuple[str, str]) -> None:
    text, value = spelling
    assume(not (around[0] == "(" and text.replace(",", "", 1).isdecimal()))  # (0,5) is a pair
    assert numbers(f"{around[0]}{minus}{text}{around[1]}") == [-value if minus else value]


@settings(max_examples=300, deadline=None)
@given(text=st.text() | st.text("0123456789.,-−/^e×½³² '\\{}$frac_x√π٣()[]", max_size=40))
@example(text="\xad")  # an invisible mark is no token
def test_any_text_is_read_and_in_order(text: str) -> None:
    read = list(tokens(text))
    assert all("\n" not in same_key(token) for token in read)
    letters = [t for t in (t.text if isinstance(t, Number) else t for t in read) if t != " "]
    assert letters or all(c.isspace() or unicodedata.category(c) == "Cf" for c in text.replace("\\!", ""))


PIECES = ["1", "1,", "1.", "1 ", "1,100,", "1/", "²", "½", "1,5", "1^", "^", "-", "1e", "1a", "a", "[1,5]", "(1,", "√", "1.100."]
PIECES += ["x_", "$-", "1 1/2 ", "=- ", "5 x 10^", "1'100'", "\\", " ", r"\frac{1}{"]


@pytest.mark.parametrize("piece", PIECES)
def test_hostile_text_is_read_in_proportion_to_its_length(piece: str) -> None:
    start = time.process_time()
    assert list(tokens(piece * (15_000 // len(piece)) + "x"))
    assert time.process_time() - start < 2
