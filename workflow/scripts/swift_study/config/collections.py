"""Collections: the files of ``studies/``, each with the data, runs and studies of one paper, and its own values at each scale.

All are read. What the user writes is laid over them, so that a study with its runs is one file, and a change of it is one line.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from swift_study.config.base import LAPTOP, NAME, nearest, short
from swift_study.config.load import load
from swift_study.config.root import Config
from swift_study.errors import UserError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C, where it is built, reads all files in a tenth of the time
# Sections that hold things by names of the user's: each name stands in one collection, and a null takes it out.
PATHS = ("path", "file", "claims", "labels", "responses", "instructions")  # keys that name a file
NAMED = ("datasets", "strategies", "designs", "selections", "models", "endpoints", "runs", "evaluations", "scorers", "studies")


@dataclass(frozen=True)
class Gathered:
    """What all files and the user say together."""

    values: dict[str, Any]
    """The values of the whole configuration, not yet checked."""
    studies: dict[str, list[str]]
    """By collection, the names of its studies that the user left in."""
    lacking: list[str]
    """Collections that say nothing of the scale; nothing of theirs is in ``values``."""

    def targets(self, studies: Iterable[str]) -> list[str]:
        """What can be asked for by name: studies, and collections, those too that have no values at this scale."""
        return list(dict.fromkeys([*studies, *(name for name, own in self.studies.items() if own), *self.lacking]))


def gather(values: Mapping[str, Any], folder: Path) -> Gathered:
    """The collections in ``folder`` at the scale that the values name, and the values laid over them.

    A collection without this scale is left out. UserError for a file that cannot be read or has an unknown section, for a name that
    two collections have, and for a scale that no collection has.
    """
    scale = values.get("scale", LAPTOP)
    if not isinstance(scale, str):
        return Gathered(dict(values), {}, [])  # `load` says what is wrong
    collections = read_collections(folder)
    at_scale = {name: laid for name, content in collections.items() if (laid := _at(content, scale)) is not None}
    lacking = [name for name in collections if name not in at_scale]
    if collections and not at_scale:
        known = [LAPTOP, *dict.fromkeys(s for content in collections.values() for s in content.get("at") or {})]
        raise UserError(f"scale: no collection in {folder} has values at the scale {short(scale)}{nearest(str(scale), known)}; known are "
                        f"{', '.join(known)}.")  # fmt: skip
    _check_names(at_scale, folder)
    whole: dict[str, Any] = {}
    for content in at_scale.values():
        whole = lay(whole, content)
    whole = lay(whole, values)
    _take_out(whole)
    left = whole.get("studies")
    if isinstance(left, Mapping) and not left:
        raise UserError("studies: there is none left; keep one, since all tables and verdicts are those of studies.")
    studies = {
        name: [s for s in content.get("studies") or {} if isinstance(left, Mapping) and s in left] for name, content in at_scale.items()
    }
    return Gathered(whole, studies, lacking)


def configure(values: Mapping[str, Any], folder: Path) -> Config:
    """The validated configuration: the collections in ``folder``, and the values laid over them. UserError as ``gather`` and ``load``."""
    return load(gather(values, folder).values)


def read_collections(folder: Path) -> dict[str, dict[str, Any]]:
    """The content of every YAML file in the folder, by the file's name. UserError names the file."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        if not NAME.fullmatch(path.stem):
            raise UserError(f"{path}: a collection's file is named in lower-case letters, digits and _, beginning with a letter.")
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: byte {error.object[error.start]:#04x} at position {error.start} is not UTF-8. Convert it.") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that is none
            raise UserError(f"{path}: this is not YAML: {' '.join(str(error).split())}.") from error
        if content is None:
            content = {}
        if not isinstance(content, dict) or not isinstance(content.get("at") or {}, dict):
            raise UserError(f"{path}: expected sections such as runs and studies, and under `at` their values at other scales.")
        found[path.stem] = _with_shipped_files(content, folder.parent)
    return found


def _with_shipped_files(value: Any, root: Path) -> Any:
    """The values with each file that comes with the collections, and not with the folder in which snakemake runs, by its whole path."""
    if isinstance(value, list):
        return [_with_shipped_files(below, root) for below in value]
    if not isinstance(value, dict):
        return value
    found = {key: _with_shipped_files(below, root) for key, below in value.items()}
    for key in PATHS:
        path = found.get(key)
        if isinstance(path, str) and path and not Path(path).exists() and (root / path).exists():
            found[key] = str(root / path)
    return found


def _at(content: Mapping[str, Any], scale: object) -> dict[str, Any] | None:
    """A collection's values at a scale; None where it has none."""
    plain = {section: entries for section, entries in content.items() if section != "at"}
    scales = content.get("at") or {}
    if scale in scales:
        return lay(plain, scales[scale] or {})
    return plain if scale == LAPTOP else None


def _check_names(collections: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    owners: dict[tuple[str, str], str] = {}
    for collection, content in collections.items():
        for section in NAMED:
            for name in content.get(section) or {}:
                other = owners.setdefault((section, name), collection)
                if other != collection:
                    files = f"{folder / other}.yaml and {folder / collection}.yaml"
                    raise UserError(f"{files} both have {section}.{name}. Rename one of the two: names are unique over all collections.")


def _take_out(whole: dict[str, Any]) -> None:
    """Take out what is null, and from agreements what stands in a study that is."""
    out = [name for name, study in (whole.get("studies") or {}).items() if study is None] if isinstance(whole.get("studies"), dict) else []
    for section in NAMED:
        if isinstance(whole.get(section), dict):
            whole[section] = {name: entry for name, entry in whole[section].items() if entry is not None}
    for name, study in list(whole["studies"].items()) if out else []:
        if isinstance(study, dict) and isinstance(study.get("items"), dict):
            whole["studies"][name] = study | {"items": _without(study["items"], out)}


def _without(items: Mapping[str, Any], studies: Collection[str]) -> dict[str, Any]:
    """An agreement's items without the places in these studies; what has another shape is left to `load`."""
    if not all(isinstance(places, dict) for group in items.values() if isinstance(group, dict) for places in group.values()):
        return dict(items)
    return {
        group: {
            item: {k: p for k, p in places.items() if not (isinstance(p, dict) and p.get("study") in studies)}
            for item, places in own.items()
        }
        if isinstance(own, dict)
        else own
        for group, own in items.items()
    }


def lay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values laid over others: key by key where both are mappings, else those of ``over``. Neither is changed."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = lay(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def chosen(wanted: Collection[str], gathered: Gathered, known: Collection[str]) -> Iterator[str]:
    """The studies that the key ``default`` means, in their order: those of the collections and studies it names, and the user's own.

    UserError for a name that is neither.
    """
    own = [study for study in known if not any(study in studies for studies in gathered.studies.values())]
    for name in dict.fromkeys([*wanted, *own]):
        if name in gathered.studies:
            yield from gathered.studies[name]
        elif name in known:
            yield name
        elif name in gathered.lacking:
            raise UserError(f"default: the collection {name!r} has no values at this scale. Add them under `at` in studies/{name}.yaml.")
        else:
            names = [*gathered.studies, *known]
            raise UserError(f"default: there is no collection or study {name!r}{nearest(name, names)}; known are {', '.join(names)}.")
