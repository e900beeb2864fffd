"""The default studies, runs and tables."""

from typing import Any

from swift_study.config.runs import Part, Run
from swift_study.config.studies import Prediction, References, Study, Validation, ValidationTable

POSITIVES_AND_NEGATIVES = {"Pos": "positive.similar", "Neg": "negative.similar"}
REFERENCES = References(
    ceiling={name: f"{dataset}.paraphrase" for name, dataset in POSITIVES_AND_NEGATIVES.items()}, floor="positive.similar.unrelated"
)


STUDIES = {
    "cot": Study(
        question="Can CoT training data improve generalization on non-CoT queries?",
        probes={"CoT": "panel.cot", "non-CoT": "panel"},
        targets={"non-CoT": "panel.similar"},
        references=References(ceiling={"non-CoT": "panel.similar.paraphrase"}, floor="panel.similar.unrelated"),
        baseline="non-CoT",
        figures={"figure1": ["in-task", "cross-task"]},
        caption="Swift study on CoT data (the paper's Figure 1).",
    ),
    "clarify": Study(
        question="Can query clarification data improve generalization on confused queries?",
        probes={"Clarify": "negative.clarify", "Pos": "positive"},
        targets=POSITIVES_AND_NEGATIVES,
        references=REFERENCES,
        baseline="Pos",
        unwanted=["Neg"],
        figures={"figure2a": ["in-task"], "figure2b": ["cross-task"]},
        caption="Swift study on query clarification data (the paper's Figure 2).",
    ),
    "evaluate": Study(
        question="Can response evaluation data improve generalization?",
        probes={"EvalPos": "positive.evaluate", "EvalNeg": "negative.evaluate", "Pos": "positive"},
        targets=POSITIVES_AND_NEGATIVES,
        references=REFERENCES,
        baseline="Pos",
        unwanted=["Neg"],
        figures={"figure3a": ["in-task"], "figure3b": ["cross-task"]},
        caption="Swift study on response evaluation data (the paper's Figure 3).",
    ),
}


def _mixture(*phases: str) -> Run:
    """A run on phases written like `base + base.cot`; at laptop scale 48 of the examples that a strategy makes are taken."""
    parts = [{name: Part(examples=None if name == "base" else 48) for name in phase.split(" + ")} for phase in phases]
    return Run(like="full_base", schedule=parts)


def _on(dataset: str, examples: int, like: str, **settings: Any) -> Run:
    return Run(like=like, schedule=[{dataset: Part(examples=examples)}], **settings)


