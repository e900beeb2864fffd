"""Fixtures that several tests share."""

from collections.abc import Generator
from pathlib import Path

import pytest
from tiny import ROOT, make_tiny_model


@pytest.fixture(scope="session")
def packaged() -> Path:
    """The packaged model as safetensors, from the cache of the repository."""
    from swift_study.models import packaged_model

    return packaged_model(ROOT / ".cache")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Llama and the packaged model's tokenizer."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.hookimpl(wrapper=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Of several processes (-n), one makes all tests that share a finished run, and else all tests of a file."""
    for item in items:
        group = "finished" if "finished" in getattr(item, "fixturenames", ()) else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
    yield
