"""Tokens of a conversation against renderings written here, in Python, for each family of chat templates."""

import datetime
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts import run_script
from tiny import ROOT
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from swift_study.config import FileSource, Model
from swift_study.data.sources import read_sources
from swift_study.errors import UserError
from swift_study.examples import Example, Message
from swift_study.io.tables import write_examples
from swift_study.models.lengths import measure
from swift_study.models.rendering import Renderer, load_renderer

Turns = list[tuple[str, str]]
TEXT = [
    "The capital of Norway is Oslo, and the town lies at the end of a fjord.",
    "Which rivers of Spain reach the Atlantic? The Tagus, the Duero and the Minho do.",
    "user assistant system Instruction Response Question Answer think step by step: 4 + 5 = 9.",
]


def byte_level(special: list[str]) -> Tokenizer:
    """As of GPT-2, Llama-3 and Qwen: bytes, and pieces that begin with a space."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXT, BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    return tokenizer


def sentencepiece(special: list[str], legacy: bool = False) -> Tokenizer:
    """As of Llama-2, Gemma, Mistral and Phi-3: spaces are ▁, and one stands in front of a text (with ``legacy`` of every part of it)."""
    tokenizer = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>"))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    pieces = ["<unk>", *special, *(f"<0x{b:02X}>" for b in range(256))]
    trainer = BpeTrainer(vocab_size=700, special_tokens=pieces, initial_alphabet=["▁"], show_progress=False)
    tokenizer.train_from_iterator([t.replace(" ", "▁") for t in TEXT], trainer)
    return tokenizer


@dataclass
class Family:
    """A family of templates: its Jinja text, the same in Python, and the tokens that belong to it."""

    template: str
    render: Callable[[Turns], str]
    end: str  # behind a completion, where generation stops
    eos: str  # the tokenizer's own end token
    special: list[str]
    make: Callable[[list[str]], Tokenizer] = byte_level
    bos: str | None = None
    adds_bos: bool = False
    system: bool = True
    kwargs: dict[str, Any] = field(default_factory=dict)

    def renderer(self, **settings: Any) -> Renderer:
        tokenizer = self.make(self.special)
        if self.adds_bos:
            assert self.bos is not None
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{self.bos} $A", special_tokens=[(self.bos, tokenizer.token_to_id(self.bos))]
            )
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=self.eos, bos_token=self.bos)
        fast.chat_template = self.template
        return Renderer(fast, Model(chat_template_kwargs=self.kwargs, **settings))


def chatml(turns: Turns, think: str = "") -> str:
    last = len(turns) - 1
    return "".join(f"<|im_start|>{role}\n{think if k == last else ''}{text}<|im_end|>\n" for k, (role, text) in enumerate(turns))


def llama2(turns: Turns) -> str:
    system, rest = (turns[0][1], turns[1:]) if turns[0][0] == "system" else (None, turns)
    text = ""
    for k, (role, content) in enumerate(rest):
        first = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system and k == 0 else ""
        text += f"<s>[INST] {first}{content} [/INST]" if role == "user" else f" {content} </s>"
    return text


def llama3(turns: Turns) -> str:
    head = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
    system = turns[0][1] if turns[0][0] == "system" else ""
    dated = f"Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n{system}"
    rest = turns[1:] if turns[0][0] == "system" else turns
    return "<|begin_of_text|>" + head.format("system", dated) + "".join(head.format(*turn) for turn in rest)


def gemma(turns: Turns) -> str:
    names = {"user": "user", "assistant": "model"}
    return "<bos>" + "".join(f"<start_of_turn>{names[role]}\n{text}<end_of_turn>\n" for role, text in turns)


def mistral(turns: Turns) -> str:
    return "<s>" + "".join(f"[INST] {text} [/INST]" if role == "user" else f" {text}</s>" for role, text in turns)


def phi3(turns: Turns) -> str:
    return "".join(f"<|{role}|>\n{text}<|end|>\n" for role, text in turns) + "<|endoftext|>"


def r1(turns: Turns) -> str:
    names = {"system": "", "user": "<｜User｜>", "assistant": "<｜Assistant｜>"}
    ends = {"assistant": "<｜end▁of▁sentence｜>"}
    return "<｜begin▁of▁sentence｜>" + "".join(f"{names[role]}{text}{ends.get(role, '')}" for role, text in turns)


def granite(turns: Turns) -> str:
    return "".join(f"<|start_of_role|>{role}<|end_of_role|>{text}<|end_of_text|>\n" for role, text in turns)


def alpaca(turns: Turns) -> str:
    names = {"system": "### Instruction:\n", "user": "### Instruction:\n", "assistant": "### Response:\n"}
    return "".join(f"{names[role]}{text}{'</s>' if role == 'assistant' else ''}\n\n" for role, text in turns)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}{% set content = m.content %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% set reasoning = '' %}"
    "{% if '</think>' in content %}{% set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.last %}<think>\n{{ reasoning }}\n</think>\n\n{% endif %}{{ content }}"
    "{% else %}{{ content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<｜User｜>{{ m.content }}"
    "{% else %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
# A system message is an instruction there, too.
ALPACA = yaml.safe_load((ROOT / "scales" / "7b.yaml").read_text())["model"]["chat_template"]
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = false %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{% if loop.first and system %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}{{ m.content.strip() }} [/INST]"
    "{% else %} {{ m.content.strip() }} {{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: {{ strftime_now('%d %b %Y') }}\n\n"
    "{{ system }}<|eot_id|>{% for m in rest %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% else %}{{ raise_exception('Only user and assistant roles!') }}"
    "{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
GRANITE = (
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HEADERS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
DEEPSEEK = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]
SP = ["<s>", "</s>"]
TURN = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
PHI = ["<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
ROLE = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"]


def legacy(special: list[str]) -> Tokenizer:
    return sentencepiece(special, legacy=True)


FAMILIES = {
    "ChatML": Family(CHATML, chatml, "<|im_end|>", "<|im_end|>", IM),
    "ChatML with marks": Family(MARKED, chatml, "<|im_end|>", "<|im_end|>", IM),
    "Llama-2": Family(LLAMA2, llama2, "</s>", "</s>", SP, sentencepiece, "<s>", adds_bos=True),
    "Llama-2, legacy": Family(LLAMA2, llama2, "</s>", "</s>", SP, legacy, "<s>", adds_bos=True),
    "Llama-3": Family(LLAMA3, llama3, "<|eot_id|>", "<|end_of_text|>", HEADERS, byte_level, "<|begin_of_text|>", adds_bos=True),
    "Gemma": Family(GEMMA, gemma, "<end_of_turn>", "<eos>", TURN, sentencepiece, "<bos>", adds_bos=True, system=False),
    "Mistral": Family(MISTRAL, mistral, "</s>", "</s>", SP, sentencepiece, "<s>", adds_bos=True, system=False),
    "Phi-3": Family(PHI3, phi3, "<|end|>", "<|endoftext|>", PHI, sentencepiece, "<s>"),
    "Qwen2.5 base": Family(CHATML, chatml, "<|im_end|>", "<|endoftext|>", IM),
    "Qwen3": Family(QWEN3, lambda turns: chatml(turns, "<think>\n\n</think>\n\n"), "<|im_end|>", "<|im_end|>", IM),
    "Qwen3 without thinking": Family(
        QWEN3, lambda turns: chatml(turns, "<think>\n\n</think>\n\n"), "<|im_end|>", "<|im_end|>", IM, kwargs={"enable_thinking": False}
    ),
    "R1": Family(R1, r1, DEEPSEEK[1], DEEPSEEK[1], DEEPSEEK, byte_level, DEEPSEEK[0], adds_bos=True),
    "Granite": Family(GRANITE, granite, "<|end_of_text|>", "<|end_of_text|>", ROLE),
    "Alpaca headings": Family(ALPACA, alpaca, "</s>", "</s>", ["</s>"]),
    "Alpaca headings, BOS by the tokenizer": Family(ALPACA, alpaca, "</s>", "</s>", SP, sentencepiece, "<s>", adds_bos=True),
}
CONVERSATIONS: dict[str, Turns] = {
    "one turn": [("user", "Capital of Norway?"), ("assistant", "Oslo, at the end of a fjord.")],
    "number": [("user", "What is 4 + 5?"), ("assistant", "9")],
    "turns": [("user", "Name a river."), ("assistant", "The Tagus"), ("user", "Another?"), ("assistant", "The Duero\nand the Minho")],
    "system": [("system", "Answer in one word."), ("user", "Capital of Norway?"), ("assistant", "Oslo")],
    "other script": [("user", "挪威的首都是哪里？"), ("assistant", "奥斯陆 🙂")],
}


def example(turns: Turns, task: str = "t") -> Example:
    return Example(task=task, messages=[Message.model_validate({"role": role, "content": text}) for role, text in turns])


def independent(family: Family, tokenizer: Any, turns: Turns) -> tuple[list[int], int, str]:
    """All tokens up to the end of the last turn, how many come before its labels, and the labels' text: by the text of the completion."""
    text = family.render(turns)
    adds = family.adds_bos and not text.startswith(family.bos or "")
    found = tokenizer(text, add_special_tokens=adds, return_offsets_mapping=True)
    # A turn begins with the completion; some templates write a space or, where they think, an empty block of reasoning before it.
    own = "<think>" if "<think>" in text and not family.kwargs else turns[-1][1]
    start = text.rindex(own)
    start -= text[start - 1] == " "
    end = text.index(family.end, text.rindex(turns[-1][1])) + len(family.end)
    ids = [i for i, (_, last) in zip(found["input_ids"], found["offset_mapping"], strict=True) if last <= end]
    before = sum(last <= start for _, last in found["offset_mapping"])
    return ids, before, text[start:end]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_and_labels_are_those_of_an_independent_rendering(name: str, conversation: str) -> None:
    family, turns = FAMILIES[name], CONVERSATIONS[conversation]
    renderer = family.renderer()
    if turns[0][0] == "system" and not family.system:
        with pytest.raises(UserError, match=r"refuses a conversation .*fold_system_message"):
            renderer.tokens(example(turns))
        return
    tokens = renderer.tokens(example(turns))
    ids, before, labels = independent(family, renderer.tokenizer, turns)
    assert renderer.tokenizer.convert_ids_to_tokens(tokens.ids) == renderer.tokenizer.convert_ids_to_tokens(ids)
    assert tokens.prompt_length == before
    assert renderer.tokenizer.decode(tokens.ids[before:]).strip() == labels.strip()
    assert renderer.prompt(example(turns)) == ids[:before]
    assert renderer.tokenizer.convert_tokens_to_ids(family.end) in renderer.end_ids
    if family.bos is not None:
        assert tokens.ids.count(renderer.tokenizer.bos_token_id) == max(family.adds_bos, family.render(turns).count(family.bos))


