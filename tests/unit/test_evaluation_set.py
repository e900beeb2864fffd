"""The evaluation set of the default: large enough, checkable, and of other tasks and queries than the base data."""

from pathlib import Path

import pytest
from configuration import configured
from tiny import ROOT

from swift_study.data.duplicates import nearest
from swift_study.examples import judge_by_key_points
from swift_study.planning.data import PlannedData


def test_q_eval_has_200_checkable_queries_of_tasks_that_the_base_data_have_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    config = configured({"results": str(tmp_path)})
    data = PlannedData(config, None)
    questions, analogues, base = (data.examples(name) for name in ("questions", "questions.analogues", "base"))
    assert len(questions) >= 200
    for question in questions:
        assert question.golden
        assert judge_by_key_points(question.golden, question.key_points)[0] == 1
        assert question.unsatisfactory
        assert judge_by_key_points(question.unsatisfactory, question.key_points)[0] == 0
    assert not {q.task for q in questions} & {e.task for e in base}
    held_out = {family for source in config.datasets["questions"].sources if source.kind == "generator" for family in source.families or []}
    assert {q.task for q in questions} > {family.replace("_", "-") for family in held_out}
    for others in (base, analogues):
        similarity, _ = nearest([q.query for q in questions], [e.query for e in others])
        assert similarity.max() < config.near_duplicate
    assert len(analogues) >= 180
