"""A tokenizer that is missing, cut or another model's is told by `find_model`, before anything is paid for."""

import json
import runpy
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import run_script

from swift_study.errors import UserError

SCRIPT = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "find_model.py"
FIND_MODEL = runpy.run_path(str(SCRIPT))


def cut(name: str, share: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return change


def written(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def with_a_small_vocabulary(folder: Path) -> None:
    """The model's configuration and weights have fewer tokens than the tokenizer, as where the tokenizer is another model's."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 1000}))


BROKEN = {
    "no tokenizer": without("tokenizer.json", "tokenizer_config.json"),
    "no tokenizer.json": without("tokenizer.json"),
    "empty": written("tokenizer.json", b""),
    "cut": cut("tokenizer.json", 0.5),
    "cut by a byte": cut("tokenizer.json", 0.9999999),
    "not JSON": written("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2104556\n"),
    "another JSON": written("tokenizer.json", b"{}"),
    "a list": written("tokenizer.json", b"[]"),
    "settings empty": written("tokenizer_config.json", b""),
    "settings cut": cut("tokenizer_config.json", 0.5),
    "settings a list": written("tokenizer_config.json", b"[1]"),
    "another model's": with_a_small_vocabulary,
}


def test_find_model_says_one_sentence_and_writes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    folder = broken("cut", tiny_model, tmp_path)
    given = ["--settings", json.dumps({"name": str(folder)}), "--cache", tmp_path / "cache", "--output", tmp_path / "model.json"]
    done = run_script("find_model.py", *given, cwd=tmp_path, code=1)
    assert done.stdout.startswith(f"ERROR in find_model: {folder}: the tokenizer could not be loaded")
    assert done.stdout.count("\n") == 1
    assert "unexpected" not in done.stdout
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_tokenizer_is_a_sentence_with_its_folder(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """By the script's own function, in this process: the libraries take seconds to import."""
    folder = broken(name, tiny_model, tmp_path)
    with pytest.raises(UserError) as caught:
        FIND_MODEL["main"](
            Namespace(settings=json.dumps({"name": str(folder)}), limits="{}", cache=str(tmp_path), output=str(tmp_path / "model.json"))
        )
    assert str(folder) in str(caught.value)
    assert "tokenizer" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.json").exists()


def broken(name: str, model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "a model"
    shutil.copytree(model, folder)
    BROKEN[name](folder)
    return folder