def test_reasoning_of_a_completion_stays_where_the_template_puts_it() -> None:
    turns = [("user", "What is 4 + 5?"), ("assistant", "<think>\n4 + 5 = 9.\n</think>\n\nThe answer is 9.")]
    renderer = FAMILIES["Qwen3"].renderer()
    tokens = renderer.tokens(example(turns))
    assert renderer.tokenizer.decode(tokens.ids[tokens.prompt_length :]) == turns[-1][1] + "<|im_end|>"
    with pytest.raises(UserError, match=r"asks for a response with .*</think>.*chat_template_kwargs"):
        FAMILIES["Qwen3 without thinking"].renderer().tokens(example(turns))


def test_a_template_that_opens_a_reasoning_block_for_generation_only_is_told_before_training() -> None:
    opening = R1.replace("<｜Assistant｜>{% endif %}", "<｜Assistant｜><think>\n{% endif %}")
    family = Family(opening, r1, DEEPSEEK[1], DEEPSEEK[1], DEEPSEEK, byte_level, DEEPSEEK[0])
    with pytest.raises(UserError, match=r"asks for a response with '.*<｜Assistant｜><think>\\n'.*Set model.chat_template_kwargs"):
        _ = family.renderer().end_ids


def test_a_template_that_takes_the_reasoning_out_of_a_completion_is_told() -> None:
    with pytest.raises(UserError, match=r"leaves out or changes a part of the completion"):
        FAMILIES["R1"].renderer().tokens(example([("user", "4 + 5?"), ("assistant", "<think>It is 9.</think>9")]))
    # Reasoning of an earlier turn is left out by such templates, as they mean to.
    FAMILIES["R1"].renderer().tokens(example([("user", "a"), ("assistant", "<think>b</think>c"), ("user", "d"), ("assistant", "e")]))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"), "the message of role 'system'"),
        (CHATML.replace("<|im_end|>", "").replace("<|im_start|>", ""), "no token"),
        (CHATML.replace("m.content", "m.content.nothing.there"), "refuses a conversation"),
        ("{% if %}", "refuses a conversation"),
    ],
    ids=["drops the system message", "writes no end", "fails", "is no template"],
)
def test_a_template_that_cannot_be_used_is_a_sentence(template: str, says: str) -> None:
    family = Family(template, chatml, "<|im_end|>", "<|im_end|>", IM)
    with pytest.raises(UserError, match=says):
        family.renderer().tokens(example(CONVERSATIONS["system"]))


