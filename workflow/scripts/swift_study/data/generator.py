"""The built-in task generator: short tasks of the reasoning-gym library, each with reasoning that is known to be right.

reasoning-gym gives the item and its answer; the function of each family derives from the item's metadata our wording of the
query, the steps that lead to the answer, what a right answer must satisfy and a plausible wrong answer. Every answer is
scored by the library before it is used, so a slip here stops the run instead of becoming training data.
"""

import ast
import difflib
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

from swift_study.examples import Example, KeyPoint, Message

MAX_WORDS = 40
"""Of a query and of a rationale: every token costs time, so an item that needs more is left out."""

UNSUITED_WORDS = frozenset({"niggard"})
"""Words of the library's text (a story of 1889) that read as a slur today."""

DASHES = "‐‒–−-"
"""What may stand for a minus, within the brackets of a pattern."""

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Explanation:
    """What a family derives from one item of the library."""

    query: str
    rationale: str
    requirements: list[str]
    answer: int | str
    """A number, or a text that a response must give word for word."""
    unsatisfactory: int | str
    pattern: str = ""
    """The regular expression that a response must match instead."""
    what: str = ""
    """What the answer is, where that depends on the item."""

    def key_point(self, what: str) -> KeyPoint:
        check = "regex" if self.pattern else "number" if isinstance(self.answer, int) else "equals"
        text = f"{self.what or what}: {self.answer}" if check == "equals" else f"{self.what or what} is {self.answer}."
        return KeyPoint(text=text, check=check, value=self.pattern or str(self.answer))


@dataclass(frozen=True)
class Family:
    """A kind of task: how the items of the library's data set of this name are explained, and how hard it is set."""

    explain: Callable[[Item], Explanation | None]
    """None for an item that makes no good task, for example because it is ambiguous."""
    what: str
    """What the answer is."""
    config: dict[str, Any] = field(default_factory=dict)


def generate(family: str, count: int, seed: int) -> list[Example]:
    """``count`` examples of a family with distinct queries.

    The same arguments always give the same examples, and a smaller count gives the beginning of a larger one's list.
    """
    if family not in FAMILIES:
        near = difflib.get_close_matches(family.lower().replace("-", "_"), FAMILIES, n=1, cutoff=0)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"There is no task family {family!r}{hint} The families are: {', '.join(FAMILIES)}.")
    import reasoning_gym

    chosen = FAMILIES[family]
    # Enough draws to pass over repetitions and unfit items, yet an end for a family that has run dry.
    draws = 20 * count + 1000
    dataset = reasoning_gym.create_dataset(family, seed=_library_seed(family, seed), size=draws, **chosen.config)
    examples: dict[str, Example] = {}
    for index in range(draws):
        if len(examples) >= count:
            break
        item = dataset[index]
        explanation = chosen.explain(item)
        if explanation is None or explanation.query in examples:
            continue
        if max(len(explanation.query.split()), len(explanation.rationale.split())) > MAX_WORDS:
            continue
        if dataset.score_answer(str(explanation.answer), item) != 1.0:
            raise RuntimeError(
                f"The answer {explanation.answer!r} of family {family!r} to {explanation.query!r} is not the library's, "
                f"{item['answer']!r}: has reasoning-gym changed? requirements.lock holds the version that was tested."
            )
        examples[explanation.query] = _example(family, chosen.what, explanation)
    if len(examples) < count:
        raise ValueError(
            f"The task family {family!r} could give only {len(examples)} distinct examples with seed {seed}, "
            f"not the {count} asked for; ask for at most {len(examples)}, or take more families."
        )
    return list(examples.values())


def _library_seed(family: str, seed: int) -> int:
    # The library seeds item i with seed + i, so neighbouring seeds would share nearly all their items: spread them by a hash.
    return int.from_bytes(hashlib.blake2b(f"{family}:{seed}".encode(), digest_size=7).digest())


def _example(family: str, what: str, explanation: Explanation) -> Example:
    answer = str(explanation.answer)
    return Example(
        task=family.replace("_", "-"),
        messages=[Message(role="user", content=explanation.query), Message(role="assistant", content=answer)],
        rationale=explanation.rationale,
        requirements=explanation.requirements,
        key_points=[explanation.key_point(what)],
        golden=answer,
        unsatisfactory=str(explanation.unsatisfactory),
    )


