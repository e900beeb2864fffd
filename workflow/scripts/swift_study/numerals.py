r"""Text as tokens: numbers, words, spaces and single characters. Numbers are compared as numbers, exactly, as fractions.

A number is, in this order::

    number   = [sign] decimal [exponent | power | fraction]
    sign     = - − – ‐ ‑ ‒ +, with a currency sign behind it where there is one (-$5); not behind a letter, a digit or a closing
               bracket, where it divides (5-3, 3–5, COVID-19); a space behind it only after = ≈ ≤ ≥ : ( [ {,
               behind − also at the start of a line
    decimal  = 1080, 1.5, .5; 1,080.5 and 12,34,567 by commas; 1 080,5 and 1'080.5 by single spaces of any width, apostrophes
               or underscores; 1.234,5; 0,5
    exponent = e3, ×10^3, × 10³, *10**3, \times 10^{-3}, directly behind the decimal
    power    = ^3, ³, **3, ^{-3}
    fraction = /4, ÷ 4, behind a whole number also a proper part: 1 1/2, 1½, 1\frac{1}{2}

- A point alone is a decimal point: 1.080 is 1.08. A comma before exactly three digits divides thousands: 1,080 is 1080. Any other comma
  between two digits is a decimal comma (0,5; 0,500; 12,50), except within a row of them (1,080,3) or between
  two whole numbers in brackets ([0,5]): a list.
- Digits of every script count, so do ½ and 10³. ``1{,}080``, ``\,`` and ``\frac`` are read as LaTeX means them.
- Signs and letters behind a number are its unit, not a factor: 5%, 5 %, $5, 5kg and 3rd are 5, 5, 5, 5 and 3.
- No numbers are: digits within a word (H2O, v1.2, 0x1F, 5a3), month and day of 2024-05-01, rows of points (1.2.3),
  exponents and indices (x^2, m², x_1), what stands at a root, another power or π (√2, 2^x, 2π), and words (five, 五).
- A number of more than 1,000 digits, or that would have some thousands, and one divided by 0, is read but equals nothing.

Nothing is evaluated, and reading takes time in proportion to the text.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import regex

MAX_DIGITS = 1000
"""Of a number as it is written, and of its exponent's size."""