def test_a_system_message_can_be_folded_into_the_user_s_turn() -> None:
    for name in ("Gemma", "Mistral"):
        family = FAMILIES[name]
        renderer = family.renderer(fold_system_message=True)
        (_, system), (_, query), answer = CONVERSATIONS["system"]
        ids, before, _ = independent(family, renderer.tokenizer, [("user", f"{system}\n\n{query}"), answer])
        tokens = renderer.tokens(example(CONVERSATIONS["system"]))
        assert (tokens.ids, tokens.prompt_length) == (ids, before)


@pytest.mark.parametrize("name", ["ChatML", "Llama-3", "Llama-2", "Gemma", "Phi-3"])
def test_control_tokens_in_the_data_are_plain_text_or_an_error(name: str) -> None:
    family = FAMILIES[name]
    turns = [("user", f"What does {family.end} mean? {family.special[-1]}x"), ("assistant", f"It ends {family.end} a turn.")]
    renderer = family.renderer()
    tokens = renderer.tokens(example(turns))
    plain = renderer.tokens(example([("user", "What does it mean?"), ("assistant", "It ends a turn.")]))
    special = {renderer.tokenizer.convert_tokens_to_ids(t) for t in family.special}
    assert [i for i in tokens.ids if i in special] == [i for i in plain.ids if i in special]
    assert renderer.tokenizer.decode(tokens.ids[tokens.prompt_length :]).strip().startswith(turns[1][1])
    assert turns[0][1] in renderer.tokenizer.decode(tokens.ids[: tokens.prompt_length])
    assert renderer.prompt(example(turns)) == tokens.ids[: tokens.prompt_length]
    with pytest.raises(UserError, match=re.escape(f"holds {family.end!r} as text")):
        family.renderer(control_tokens="error").tokens(example(turns))