# What several families share.


def _operand(value: int) -> str:
    """A number that follows an operator: a negative one in parentheses."""
    return f"({value})" if value < 0 else str(value)


def _prime_factors(number: int) -> list[int]:
    factors, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors + [number] * (number > 1)


def _day(day: date) -> str:
    # strftime("%B") would follow the locale.
    months = "January, February, March, April, May, June, July, August, September, October, November, December"
    return f"{day.day} {months.split(', ')[day.month - 1]} {day.year}"


# The families, each from the item's metadata.


def _basic_arithmetic(item: Item) -> Explanation:
    operators: dict[type[ast.operator], tuple[str, int]] = {ast.Add: ("+", 1), ast.Sub: ("-", 1), ast.Mult: ("*", 2)}
    steps: list[str] = []

    def work_out(node: ast.expr) -> tuple[str, int, int]:
        """The text of a part of the expression, its value and how tightly it binds; notes each step on the way."""
        if not isinstance(node, ast.BinOp):
            value = int(ast.literal_eval(node))
            return _operand(value), value, 3
        symbol, binds = operators[type(node.op)]
        left_text, left, left_binds = work_out(node.left)
        right_text, right, right_binds = work_out(node.right)
        value = {"+": left + right, "-": left - right, "*": left * right}[symbol]
        steps.append(f"{left} {symbol} {_operand(right)} = {value}")
        left_text = f"({left_text})" if left_binds < binds else left_text
        right_text = f"({right_text})" if right_binds <= binds else right_text
        return f"{left_text} {symbol} {right_text}", value, binds

    text, answer, _ = work_out(ast.parse(item["metadata"]["expression"], mode="eval").body)
    # The likely mistake: left to right, as if no operator bound more tightly than another.
    first, *rest = re.findall(r"(?:^|[-+*]) *\(*-?\d+", text.replace("(", "").replace(")", ""))
    careless = int(first)
    for part in rest:
        operand = int(part[1:])
        careless = {"+": careless + operand, "-": careless - operand, "*": careless * operand}[part[0]]
    return Explanation(
        query=f"Work out {text}.",
        rationale="Step by step: " + "; ".join(steps) + ".",
        requirements=[
            "Multiplication binds more tightly than addition and subtraction; parentheses come first.",
            "Give only the resulting integer.",
        ],
        answer=answer,
        unsatisfactory=careless if careless != answer else answer + 2,
    )


def _chain_sum(item: Item) -> Explanation:
    expression = item["metadata"]["expression"]
    first, *rest = re.findall(r"[-+]? ?\d+", expression)
    total = int(first)
    steps = []
    for part in rest:
        sign, term = part.split()
        result = total + int(term) if sign == "+" else total - int(term)
        steps.append(f"{total} {sign} {term} = {result}")
        total = result
    return Explanation(
        query=f"What is {expression}?",
        rationale="From left to right: " + "; then ".join(steps) + ".",
        requirements=["All terms count, each with its own sign.", "Give only the resulting integer."],
        answer=total,
        # A carry too many.
        unsatisfactory=total + 10,
    )


def _leg_counting(item: Item) -> Explanation:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    animals: dict[str, int] = item["metadata"]["animals"]
    legs = [count * ANIMALS[animal] for animal, count in animals.items()]
    steps = [f"{animal}: {count} * {ANIMALS[animal]} = {count * ANIMALS[animal]}" for animal, count in animals.items()]
    total, careless = sum(legs), 4 * sum(animals.values())
    return Explanation(
        query=f"How many legs in all: {', '.join(f'{count} × {animal}' for animal, count in animals.items())}?",
        rationale="; ".join(steps) + f". {' + '.join(map(str, legs))} = {total}.",
        requirements=[
            "Every animal named counts, with the number of legs its kind has.",
            "Give only the total as a number.",
        ],
        answer=total,
        # As if every animal had four.
        unsatisfactory=careless if careless != total else total + 4,
    )


