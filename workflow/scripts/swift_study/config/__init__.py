"""The configuration: every key, its type, its default and its meaning, one module a section.

Unknown keys are refused with the nearest known one. ``config.default.yaml`` and ``config.schema.json`` are written from these models
(``python -m swift_study.config``), and a test keeps the three equal. What a paper needs stands in ``studies/``, not here.
"""

from swift_study.config.base import MAIN, Context, Section, nearest
from swift_study.config.collections import Gathered, chosen, configure, gather, lay
from swift_study.config.datasets import (
    HANDWRITTEN,
    HELD_OUT,
    SELECTED,
    SOURCES,
    BaseData,
    Column,
    Columns,
    Data,
    FileSource,
    GeneratorSource,
    HubSource,
    Panel,
    Records,
    Selection,
    Source,
    Strategy,
    Text,
)
from swift_study.config.evaluations import Audit, Declared, Responses, Scorer, Scoring, declared
from swift_study.config.gradients import Gradients
from swift_study.config.load import load
from swift_study.config.models import Model
from swift_study.config.plan import Plan
from swift_study.config.reference import default_yaml, schema_json
from swift_study.config.root import RULES, TABLES, Config
from swift_study.config.runs import EarlyStopping, Lora, Part, Run, training, training_of
from swift_study.config.statistics import Confounds, Near, Statistics
from swift_study.config.studies import CEILING, FLOOR, Comparison, Prediction, References, Study, Validation, ValidationTable
from swift_study.io.endpoint import EndpointSettings, JudgeSettings

__all__ = [
    "CEILING",
    "FLOOR",
    "HANDWRITTEN",
    "HELD_OUT",
    "MAIN",
    "RULES",
    "SELECTED",
    "SOURCES",
    "TABLES",
    "Audit",
    "BaseData",
    "Column",
    "Columns",
    "Comparison",
    "Config",
    "Confounds",
    "Context",
    "Data",
    "Declared",
    "EarlyStopping",
    "EndpointSettings",
    "FileSource",
    "Gathered",
    "GeneratorSource",
    "Gradients",
    "HubSource",
    "JudgeSettings",
    "Lora",
    "Model",
    "Near",
    "Panel",
    "Part",
    "Plan",
    "Prediction",
    "Records",
    "References",
    "Responses",
    "Run",
    "Scorer",
    "Scoring",
    "Section",
    "Selection",
    "Source",
    "Statistics",
    "Strategy",
    "Study",
    "Text",
    "Validation",
    "ValidationTable",
    "chosen",
    "configure",
    "declared",
    "default_yaml",
    "gather",
    "lay",
    "load",
    "nearest",
    "schema_json",
    "training",
    "training_of",
]