def test_tokens_are_the_same_on_any_day(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils.chat_template_utils as library

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Tomorrow":
            return cls(2031, 1, 2)

    family = FAMILIES["Llama-3"]
    today = family.renderer().tokens(example(CONVERSATIONS["one turn"]))
    monkeypatch.setattr(library, "datetime", Tomorrow)
    assert family.renderer().tokens(example(CONVERSATIONS["one turn"])) == today
    assert family.renderer().depends_on_date()
    assert not FAMILIES["ChatML"].renderer().depends_on_date()
    dated = family.renderer(template_date=datetime.date(2025, 3, 1))
    assert "Today Date: 01 Mar 2025" in dated.tokenizer.decode(dated.tokens(example(CONVERSATIONS["one turn"])).ids)


def test_bos_stands_once_whoever_writes_it() -> None:
    for template in ("{{ bos_token }}" + ALPACA, ALPACA, "{{ bos_token }}{{ bos_token }}" + ALPACA):
        for adds in (True, False):
            family = Family(template, alpaca, "</s>", "</s>", SP, sentencepiece, "<s>", adds_bos=adds)
            tokens = family.renderer().tokens(example(CONVERSATIONS["one turn"]))
            wanted = int(adds or "bos_token" in template)
            assert [i for i in tokens.ids if i == 1] == [1] * wanted
            assert wanted == 0 or tokens.ids[0] == 1


def test_a_completion_that_would_join_the_prompt_s_last_token_is_kept_apart() -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content + ('</s>' if m.role == 'assistant' else '') }}\n{% endfor %}"
    family = Family(template + "{% if add_generation_prompt %}assistant: {% endif %}", alpaca, "</s>", "</s>", ["</s>"])
    renderer = family.renderer()
    tokens = renderer.tokens(example([("user", "Where?"), ("assistant", "Norway")]))
    assert renderer.tokenizer.decode(tokens.ids[: tokens.prompt_length]) == "user: Where?\nassistant: "
    assert renderer.tokenizer.decode(tokens.ids[tokens.prompt_length :]) == "Norway</s>"


@pytest.mark.parametrize("name", ["ChatML", "Llama-2", "Llama-3"])
def test_generation_sees_the_cut_prompt_that_training_sees(name: str) -> None:
    turns = [("user", "Tell me about the rivers of Spain. " * 30), ("assistant", "The Tagus")]
    renderer = FAMILIES[name].renderer(max_length=40, overlong="truncate")
    whole, tokens = FAMILIES[name].renderer(max_length=5000).tokens(example(turns)), renderer.tokens(example(turns))
    assert len(tokens.ids) == 40
    assert tokens.n_completion == whole.n_completion
    assert renderer.prompt(example(turns)) == tokens.ids[: tokens.prompt_length]
    kept = int(FAMILIES[name].bos is not None)
    assert tokens.ids[:kept] == whole.ids[:kept]
    assert tokens.ids[kept:] == whole.ids[len(whole.ids) - 40 + kept :]