def _gcd(item: Item) -> Explanation:
    first, second = item["metadata"]["numbers"]
    answer = math.gcd(first, second)
    shared = _prime_factors(answer)
    factored = [
        f"{number} is prime" if _prime_factors(number) == [number] else f"{number} = {' * '.join(map(str, _prime_factors(number)))}"
        for number in (first, second)
    ]
    match shared:
        case []:
            common, wrong = "they share no prime factor, which leaves 1", min(_prime_factors(first))
        case [prime]:
            common, wrong = f"the only prime factor they share is {prime}", 1
        case _:
            common, wrong = f"they share {' * '.join(map(str, shared))} = {answer}", min(shared)
    return Explanation(
        query=f"What is the greatest common divisor of {first} and {second}?",
        rationale=f"{factored[0]}; {factored[1]}; {common}.",
        requirements=[
            "The number must divide both numbers without remainder.",
            "No larger number may divide both.",
            "Give only the number.",
        ],
        answer=answer,
        unsatisfactory=wrong,
    )


def _fraction_simplification(item: Item) -> Explanation:
    numerator, denominator = item["metadata"]["numerator"], item["metadata"]["denominator"]
    steps, top, bottom = [], numerator, denominator
    for prime in _prime_factors(math.gcd(numerator, denominator)):
        top, bottom = top // prime, bottom // prime
        steps.append(f"by {prime} gives {top}/{bottom}")
    halfway = f"{numerator // prime}/{denominator // prime}" if len(steps) > 1 else f"{top}/{bottom + 1}"
    return Explanation(
        query=f"Simplify {numerator}/{denominator} to lowest terms.",
        rationale=f"Dividing both parts of {numerator}/{denominator} {', then '.join(steps)}; {top} and {bottom} share no factor.",
        requirements=[
            "The fraction must have the same value as the one given.",
            "Numerator and denominator may share no factor but 1.",
            "Give only the fraction, as numerator/denominator.",
        ],
        answer=f"{top}/{bottom}",
        unsatisfactory=halfway,
        pattern=rf"(?<![\d./{DASHES}])(?<!\d ){top} ?[/⁄∕] ?{bottom}(?![\d/]|\.\d)",
    )


def _complex_arithmetic(item: Item) -> Explanation:
    (a, b), (c, d) = ([int(part) for part in item["metadata"][name]] for name in ("num1", "num2"))
    operation = item["metadata"]["operation"]
    if operation == "*":
        real, imaginary = a * c - b * d, a * d + b * c
        # The likely mistake: i * i taken as 1.
        wrong = (a * c + b * d, imaginary)
        steps = (
            f"Real part, with i * i = -1: {a} * {_operand(c)} - {_operand(b)} * {_operand(d)} = {real}; "
            f"imaginary part: {a} * {_operand(d)} + {_operand(b)} * {_operand(c)} = {imaginary}."
        )
    else:
        sign = 1 if operation == "+" else -1
        real, imaginary = a + sign * c, b + sign * d
        # The likely mistake: the operation reaches only the real part.
        wrong = (real, b - sign * d)
        steps = f"Real part: {a} {operation} {_operand(c)} = {real}; imaginary part: {b} {operation} {_operand(d)} = {imaginary}."
    if wrong == (real, imaginary):
        wrong = (real + 1, imaginary)
    real_pattern = rf"[{DASHES}]{-real}" if real < 0 else str(real)
    sign_pattern = f"[{DASHES}]" if imaginary < 0 else r"\+"
    return Explanation(
        query=f"Compute ({_complex(a, b)}) {operation} ({_complex(c, d)}), where i is the imaginary unit.",
        rationale=steps,
        requirements=[
            "Real and imaginary part must both be right, with their signs.",
            "Give only the result, in the form a + bi or a - bi.",
        ],
        answer=_complex(real, imaginary),
        unsatisfactory=_complex(*wrong),
        pattern=rf"(?<![\d.{DASHES}]){real_pattern} ?{sign_pattern} ?{abs(imaginary)} ?i\b",
    )


def _complex(real: int, imaginary: int) -> str:
    return f"{real} {'-' if imaginary < 0 else '+'} {abs(imaginary)}i"