RUNS = {
    "base": Run(export_second_moments=True),
    # Full-parameter runs: the base run, three more epochs from it on each D, and mixtures of the base data with what is made of them.
    "full_base": Run(
        like="base", method="full", learning_rate=3e-5, micro_batch_size=4, checkpoint_every=None, export_second_moments=False
    ),
    "in_pos": _on("questions.similar", 64, "full_base", start="full_base", epochs=3, learning_rate=1e-5, decay="constant", warmup_steps=0),
    "in_cot": _on("questions.similar.cot", 64, "in_pos"),
    "in_clarify": _on("questions.similar.clarify", 64, "in_pos"),
    "in_evaluate": _on("questions.similar.evaluate", 64, "in_pos"),
    "mix_cot": _mixture("base + base.cot"),
    "mix_clarify": _mixture("base + base.clarify"),
    "then_clarify": _mixture("base", "base.clarify"),
    "mix_evaluate": _mixture("base + base.evaluate"),
    "mix_cot_clarify": _mixture("base + base.cot + base.clarify"),
    "mix_cot_evaluate": _mixture("base + base.cot + base.evaluate"),
    "mix_clarify_evaluate": _mixture("base + base.clarify + base.evaluate"),
    "mix_all": _mixture("base + base.cot + base.clarify + base.evaluate"),
    # Rivals of the swift study: short LoRA runs from the base run's end, on each strategy's data and on plain data.
    "proxy_in_plain": _on("questions.similar", 48, "base", start="base", epochs=1, warmup_steps=0, checkpoint_every=None),
    "proxy_in_cot": _on("questions.similar.cot", 48, "proxy_in_plain"),
    "proxy_in_clarify": _on("questions.similar.clarify", 48, "proxy_in_plain"),
    "proxy_in_evaluate": _on("questions.similar.evaluate", 48, "proxy_in_plain"),
    "proxy_cross_plain": _on("base", 48, "proxy_in_plain"),
    "proxy_cross_cot": _on("base.cot", 48, "proxy_in_plain"),
    "proxy_cross_clarify": _on("base.clarify", 48, "proxy_in_plain"),
    "proxy_cross_evaluate": _on("base.evaluate", 48, "proxy_in_plain"),
}
VALIDATION = Validation(
    tables={
        "table1": ValidationTable(
            question="How much do data that are made from analogues of the evaluation queries help?",
            context="in-task",
            control="→ D_pos",
            runs={
                "Base": "full_base",
                "→ D_pos": "in_pos",
                "→ D_cot": "in_cot",
                "→ D_clarify": "in_clarify",
                "→ D_eval": "in_evaluate",
            },
            paper={
                "7B": {"Base": 52.74, "→ D_pos": 59.70, "→ D_cot": 55.22, "→ D_clarify": 52.98, "→ D_eval": 54.48},
                "13B": {"Base": 65.42, "→ D_pos": 70.40, "→ D_cot": 68.40, "→ D_clarify": 66.17, "→ D_eval": 67.67},
            },
        ),
        "table2": ValidationTable(
            question="How much do data that are made from the base dataset help on other tasks?",
            context="cross-task",
            control="Base",
            runs={
                "Base": "full_base",
                "Base+CoT": "mix_cot",
                "Base+Clarify": "mix_clarify",
                "Base→Clarify": "then_clarify",
                "Base+Eval": "mix_evaluate",
                "Base+CoT+Clarify": "mix_cot_clarify",
                "Base+CoT+Eval": "mix_cot_evaluate",
                "Base+Clarify+Eval": "mix_clarify_evaluate",
                "Base+CoT+Clarify+Eval": "mix_all",
            },
            paper={
                "7B": {
                    "Base": 52.74, "Base+CoT": 59.45, "Base+Clarify": 54.62, "Base→Clarify": 56.36, "Base+Eval": 55.98,
                    "Base+CoT+Clarify": 62.19, "Base+CoT+Eval": 59.96, "Base+Clarify+Eval": 57.97, "Base+CoT+Clarify+Eval": 59.46,
                },
                "13B": {
                    "Base": 65.42, "Base+CoT": 68.16, "Base+Clarify": 66.03, "Base→Clarify": 67.18, "Base+Eval": 66.42,
                    "Base+CoT+Clarify": 69.37, "Base+CoT+Eval": 66.67, "Base+Clarify+Eval": 66.19, "Base+CoT+Clarify+Eval": 65.92,
                },
            },
        ),
    },
    predictions={
        "CoT": Prediction(
            study="cot", probes="CoT", targets="non-CoT",
            measured={"in-task": "→ D_cot", "cross-task": "Base+CoT"},
            proxy={"in-task": "proxy_in_cot", "cross-task": "proxy_cross_cot"},
        ),
        "Clarify": Prediction(
            study="clarify", probes="Clarify", targets="Pos",
            measured={"in-task": "→ D_clarify", "cross-task": "Base+Clarify"},
            proxy={"in-task": "proxy_in_clarify", "cross-task": "proxy_cross_clarify"},
        ),
        "Eval": Prediction(
            study="evaluate", probes="EvalPos", targets="Pos",
            measured={"in-task": "→ D_eval", "cross-task": "Base+Eval"},
            proxy={"in-task": "proxy_in_evaluate", "cross-task": "proxy_cross_evaluate"},
        ),
    },
    proxy_control={"in-task": "proxy_in_plain", "cross-task": "proxy_cross_plain"},
)  # fmt: skip
