"""What a dataset's name says: what it is made from, whichever way."""

import pytest
from configuration import configured

from swift_study.config import lineage

GENERATOR = [{"kind": "generator", "per_family": 4}]
CONFIG = configured(
    {
        "datasets": {
            "masa": {"sources": GENERATOR, "split": {"train": 20, "dev": 0.1, "test": "rest"}, "exclude": ["panel"]},
            "small": {"sources": GENERATOR, "examples": 8},
        },
        "designs": {"inst_first": {"like": "plain"}},
    }
)


@pytest.mark.parametrize(
    ("dataset", "parents"),
    [
        ("panel", []),
        ("panel.analogues", []),
        ("masa.train", []),
        ("masa.train.inst_first", ["masa.train"]),
        ("panel.similar.cot", ["panel.similar"]),
        ("negative", ["candidates"]),
        ("positive_analogue", ["candidates.similar.clarify.revise"]),
        ("clarified", ["candidates.clarify"]),
    ],
)
def test_parents_are_the_datasets_that_hold_what_the_examples_were_made_from(dataset: str, parents: list[str]) -> None:
    assert lineage.parents(CONFIG, dataset) == parents
    assert lineage.is_loaded(CONFIG, dataset) is (not parents)


def test_ancestors_go_back_to_the_sources() -> None:
    found = lineage.ancestors(CONFIG, ["positive_analogue.paraphrase", "masa.train.inst_first.cot"])
    assert set(found) == {
        "positive_analogue", "candidates.similar.clarify.revise", "candidates.similar.clarify", "candidates.similar", "candidates",
        "masa.train.inst_first", "masa.train",
    }  # fmt: skip


def test_what_is_needed_comes_behind_what_it_is_made_from_and_a_selection_with_all_that_it_looks_at() -> None:
    found = lineage.needed(CONFIG, ["negative.evaluate", "base"])
    assert set(found) > {"candidates", "candidates.similar", "candidates.clarify", "candidates.clarify.revise", "negative", "base"}
    for dataset in found:
        assert all(found.index(parent) < found.index(dataset) for parent in lineage.parents(CONFIG, dataset))


def test_sizes_that_the_configuration_says() -> None:
    names = ("base", "small", "masa.train", "masa.dev", "masa.test", "masa", "panel", "small.cot", "negative")
    assert [lineage.size(CONFIG, name) for name in names] == [160, 8, 20, None, None, None, None, None, None]


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        ("mas.train", "unknown dataset 'mas.train' \\(did you mean 'masa'\\?\\)"),
        ("masa.trian", "unknown dataset 'masa.trian' \\(did you mean 'masa.train'\\?\\); behind 'masa' can stand train, dev, test, "),
        ("masa.cot.train", "unknown dataset 'masa.cot.train'"),  # a part comes first
        ("small.analogues", "unknown dataset 'small.analogues'"),  # it has none
        ("panel" + ".cot" * 60, "has 245 characters, more than 200"),
        ("", "unknown dataset ''"),
    ],
)
def test_a_name_that_is_none_is_refused(dataset: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        lineage.check_name(CONFIG, "here", dataset)
    lineage.check_name(CONFIG, "here", "masa.train.inst_first.cot")