def _simple_equations(item: Item) -> Explanation | None:
    equation, name = item["metadata"]["equation"], item["metadata"]["variable"]
    # "98*e - 56 = 1218" or "56 - 98*e = -1218": in both, factor * name + constant = right.
    if match := re.fullmatch(rf"(\d+)\*{name} ([-+]) (\d+) = (-?\d+)", equation):
        factor, constant, right = int(match[1]), int(match[2] + match[3]), int(match[4])
    elif match := re.fullmatch(rf"(\d+) - (\d+)\*{name} = (-?\d+)", equation):
        factor, constant, right = -int(match[2]), int(match[1]), int(match[3])
    else:
        return None
    rest = right - constant
    answer = rest // factor
    move, sign = (f"Subtracting {constant}", "-") if constant > 0 else (f"Adding {-constant}", "+")
    careless = (right + constant) // factor
    return Explanation(
        query=f"Solve for {name}: {equation}",
        rationale=(
            f"{move} on both sides leaves {factor}*{name} with {right} {sign} {abs(constant)} = {rest}. "
            f"Dividing by {factor}: {rest} / {_operand(factor)} = {answer}."
        ),
        requirements=["The number must make both sides of the equation equal.", f"Give only the value of {name}."],
        answer=answer,
        # The constant taken to the other side without changing its sign.
        unsatisfactory=careless if careless * factor == right + constant and careless != answer else answer + 1,
        what=f"The value of {name}",
    )


