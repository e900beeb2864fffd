"""The whole workflow on a tiny model, in a copy of the repository that tests may edit."""

from pathlib import Path

import pytest
from checkout import Checkout, make_checkout


@pytest.fixture(scope="session")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with a finished run; its standard output is in ``first-run.txt``. Tests leave it finished."""
    checkout = make_checkout(tmp_path_factory.mktemp("finished") / "swift-study", tiny_model)
    done = checkout.snakemake()
    (checkout.root / "first-run.txt").write_text(done.stdout)
    return checkout