# Letters of scripts that put spaces between words: among these, digits belong to the word.
_LETTER = r"[\p{L}\p{M}--[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]]"
_OVER = "[/⁄∕÷]"
_SIGN = r"[\-‐‒–−˗➖+]"
_POWER = rf"(?:\ ?\^\ ?|\*\*)(?:\{{\ ?(?:{_SIGN}\ ?)?\d++\ ?\}}|\({_SIGN}?\d++\)|{_SIGN}?\d++)"
_TOKEN = regex.compile(
    rf"""
    # Month and day of an ISO date; its year is a number.
    (?<= (?<!\d)\d{{4}}[\-/] ) \d{{2}} (?= [\-/]\d{{2}}(?!\d) ) | (?<= (?<!\d)\d{{4}}[\-/]\d{{2}}[\-/] ) \d{{2}} (?!\d)
    | (?P<number>
      (?: (?: (?<= [=≈≤≥:(\[\{{] \ ? ) | (?m:^) (?=−) ) (?P<far>{_SIGN}) [ ]
        | (?<! {_LETTER} | [\d)\]\}}%]) (?P<sign>{_SIGN}) (?:[a-z]{{0,3}}+ \\? \p{{Sc}} \ ?)? )?
      (?>
        (?P<english> (?<! \d[,]) [1-9]\d{{0,2}}+ (?:,\d{{3}})++ (?!,?\d) (?:\.\d++)?+
                   | (?<! \d[,]) [1-9]\d?+ (?:,\d{{2}}(?!\d))++ ,\d{{3}} (?!,?\d) (?:\.\d++)?+ )
      | (?P<either> (?: (?<! \d['’_]) (?= \d++['’_]) | (?<! \d\ ) (?= \d++\ ) )
                    [1-9]\d{{0,2}}+ (?P<separator>['’_\ ])\d{{3}} (?:(?P=separator)\d{{3}})*+ (?!(?P=separator)?\d) (?:[.,]\d++)?+ )
      | (?P<comma> (?<! \d[.,]) (?: [1-9]\d{{0,2}}+ (?:\.\d{{3}})++ | \d++ ) , \d++ (?![.,]\d)
                   (?! (?<= (?: [(\[] | \\\{{ ) {_SIGN}? [\d,]++ ) (?: [)\]] | \\\}} ) ) )
      | (?P<point> \d++ (?:\.\d++)?+ | (?<! {_LETTER} | [\d.]) \.\d++ )
      )
      (?: e (?P<e> {_SIGN}? \d++ )
        | \ ? (?: [×x*·⋅∙] | \\times | \\cdot ) \ ? 10 (?P<ten> {_POWER} )
        | (?P<powers> (?: {_POWER} )++ )
        | (?= \ ?{_OVER} ) (?<! \d\ ?{_OVER}\ ?[\d.,]* ) (?: {_OVER} | \ {_OVER}\  )
          (?P<below> {_SIGN}? \d++ (?:,\d{{3}}(?!\d))*+ (?:\.\d++)?+ ) (?! \ ?{_OVER}\ ?\d )
        | (?<! [.,]\d* ) \  (?P<part> \d++ {_OVER} \d++ ) (?! {_OVER}\d )
      )?
      (?! \.?\d | \ ?\^ [ ({{]*+ {_SIGN}? (?: \d | [a-z](?![a-z]) | \\frac ) | {_LETTER}++ \d | \ ?(?: √ | \\sqrt | π | \\pi(?![a-z]) ) )
    )
    # No numbers of their own: exponents and roots, indices, codes such as 1.2.3 and 0x1F, digits of words.
    | (?: \^\ ? | (?<= [\p{{L}}\p{{M}})\]] ) \*\* | (?: √ | \\sqrt )\ ? ) [\{{(]? \ ? {_SIGN}? \d [\d.,]*+
    | (?<= [\p{{L}}\p{{M}}\d)\]}}] ) _ \{{? \d++
    | \d (?: \d | {_LETTER} )*+ (?: \.\d (?: \d | {_LETTER} )*+ )*+
    | {_LETTER} (?: {_LETTER} | \d )*+ (?: (?<=\d)\.\d++ )*+
    | \s++
    | .
    """,
    regex.VERBOSE | regex.DOTALL | regex.VERSION1,
)
_FRACTION_SIGN = regex.compile(r"(\d ?)?([¼-¾⅐-⅞↉]|(?<![⁰¹²³⁴-⁹])[⁰¹²³⁴-⁹]++[⁄/][₀-₉]+)")
_LATEX_FRACTION = regex.compile(
    rf"(\d ?)?\\[dtc]?frac(?:\s*\{{\s*({_SIGN}?[\d.,]+)\s*\}}|\s*(\d))(?:\s*\{{\s*({_SIGN}?[\d.,]+)\s*\}}|\s*(\d))(?=(\d)?)"
)
# Signs that NFKC leaves or makes part of a word, and marks without a width, which may stand between a minus and its number.
_SIGNS = str.maketrans({"٫": ".", "٬": ",", "٪": "%", "№": "no ", **dict.fromkeys("\u00ad\u200e\u200f\u061c\u2060\ufeff", "")})
_SIGNS |= dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "")


@dataclass(frozen=True)
class Number:
    """A number of a text. ``value`` is None where it is too large to be written out, or divided by 0."""

    text: str
    value: Fraction | None


Token = str | Number