# ---- the packaged tokenizer, and the files ----


def changed(packaged: Path, folder: Path, **values: Any) -> Path:
    """A copy of the packaged tokenizer with other values in its configuration."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        if (packaged / name).is_file():
            (folder / name).write_bytes((packaged / name).read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | values))
    return folder


def test_the_end_is_the_template_s_own_whatever_the_tokenizer_calls_its_end(packaged: Path, tmp_path: Path) -> None:
    other = load_renderer(changed(packaged, tmp_path / "other", eos_token="<|endoftext|>"), Model())
    usual = load_renderer(packaged, Model())
    assert other.tokenizer.eos_token_id != usual.tokenizer.eos_token_id
    for turns in CONVERSATIONS.values():
        assert other.tokens(example(turns)) == usual.tokens(example(turns))
    assert usual.tokenizer.eos_token_id in other.end_ids


def test_padding_never_leaves_the_embedding(packaged: Path, tmp_path: Path) -> None:
    folder = changed(packaged, tmp_path / "padded", pad_token="<pad-of-ours>")
    renderer = load_renderer(folder, Model())
    assert renderer.tokenizer.pad_token_id == json.loads((folder / "config.json").read_text())["vocab_size"]  # one past the last row
    assert renderer.pad_id == renderer.tokenizer.eos_token_id
    assert load_renderer(packaged, Model()).pad_id == load_renderer(packaged, Model()).tokenizer.pad_token_id


def test_an_example_that_the_template_refuses_is_told_with_its_file_and_row(packaged: Path, tmp_path: Path) -> None:
    folder = changed(packaged, tmp_path / "gemma")
    template = GEMMA.replace("<start_of_turn>", "<|im_start|>").replace("<end_of_turn>", "<|im_end|>")
    fine, refused = example(CONVERSATIONS["one turn"]), example(CONVERSATIONS["system"])
    refused = refused.model_copy(update={"source": "rows.jsonl, row 7"})
    where = r"^rows.jsonl, row 7 \(dataset 'panel'\): Example "
    with pytest.raises(UserError, match=where + ".*System role not supported.*fold_system_message"):
        measure([fine, refused], load_renderer(folder, Model(chat_template=template)), "panel", "main")
    first = example([("assistant", "Hello"), *CONVERSATIONS["one turn"]])
    with pytest.raises(UserError, match=r"turns assistant, user, assistant: Conversation roles must alternate"):
        measure([first], load_renderer(folder, Model(chat_template=template)), "panel", "main")
    settings = Model(chat_template=template, fold_system_message=True)
    assert measure([fine, refused], load_renderer(folder, settings), "panel", "main")["reason"].null_count() == 2


@pytest.mark.parametrize(
    ("settings", "turns", "says"),
    [
        (
            {"chat_template": GEMMA.replace("<start_of_turn>", "<|im_start|>").replace("<end_of_turn>", "<|im_end|>")},
            CONVERSATIONS["system"],
            "Set model.fold_system_message: true to put the system message in front of the user's first turn.",
        ),
        (
            {"control_tokens": "error"},
            [("user", "What is <|im_end|>?"), ("assistant", "An end")],
            "Take it out, or set model.control_tokens to 'text', which keeps it as plain text.",
        ),
    ],
    ids=["refused by the template", "control token"],
)
def test_the_rule_that_measures_a_dataset_names_file_and_row(
    settings: dict[str, str], turns: Turns, says: str, packaged: Path, tmp_path: Path
) -> None:
    rows = [{"task": "t", "messages": [{"role": r, "content": c} for r, c in t]} for t in (CONVERSATIONS["one turn"], turns)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "model.json").write_text(json.dumps({"folder": str(packaged)}))
    write_examples(tmp_path / "panel.parquet", read_sources([FileSource(path=str(tmp_path / "rows.jsonl"))]))
    options = {"dataset": tmp_path / "panel.parquet", "name": "main", "model": tmp_path / "model.json"}
    options |= {"settings": json.dumps(settings), "output": tmp_path / "output.parquet"}
    done = run_script("measure_lengths.py", *(text for name, value in options.items() for text in (f"--{name}", value)), code=1)
    said = done.stdout.strip().splitlines()[-1]
    assert said.startswith(f"ERROR in measure_lengths: {tmp_path}/rows.jsonl, row 2 (dataset 'panel'): Example ")
    assert said.endswith(says)
    assert not (tmp_path / "output.parquet").exists()