def _count_bits(item: Item) -> Explanation:
    number = item["metadata"]["number"]
    bits = f"{number:b}"
    bits = bits.zfill(-(-len(bits) // 4) * 4)
    groups = [bits[start : start + 4] for start in range(0, len(bits), 4)]
    count, zeros = bits.count("1"), number.bit_length() - bits.count("1")
    return Explanation(
        query=f"How many bits are 1 in the binary form of {number}?",
        rationale=(
            f"In binary, by groups of four bits: {' '.join(groups)}. "
            f"Ones in each group: {' + '.join(str(group.count('1')) for group in groups)} = {count}."
        ),
        requirements=["Only the 1 bits count, not the 0 bits.", "Give only the count, as a decimal number."],
        answer=count,
        unsatisfactory=zeros if zeros != count else count + 1,
    )


def _simple_geometry(item: Item) -> Explanation | None:
    sides, known = item["metadata"]["n_sides"], [int(angle) for angle in item["metadata"]["known_angles"]]
    total = (sides - 2) * 180
    answer = total - sum(known)
    # The library also draws angles that would leave a last one no convex polygon has.
    if known != item["metadata"]["known_angles"] or not 0 < answer < 180:
        return None
    return Explanation(
        query=(
            f"A convex polygon with {sides} sides has the interior angles {', '.join(map(str, known))} degrees and one more. "
            "How many degrees is it?"
        ),
        rationale=(
            f"All angles together: ({sides} - 2) * 180 = {total}. Known: {' + '.join(map(str, known))} = {sum(known)}. "
            f"{total} - {sum(known)} = {answer}."
        ),
        requirements=[
            "With it, the interior angles must have the sum that the number of sides demands.",
            "Give only the number.",
        ],
        answer=answer,
        unsatisfactory=answer + 10 if answer < 170 else answer - 10,
    )


def _time_intervals(item: Item) -> Explanation | None:
    start, end = (datetime.fromisoformat(item["metadata"][name]).date() for name in ("start_time", "end_time"))
    days = (end - start).days
    if days == 0:
        return None
    if start.month == end.month:
        steps = f"Both days are in the same month, so the days of the month differ by {end.day} - {start.day} = {days}."
    else:
        last = date(end.year, end.month, 1) - timedelta(days=1)
        steps = (
            f"To the month's last day, {_day(last)}: {last.day} - {start.day} = {last.day - start.day} days. "
            f"On to {_day(end)}: {end.day} more. {last.day - start.day} + {end.day} = {days}."
        )
    return Explanation(
        query=f"How many days after {_day(start)} is {_day(end)}?",
        rationale=steps,
        requirements=[
            "Count from the first date to the second, without counting the first itself.",
            "Give only the number of days.",
        ],
        answer=days,
        # Both ends counted.
        unsatisfactory=days + 1,
    )


def _number_filtering(item: Item) -> Explanation | None:
    numbers, bound = item["metadata"]["original_numbers"], item["metadata"]["filter_value"]
    # Of equal values written differently ("-69", "-69.0") the library keeps only one spelling; "-0" would just confuse.
    if len({float(number) for number in numbers}) < len(numbers) or any(re.fullmatch(r"-0(\.0)?", n) for n in [bound, *numbers]):
        return None
    action, side = item["metadata"]["operation"].split("_")
    steps, kept = [], []
    for number in numbers:
        relation = "=" if float(number) == float(bound) else "<" if float(number) < float(bound) else ">"
        keep = (relation == (">" if side == "larger" else "<")) == (action == "keep")
        kept += [number] * keep
        steps.append(f"{number} {relation} {bound}: {'in' if keep else 'out'}")
    dropped = [number for number in numbers if number not in kept]
    return Explanation(
        query=f"{action.capitalize()} all numbers {side} than {bound}: {numbers}",
        rationale="; ".join(steps) + ".",
        requirements=[
            "Each number must be compared with the bound, signs included.",
            "Give only the numbers that remain, unchanged and in their order, in the notation of the list given.",
        ],
        answer=str(kept),
        # The wrong side of the bound.
        unsatisfactory=str(dropped),
    )


def _spiral_matrix(item: Item) -> Explanation | None:
    (a, b, c), (d, e, f), (g, h, i) = rows = item["metadata"]["matrix"]
    answer = " ".join(map(str, [a, b, c, f, i, h, g, d, e]))
    by_rows = " ".join(str(number) for row in rows for number in row)
    if answer == by_rows:
        return None
    return Explanation(
        query=f"Read this matrix as a spiral, clockwise from the top left: {' / '.join(' '.join(map(str, row)) for row in rows)}",
        rationale=f"Top row: {a} {b} {c}. Down the right: {f} {i}. Back along the bottom: {h} {g}. Up the left: {d}. Centre: {e}.",
        requirements=[
            "Every number of the matrix must stand exactly once, in the order of the spiral.",
            "Give only the numbers, divided by single spaces.",
        ],
        answer=answer,
        unsatisfactory=by_rows,
    )


def _letter_counting(item: Item) -> Explanation | None:
    letter, words = item["metadata"]["target_letter"], item["metadata"]["span"]
    # With an "ë" in the text it would be open what counts as an "e".
    if not (letter.isalpha() and "".join(words).isascii()) or UNSUITED_WORDS & {word.lower() for word in words}:
        return None
    found = [(word, word.lower().count(letter)) for word in words if letter in word.lower()]
    count = sum(times for _, times in found)
    if len(found) == 1:
        steps = f'The only word with "{letter}" is {found[0][0]}, which has it {count} time{"s" * (count > 1)}.'
    else:
        listed = ", ".join(f"{word} {times}" for word, times in found)
        steps = f'Words with "{letter}": {listed}. Together: {" + ".join(str(times) for _, times in found)} = {count}.'
    return Explanation(
        query=f'How often does the letter "{letter}", small or capital, occur in "{" ".join(words)}"?',
        rationale=steps,
        requirements=["Every occurrence in every word counts, small or capital.", "Give only the count as a number."],
        answer=count,
        unsatisfactory=count - 1 if count > 1 else 2,
    )


def _word_sorting(item: Item) -> Explanation | None:
    words, direction = item["metadata"]["transformed_words"], item["metadata"]["direction"]
    # The library sorts by code points, where "Z" comes before "a": only small letters make that the alphabetical order.
    if UNSUITED_WORDS & set(words) or not all(re.fullmatch("[a-z]+", word) for word in words):
        return None
    ordered = sorted(words, reverse=direction == "descending")
    steps = []
    for word, after in pairwise(ordered):
        place = next((k for k, (x, y) in enumerate(zip(word, after, strict=False)) if x != y), None)
        if place is None:
            steps.append(f"{word} before {after}: one begins the other")
        else:
            order = f"{word[place]} {'<' if word < after else '>'} {after[place]}"
            steps.append(f"{word} before {after}: {order}" + f" at letter {place + 1}" * (place > 0))
    answer = ", ".join(ordered)
    return Explanation(
        query=f"Sort in {'reverse ' * (direction == 'descending')}alphabetical order: {', '.join(words)}",
        rationale="; ".join(steps) + ".",
        requirements=[
            "All the words must be there, each once, in the order asked for.",
            "Give only the words, divided by a comma and a space.",
        ],
        answer=answer,
        # The other direction.
        unsatisfactory=", ".join(reversed(ordered)),
    )


def _word_sequence_reversal(item: Item) -> Explanation | None:
    words = item["metadata"]["words"]
    folded = [word.lower() for word in words]
    if len(set(folded)) < len(words) or UNSUITED_WORDS & set(folded):
        return None
    backward = words[::-1]
    ordinals = ["last", "second to last", "third to last", "fourth to last", "fifth to last"]
    steps = [f"{ordinal} {word}" for ordinal, word in zip(ordinals, backward[:-1], strict=False)]
    return Explanation(
        query=f"Reverse the order of these words: {', '.join(words)}",
        rationale=f"Going backward through the list: {', '.join(steps)}, and finally the first word, {words[0]}.",
        requirements=[
            "All the words must be there, unchanged, from the last to the first.",
            "Give only the words, divided by a comma and a space.",
        ],
        answer=", ".join(backward),
        # Only the ends changed over.
        unsatisfactory=", ".join([words[-1], *words[1:-1], words[0]]),
    )


def _needle_haystack(item: Item) -> Explanation | None:
    statements = item["question"].split("\n")[0].strip().removesuffix(".").split(". ")
    asked = item["metadata"]["question"].removeprefix("Who ").removesuffix("? Reply only with a name.")
    answer = item["answer"]
    place = [statement.endswith(f" {asked}") for statement in statements]
    others = [statement.split()[0] for statement in statements if statement.split()[0] != answer]
    # Ambiguous where two people do the same, and without a wrong name where all statements are about one.
    if sum(place) != 1 or not others:
        return None
    return Explanation(
        query=f"{'. '.join(statements)}. Who {asked}?",
        rationale=(
            f'Only statement {place.index(True) + 1} of {len(statements)} says "{asked}"; its subject is {answer}. '
            "The other statements say something else."
        ),
        requirements=["The person must be the one of whom the text says just this.", "Give only the name."],
        answer=answer,
        unsatisfactory=others[0],
    )


# Small numbers keep the reasoning short; the ranges are still wide enough that two seeds hardly ever share a query.
FAMILIES: dict[str, Family] = {
    "basic_arithmetic": Family(
        _basic_arithmetic,
        "The value",
        {"min_terms": 4, "max_terms": 4, "min_digits": 1, "max_digits": 1, "operators": ("+", "-", "*"), "allow_negation": False},
    ),
    "chain_sum": Family(_chain_sum, "The result", {"min_terms": 3, "max_terms": 4, "min_digits": 2, "max_digits": 3}),
    "leg_counting": Family(_leg_counting, "The total", {"min_animals": 3, "max_animals": 3, "max_instances": 15}),
    "gcd": Family(_gcd, "The greatest common divisor", {"min_value": 10, "max_value": 2000}),
    "fraction_simplification": Family(
        _fraction_simplification,
        "The fraction",
        {"min_value": 2, "max_value": 500, "min_factor": 2, "max_factor": 40, "styles": ("plain",)},
    ),
    "complex_arithmetic": Family(
        _complex_arithmetic,
        "The result",
        {
            "min_real": -30,
            "max_real": 30,
            "min_imag": -30,
            "max_imag": 30,
            "operations": ("+", "-", "*"),
            "operations_weights": [0.35, 0.35, 0.3],
        },
    ),
    "simple_equations": Family(
        _simple_equations, "", {"min_terms": 2, "max_terms": 2, "min_value": 2, "max_value": 99, "operators_weights": [0.5, 0.5, 0.0]}
    ),
    "count_bits": Family(_count_bits, "The number of 1 bits", {"min_n": 100_000, "max_n": 10_000_000}),
    "simple_geometry": Family(_simple_geometry, "The angle", {"min_sides": 4, "max_sides": 6}),
    "time_intervals": Family(_time_intervals, "The number of days", {"task_types": ["date"], "max_date_difference_days": 27}),
    "number_filtering": Family(_number_filtering, "The list that remains", {"min_numbers": 4, "max_numbers": 5, "max_decimals": 1}),
    "spiral_matrix": Family(_spiral_matrix, "The numbers in spiral order", {"min_n": 3, "max_n": 3}),
    "letter_counting": Family(_letter_counting, "The count", {"min_words": 4, "max_words": 12}),
    "word_sorting": Family(_word_sorting, "The words in order", {"min_words": 4, "max_words": 4}),
    "word_sequence_reversal": Family(_word_sequence_reversal, "The words in reverse", {"min_words": 4, "max_words": 6}),
    "needle_haystack": Family(_needle_haystack, "The name", {"min_num_statements": 3, "max_num_statements": 5}),
}
