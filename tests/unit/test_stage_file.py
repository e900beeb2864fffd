"""DeepSpeed's JSON file of a ZeRO stage, which users may edit: what is wrong with it is a sentence."""

import json
from pathlib import Path

import pytest

from swift_study.errors import UserError
from swift_study.training.trainer import read_stage

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_files_of_the_project_are_read(stage: int) -> None:
    path = ROOT / "deepspeed" / f"zero-{stage}.json"
    assert read_stage(path) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "the DeepSpeed file cannot be read: No such file or directory"),
        (b"", "the DeepSpeed file is not JSON: Expecting value: line 1 column 1"),
        (b'{"zero_optimization": {"stage": 0}', "the DeepSpeed file is not JSON: Expecting ',' delimiter: line 1"),
        (b"\xff{}", "the DeepSpeed file is not JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"[" * 100_000, "the DeepSpeed file is not JSON: "),
        (b"{}", "expected a JSON object with the key zero_optimization, itself an object"),
        (b"[]", "expected a JSON object with the key zero_optimization, itself an object"),
        (b'{"zero_optimization": 2}', "expected a JSON object with the key zero_optimization, itself an object"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_that_is_none_is_a_sentence(content: bytes | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "zero-0.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_stage(path)
    assert str(caught.value).startswith(f"{path}: {told}")
