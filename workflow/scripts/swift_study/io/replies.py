"""What stands around the answer in a language model's reply: a reasoning block, a code fence.

A reasoning model writes its reasoning before the answer, within tags that differ between families. Only the answer may become
training text or a label. Every function here takes time linear in the length of the reply.
"""

import json
import re

from swift_study.errors import Rejected

# The tags of a block. The named group tells a tag that opens a block from one that closes it.
TAG = re.compile(
    r"<[|｜]?\s{0,2}(?P<think>/?)\s{0,2}(?:[a-z]{1,9}:|ant)?"  # DeepSeek, Qwen, GLM, EXAONE, Seed-OSS, ...
    r"(?:think|thinking|thoughts?|thought_process|reasoning)(?:\s[^<>]{0,64})?[|｜]?>"
    r"|\[(?P<magistral>/?)THINK\]"
    r"|[◁◀](?P<kimi>/?)think[▷▶]"
    r"|<\|(?P<command>START|END)_(?:THINKING|REASONING)\|>"
    r"|<\|(?P<sky>begin|end)_of_(?:thought|thinking)\|>"
    r"|<\|inner_(?P<apertus>pre|suf)fix\|>"
    r"|<(?P<gemma>\|channel>thought\b|channel\|>)",
    re.IGNORECASE,
)
OPENS = {"", "start", "begin", "pre", "|channel>thought"}  # what the named group holds in a tag that opens
# gpt-oss: <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>, also without its tokens.
FINAL_CHANNEL = re.compile(r"<\|channel\|>\s{0,8}final[^|]{0,40}(?:<\|constrain\|>[^|]{0,40})?<\|message\|>")
OTHER_CHANNEL = re.compile(r"(?:<\|start\|>\s{0,8}assistant\s{0,8})?<\|channel\|>\s{0,8}(?:analysis|commentary)")
ANSWER_BEGINS = ("<|START_RESPONSE|>", "<|begin_of_solution|>")
ANSWER_ENDS = ("<|END_RESPONSE|>", "<|end_of_solution|>", "<|return|>", "<|end|>")
UNCLOSED = "the reply's reasoning block is not closed"


def without_reasoning(reply: str) -> str:
    """The answer in a reply: what stands after its reasoning block. A reply without a block comes back as it is.

    A block begins with an opening tag at the start of the reply or of a line. Where the server left that tag to the prompt, the
    block begins with the reply. A reply that is one JSON value is all answer, whatever its strings say.
    Rejected where a block is not closed, where nothing follows it, or where nobody can tell which part is the answer.
    """
    text = reply.strip("\ufeff \t\r\n")
    if _is_json(text):
        return reply
    start, closed = _after_the_channels(text), 0  # where the answer begins; how many tags closed a block
    if start == 0:
        start, closed = _after_the_blocks(text)
        if not closed:
            return reply
    answer = text[start:].strip()
    for token in ANSWER_BEGINS:
        answer = answer.removeprefix(token)
    for token in ANSWER_ENDS:
        answer = answer.removesuffix(token)
    if not answer.strip():
        raise Rejected("the reply is empty: nothing follows its reasoning block")
    return answer.strip()


def _after_the_channels(text: str) -> int:
    """Where the final channel of gpt-oss begins; 0 where there are no channels."""
    final = [channel.end() for channel in FINAL_CHANNEL.finditer(text)]
    if final:
        return final[-1]
    if OTHER_CHANNEL.match(text):
        raise Rejected(UNCLOSED)
    bare = "assistantfinal"
    return text.rfind(bare) + len(bare) if text.startswith("analysis") and bare in text else 0


def _after_the_blocks(text: str) -> tuple[int, int]:
    """Where the text after the last block begins, and how many tags closed a block."""
    start = closed = 0
    opened = inner = 0  # blocks that are open; opening tags within their lines
    mentioned = False  # an opening tag within a line of the answer
    for tag in TAG.finditer(text):
        if (tag[tag.lastgroup or 0] or "").lower() in OPENS:
            before = text[max(start, tag.start() - 64) : tag.start()].rstrip(" \t>*_`#-")
            if before.endswith(("\n", "\r")) or not before:
                opened += 1
            elif opened:
                inner += 1
            else:
                mentioned = True
            continue
        if mentioned or (closed and not opened and not inner):  # this tag closes no block that was opened
            if _is_json(text[start:]):
                break  # it stands in a string of the answer
            if not _is_json(text[tag.end() :]):
                raise Rejected("the reply has reasoning tags within its answer, so that nobody can tell which part is the answer")
            return tag.end(), closed + 1
        if opened:
            opened -= 1
        elif inner:
            inner -= 1
        start, closed = tag.end(), closed + 1
    if opened:
        raise Rejected(UNCLOSED)
    return start, closed


def without_fence(text: str) -> str:
    """The text within a code fence that is the whole text; any other text as it is, without white space around it."""
    text = text.strip()
    if len(text) < 6 or not (text.startswith("```") and text.endswith("```")):
        return text
    inside = text[3:-3]
    return inside[4 * (inside[:4].lower() == "json") :].strip()


def _is_json(text: str) -> bool:
    """Whether the text, or what its code fence holds, is one JSON object or list."""
    text = without_fence(text)
    if not (text.startswith(("{", "[")) and text.endswith(("}", "]"))):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def whole_text(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which no file and no request can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
