"""The configuration: every key, its type, its default and its meaning, one module a section.

Unknown keys are refused with the nearest known one. ``config.default.yaml`` and ``config.schema.json`` are written from these models
(``python -m swift_study.config``), and a test keeps the three equal. What a paper needs stands in ``studies/``, not here.
"""

from swift_study.config import lineage
from swift_study.config.base import MAIN, Context, LossOn, Section, Seed, nearest
from swift_study.config.collections import Gathered, chosen, configure, gather, lay
from swift_study.config.datasets import (
    Column,
    Columns,
    Condition,
    Dataset,
    Design,
    FileSource,
    GeneratorSource,
    HubSource,
    Output,
    Range,
    Records,
    Scores,
    Selection,
    Source,
    Strategy,
    Take,
    Text,
)
from swift_study.config.evaluations import Asked, Audit, Declared, Evaluation, Generation, Responding, Scorer, Scoring, declared
from swift_study.config.families import Point, parse_name
from swift_study.config.files import Files
from swift_study.config.gradients import Gradients
from swift_study.config.graph import Entry, Graph
from swift_study.config.grid import label_of, path_of
from swift_study.config.load import load
from swift_study.config.models import Model
from swift_study.config.plan import Plan
from swift_study.config.points import rows_of
from swift_study.config.reference import default_yaml, schema_json
from swift_study.config.root import RULES, Config
from swift_study.config.runs import EarlyStopping, Family, Lora, Part, Run
from swift_study.config.statistics import Confounds, Statistics
from swift_study.config.studies import (
    BRACES,
    CEILING,
    FLOOR,
    AgreementStudy,
    AuditStudy,
    Axis,
    Bars,
    ComparisonStudy,
    CorrelationStudy,
    HeatMap,
    InfluenceStudy,
    Phase,
    Place,
    Predictor,
    References,
    Saving,
    Scatter,
    ScoredStudy,
    Study,
    StudyPanel,
    SweepStudy,
    curve_name,
    curve_names,
)
from swift_study.io.endpoint import EndpointSettings

__all__ = [
    "BRACES",
    "CEILING",
    "FLOOR",
    "MAIN",
    "RULES",
    "AgreementStudy",
    "Asked",
    "Audit",
    "AuditStudy",
    "Axis",
    "Bars",
    "Column",
    "Columns",
    "ComparisonStudy",
    "Condition",
    "Config",
    "Confounds",
    "Context",
    "CorrelationStudy",
    "Dataset",
    "Declared",
    "Design",
    "EarlyStopping",
    "EndpointSettings",
    "Entry",
    "Evaluation",
    "Family",
    "FileSource",
    "Files",
    "Gathered",
    "Generation",
    "GeneratorSource",
    "Gradients",
    "Graph",
    "HeatMap",
    "HubSource",
    "InfluenceStudy",
    "Lora",
    "LossOn",
    "Model",
    "Output",
    "Part",
    "Phase",
    "Place",
    "Plan",
    "Point",
    "Predictor",
    "Range",
    "Records",
    "References",
    "Responding",
    "Run",
    "Saving",
    "Scatter",
    "ScoredStudy",
    "Scorer",
    "Scores",
    "Scoring",
    "Section",
    "Seed",
    "Selection",
    "Source",
    "Statistics",
    "Strategy",
    "Study",
    "StudyPanel",
    "SweepStudy",
    "Take",
    "Text",
    "chosen",
    "configure",
    "curve_name",
    "curve_names",
    "declared",
    "default_yaml",
    "gather",
    "label_of",
    "lay",
    "lineage",
    "load",
    "nearest",
    "parse_name",
    "path_of",
    "rows_of",
    "schema_json",
]
