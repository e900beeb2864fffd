"""Fixtures that several tests share."""

from pathlib import Path

import pytest
from tiny import ROOT, make_tiny_model


@pytest.fixture(scope="session")
def packaged() -> Path:
    """The packaged model as safetensors, from the cache of the repository."""
    from swift_study.models.loading import packaged_model

    return packaged_model(ROOT / ".cache")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Llama and the packaged model's tokenizer."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
