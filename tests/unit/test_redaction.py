"""A key is found in a stranger's text however it is spelled, and other text stays as it is."""

import base64
import html
import json
import time
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_study.io.redaction import redactor

KEY = "sk-canary-0123/456789abcdef"
SPELLED = {
    "as it is": KEY,
    "capitals": KEY.upper(),
    "mixed case": KEY.title(),
    "slash escaped": json.dumps(KEY)[1:-1].replace("/", "\\/"),
    "every character escaped": "".join(f"\\u{ord(c):04x}" for c in KEY),
    "escaped in capitals": "".join(f"\\u{ord(c):04X}" for c in KEY),
    "escaped twice": "".join(f"\\\\u{ord(c):04x}" for c in KEY),
    "some characters escaped": KEY.replace("a", "\\u0061"),
    "code points": "".join(f"\\u{{{ord(c):x}}}" for c in KEY),
    "string literal": "".join(f"\\x{ord(c):02x}" for c in KEY),
    "zero width": "\u200b".join(KEY),
    "other invisible characters": KEY.replace("n", "n\u2060\u00ad\ufeff\u200d\ufe0f\U000e0020"),
    "zero width, escaped": "\\u200b".join(KEY),
    "zero width, in a URL": "%E2%80%8B".join(KEY),
    "zero width, in HTML": "&#8203;".join(KEY),
    "NUL": "\0".join(KEY),
    "spaces": " ".join(KEY),
    "broken into lines": f"{KEY[:9]}\n    {KEY[9:]}",
    "URL": urllib.parse.quote(KEY, safe=""),
    "percent signs": "".join(f"%{ord(c):02X}" for c in KEY),
    "percent signs twice": "".join(f"%25{ord(c):02x}" for c in KEY),
    "HTML": "".join(f"&#{ord(c)};" for c in KEY),
    "HTML, hexadecimal": "".join(f"&#x{ord(c):X};" for c in KEY),
    "HTML by the library": html.escape(KEY),
    "full width": "".join(chr(ord(c) + 0xFEE0) for c in KEY),
    "hexadecimal": KEY.encode().hex(),
    "hexadecimal, capitals": KEY.encode().hex().upper(),
    "Base64": base64.b64encode(KEY.encode()).decode(),
    "Base64 for URLs": base64.urlsafe_b64encode(KEY.encode()).decode(),
    "most of it": KEY[:-4],
    "its first half": KEY[:14],
    "its last half": KEY[-14:],
}


@pytest.mark.parametrize("spelling", SPELLED)
def test_a_key_is_found_however_it_is_spelled(spelling: str) -> None:
    redact = redactor(KEY)
    assert redact(SPELLED[spelling]).strip("=\\&#x%u0") in ("[key]", "[key]Y", "[key]Zg")  # Base64 ends in bits of the last character
    assert redact(f"Your header is: {SPELLED[spelling]}; and again {SPELLED[spelling]}.").count("[key]") == 2


@pytest.mark.parametrize("prefix", ["Bearer "[:n] for n in range(8)] + ["Authorization: Bearer "])
def test_a_header_in_base64_does_not_hold_the_key(prefix: str) -> None:
    text = redactor(KEY)(base64.b64encode(f"{prefix}{KEY}, and more".encode()).decode())
    before, after = text.split("[key]")
    known = base64.b64decode(before[: len(before) // 4 * 4])
    assert b"canary" not in known
    assert len(before) <= (len(prefix) * 8 + 5) // 6 + 1
    assert len(after) <= 4 + (len(", and more") * 8 + 5) // 6


@given(st.text())
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redactor("qzj-9" * 5)(text) == text


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60), st.text(), st.text())
def test_any_key_is_found(key: str, before: str, after: str) -> None:
    redact = redactor(key)
    for spelled in (key, "\u200b".join(key), urllib.parse.quote(key, safe=""), json.dumps(key)[1:-1].replace("/", "\\/")):
        found = redact(f"{before} {spelled} {after}")
        assert "[key]" in found
        assert spelled not in found


def test_a_dummy_key_may_be_an_ordinary_word() -> None:
    assert redactor("none")("none of them") == "none of them"
    assert redactor("")("fine") == "fine"


def test_a_long_text_takes_no_long_time() -> None:
    redact = redactor(KEY)
    start = time.process_time()
    for text in ("s" + "\u200b" * 60_000, "s" * 60_000, KEY[:12] * 3000, ("s" + "\u200b" * 1000 + "k") * 60, "hello world " * 30_000):
        assert redact(text) == text
    assert time.process_time() - start < 3
