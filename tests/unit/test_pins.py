"""The pins are the same everywhere."""

import re
from pathlib import Path

import yaml
from tiny import ROOT


def pins(path: Path) -> dict[str, str]:
    """Normalised package name and version of every ``name==version`` line."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[a-z,]+\])?==(\S+)$", path.read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


def test_cluster_environment_has_the_versions_of_the_lock_file() -> None:
    lock = pins(ROOT / "requirements.lock")
    environment = yaml.safe_load((ROOT / "envs" / "swift_study.yaml").read_text())
    listed = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    assert len(listed) > 10
    for line in listed:
        name, version = line.split("==")
        assert lock[name.lower().replace("_", "-")] == version, line


def test_the_image_is_made_from_the_lock_files_alone() -> None:
    recipe = (ROOT / "envs/swift_study.def").read_text()
    installed = re.findall(r"pip install (.*)", recipe)
    assert installed == [
        "--no-cache-dir -r /opt/swift-study/requirements.lock",
        "--no-cache-dir --no-deps -r /opt/swift-study/requirements-no-deps.lock",
    ]
    copied = re.findall(r"^    (\S+) /opt/swift-study/(\S+)$", recipe, re.MULTILINE)
    assert copied == [(name, name) for name in ("requirements.lock", "requirements-no-deps.lock") if (ROOT / name).is_file()]
    environment = yaml.safe_load((ROOT / "envs" / "swift_study.yaml").read_text())
    assert f"From: {environment['dependencies'][0].replace('=', ':')}-slim" in recipe
    assert 'container: "envs/swift_study.sif"' in (ROOT / "Snakefile").read_text()


def test_every_dependency_of_the_package_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = pins(ROOT / "requirements.lock")
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name = re.split(r"[\[><=]", line)[0].lower().replace("_", "-")
        assert name in lock, line


def test_nothing_that_fetches_model_weights_or_cuda_is_pinned() -> None:
    lock = pins(ROOT / "requirements.lock")
    assert not [name for name in lock if name.startswith("nvidia-") or name in ("torchvision", "torchaudio")]
