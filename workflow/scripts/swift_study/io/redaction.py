"""Take a key out of a stranger's text, also where the text spells it in another way.

A server may repeat the request's headers in a reply or an error. The key is found as it is, in other case, with invisible or white
characters or backslashes between its characters, with characters written as escapes (``\\u0073``, ``%73``, ``&#115;``) or in full
width, and as a whole in Base64 or hexadecimal digits. A piece of the key counts where it is half of the key or more at either end.
"""

import base64
import re
from collections.abc import Callable

SHORTEST = 8  # characters; a shorter key is a local server's dummy, which may be an ordinary word
REDACTED = "[key]"
# Between two characters of a key: white space, control and invisible characters (Default_Ignorable_Code_Point), backslashes; and the
# usual ones of these as they are escaped.
BETWEEN = (
    r"(?:[\s\\\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffd\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    r"|(?<=\\)u(?:00[01][0-9a-f]|0020|00a[0d]|034f|061c|180[b-f]|20[0-6][0-9a-f]|3164|fe0[0-9a-f]|feff)|%(?:e2%80%8[b-f]|ef%bb%bf|c2%ad)"
    r"|&#(?:173|820[3-7]|65279);|&#x(?:ad|200[b-f]|feff);|&(?:zwn?j|shy|zerowidthspace);)*"
)


def redactor(key: str) -> Callable[[str], str]:
    """A function that puts ``[key]`` wherever a text holds the key (printable ASCII). It takes time linear in the text's length."""
    if len(key) < SHORTEST:
        return lambda text: text
    spellings = [_spellings(c) for c in key]
    half = max(SHORTEST, (len(key) + 1) // 2)
    head = BETWEEN.join(spellings[:half])
    whole = re.compile("|".join([head, BETWEEN.join(spellings[-half:]), *_encoded(key)]), re.IGNORECASE)
    start, further = re.compile(head, re.IGNORECASE), [re.compile(BETWEEN + s, re.IGNORECASE) for s in spellings[half:]]

    def redact(text: str) -> str:
        parts, done = [], 0
        while (found := whole.search(text, done)) is not None:
            end = found.end()
            if start.match(text, found.start()):  # the key's first half: take as much of the rest as follows
                for character in further:
                    more = character.match(text, end)
                    if more is None:
                        break
                    end = more.end()
            parts += [text[done : found.start()], REDACTED]
            done = end
        return "".join([*parts, text[done:]]) if done else text

    return redact


def _spellings(character: str) -> str:
    """A pattern of one character as it is, in full width, percent-encoded, or escaped as in JSON, a string literal or HTML."""
    codes = {ord(c) for c in (character.lower(), character.upper())}
    ways = {re.escape(chr(c)) for c in codes} | {re.escape(chr(c + 0xFEE0)) for c in codes}
    for c in codes:
        ways |= {rf"%(?:25)?{c:02x}", rf"u00{c:02x}", rf"u\{{0{{0,6}}{c:x}\}}", rf"x{c:02x}", rf"&#0{{0,6}}{c};", rf"&#x0{{0,6}}{c:x};"}
    return f"(?:{'|'.join(sorted(ways))})"


def _encoded(key: str) -> list[str]:
    """The key in Base64, whatever stands before it, and in hexadecimal digits: each as a pattern."""
    found = {re.escape(key.encode().hex())}
    for before in range(3):
        text = base64.b64encode(b"\0" * before + key.encode()).decode()
        # Characters that also hold bits of a neighbour are left out.
        first, last = (before * 8 + 5) // 6, (before + len(key)) * 8 // 6
        found |= {re.escape(text[first:last]), re.escape(text[first:last].replace("+", "-").replace("/", "_"))}
    return sorted(found)
