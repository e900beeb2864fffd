"""The evaluation set of the default: large enough, checkable, and of other tasks and queries than the base data."""

from tiny import ROOT

from swift_study.config import HELD_OUT, Config, FileSource
from swift_study.data.duplicates import nearest
from swift_study.data.sources import read_sources, split_panel, without_near_duplicates
from swift_study.examples import judge_by_key_points


def test_q_eval_has_200_checkable_queries_of_tasks_that_the_base_data_have_not() -> None:
    config = Config()
    sources = [s.model_copy(update={"path": str(ROOT / s.path)}) if isinstance(s, FileSource) else s for s in config.data.questions.sources]
    questions, analogues = split_panel(read_sources(sources), config.data.questions)
    assert len(questions) >= 200
    for question in questions:
        assert question.golden
        assert judge_by_key_points(question.golden, question.key_points)[0] == 1
        assert question.unsatisfactory
        assert judge_by_key_points(question.unsatisfactory, question.key_points)[0] == 0
    base = read_sources(config.data.base.sources)
    assert not {q.task for q in questions} & {e.task for e in base}
    assert {q.task for q in questions} > {family.replace("_", "-") for family in HELD_OUT}
    similarity, _ = nearest([q.query for q in questions], [e.query for e in base])
    assert similarity.max() < config.data.near_duplicate
    kept, left_out = without_near_duplicates(analogues, questions, config.data.near_duplicate)
    assert len(kept) + len(left_out) == len(analogues)
    assert len(kept) >= 180
    similarity, _ = nearest([e.query for e in kept], [q.query for q in questions])
    assert similarity.max() < config.data.near_duplicate