def tokens(text: str) -> Iterator[Token]:
    """The text's tokens, in lower case and Unicode NFKC; each run of white space is one space."""
    for found in _TOKEN.finditer(_plain(text)):
        if found["number"]:
            yield Number(found[0], _value(found))
        else:
            yield " " if found[0].isspace() else found[0]


def sole_number(text: str, around: frozenset[str]) -> Fraction | None:
    """The number that is the whole text, but for spaces and tokens of ``around`` before and behind it; None where there is no such."""
    rest = [token for token in tokens(text) if token != " " and token not in around]
    if len(rest) == 1 and isinstance(rest[0], Number):
        return rest[0].value
    return None


def same_key(token: Token) -> str:
    """A text without line breaks that two tokens share if they are the same word or sign, or equal numbers."""
    if isinstance(token, Number) and token.value is not None:
        return f"#{token.value.numerator:x}/{token.value.denominator:x}"
    return token.text if isinstance(token, Number) else token


def _plain(text: str) -> str:
    # NFKC alone would make 10³ into 103, 1½ into 11⁄2 and 101₂ into 1012.
    text = _FRACTION_SIGN.sub(lambda found: (f"{found[1].strip()} " if found[1] else "") + unicodedata.normalize("NFKC", found[2]), text)
    text = regex.sub(r"(?<![\p{L}\p{M}⁰¹²³⁴-⁹⁺⁻])[⁺⁻]?[⁰¹²³⁴-⁹]+", r"^\g<0>", text)
    text = regex.sub(r"<sup>([-+−]?[0-9]+)</sup>", r"^\1", text)
    text = regex.sub(r"(?<=\d)[₀-₉]+", r"_\g<0>", text)
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).lower()
    text = regex.sub(r"[^\D0-9]", lambda found: str(unicodedata.decimal(found[0], found[0])), text)
    if "\\" in text or "{,}" in text:
        text = regex.sub(r"\{,\}", ",", text.replace("\\!", ""))
        text = regex.sub(r"(?<=\d)\\[,;: ](?=\d)", " ", text)
        text = _LATEX_FRACTION.sub(_as_typed, text)
    return text


def _as_typed(found: Any) -> str:
    before = f"{found[1].strip()} " if found[1] else ""
    return f"{before}{found[2] or found[3]}/{found[4] or found[5]}{' ' if found[6] else ''}"


def _value(found: Any) -> Fraction | None:
    if len(found[0]) > MAX_DIGITS:
        return None
    try:
        value = _decimal(found)
        if found["e"]:
            value *= _power(Fraction(10), found["e"])
        elif found["ten"]:
            value *= _power(Fraction(10), found["ten"])
        elif found["powers"]:
            value = _power(value, found["powers"])
        elif found["below"]:
            value /= _signed(found["below"].replace(",", ""))
        elif found["part"]:
            above, below = regex.split(_OVER, found["part"])
            value += Fraction(int(above), int(below))
    except (ArithmeticError, ValueError):
        return None
    return -value if (found["sign"] or found["far"] or "+") != "+" else value


def _decimal(found: Any) -> Fraction:
    written = found["english"] or found["either"] or found["comma"] or found["point"]
    comma = found["comma"] or (found["either"] and "," in written)
    whole, _, part = written.partition("," if comma else ".")
    whole = regex.sub(r"\D", "", whole)
    return Fraction(int(whole + part), 10 ** len(part))


def _signed(written: str) -> Fraction:
    return Fraction(("-" if regex.match(_SIGN, written) and written[0] != "+" else "") + written.lstrip("-‐‒–−˗➖+"))


def _power(base: Fraction, written: str) -> Fraction:
    """The base to the power written, such as ``^{-3}``. ArithmeticError where the result would be too long, or is one power on another."""
    (exponent,) = (int(_signed(part)) for part in regex.findall(rf"{_SIGN}?\d+", written))
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if size * abs(exponent) > 4 * MAX_DIGITS:
        raise OverflowError(f"{written} is too large")
    return base**exponent
