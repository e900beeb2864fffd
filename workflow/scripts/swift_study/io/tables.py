"""Parquet tables that check themselves: written whole or not at all, refused when cut short or of another schema."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from swift_study import __version__
from swift_study.errors import UserError
from swift_study.examples import Example
from swift_study.io.work import publish

NUMBERED = pa.dictionary(pa.uint32(), pa.large_string())
KEY_POINT = pa.struct([("text", pa.string()), ("check", pa.string()), ("value", pa.string())])
EXAMPLES = pa.schema(
    [
        ("example_id", pa.string()),
        ("parent_id", pa.string()),
        ("root_id", pa.string()),
        ("source", pa.string()),
        ("task", pa.string()),
        ("strategy", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("rationale", pa.string()),
        ("requirements", pa.list_(pa.string())),
        ("key_points", pa.list_(KEY_POINT)),
        ("golden", pa.string()),
        ("unsatisfactory", pa.string()),
        ("record", pa.string()),
        ("value_spans", pa.list_(pa.list_(pa.int64()))),
    ]
)
REJECTS = pa.schema(
    [
        ("dataset", pa.string()),
        ("task", pa.string()),
        ("example_id", pa.string()),
        ("reason", pa.string()),
        ("attempts", pa.int64()),
        ("reply", pa.string()),
    ]
)
# How long each example of a dataset is for a model; ``reason`` says why a run or a panel leaves it out, null: it does not.
LENGTHS = pa.schema(
    [
        ("model", pa.string()),
        ("dataset", pa.string()),
        ("example_id", pa.string()),
        ("task", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("reason", pa.string()),
    ]
)
# The lengths of a dataset's examples for a model, as people read them.
TOKENS = pa.schema(
    [
        ("model", pa.string()),
        ("dataset", pa.string()),
        ("n_examples", pa.int64()),
        ("n_left_out", pa.int64()),
        ("mean_prompt_tokens", pa.float64()),
        ("mean_completion_tokens", pa.float64()),
        ("longest", pa.int64()),
    ]
)
ACCOUNTS = pa.schema(
    [
        ("dataset", pa.string()),
        ("requests_sent", pa.int64()),
        ("replies_from_cache", pa.int64()),
        ("retries", pa.int64()),
        ("rejected", pa.int64()),
        ("failures", pa.int64()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
    ]
)
DATASETS = pa.schema(
    [
        ("dataset", pa.string()),
        ("n_examples", pa.int64()),
        ("n_tasks", pa.int64()),
        ("mean_completion_words", pa.float64()),
        ("n_rejected", pa.int64()),
    ]
)
CERTIFICATES = pa.schema(
    [
        ("panel", pa.string()),
        ("step", pa.int64()),
        ("dtype", pa.string()),
        ("attention", pa.string()),
        ("tf32", pa.bool_()),
        ("device", pa.string()),
        ("examples_checked", pa.int64()),
        ("alone_vs_batched", pa.float64()),
        ("against_float64", pa.float64()),
        ("reference", pa.string()),
        ("tolerance", pa.float64()),
        ("not_finite", pa.int64()),
        ("duplicates", pa.int64()),
        ("passed", pa.bool_()),
    ]
)
LEAKAGE = pa.schema(
    [
        ("study", pa.string()),
        ("dataset", pa.string()),
        ("n_examples", pa.int64()),
        ("n_trained", pa.int64()),
        ("leaks", pa.int64()),
    ]
)
SCHEDULE = pa.schema(
    [
        ("epoch", pa.int64()),
        ("step", pa.int64()),
        ("position", pa.int64()),
        ("example_id", pa.string()),
        ("dataset", pa.string()),
    ]
)
HISTORY = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("grad_norm", pa.float64()),
        ("tokens", pa.int64()),
        ("held_out_loss", pa.float64()),  # null where it was not measured
    ]
)
CHECKPOINTS = pa.schema(
    [
        ("number", pa.int64()),  # from 1, in the order of the steps
        ("step", pa.int64()),
        ("path", pa.string()),  # folder beside the table; null where it is the model itself
        ("kind", pa.string()),  # adapter, full or model
    ]
)
RESPONSES = pa.schema(
    [
        ("query_id", pa.string()),
        ("response", pa.string()),
        ("finish_reason", pa.string()),
        ("n_tokens", pa.int64()),
        ("seed", pa.int64()),
    ]
)
SCORES = pa.schema(
    [
        ("query_id", pa.string()),
        ("task", pa.string()),
        ("statistic", pa.string()),
        ("value", pa.float64()),
    ]
)
ITEMS = pa.schema(
    [
        ("query_id", pa.string()),
        ("reason", pa.string()),
        ("raw", pa.string()),
        ("judge", pa.string()),
        ("prompt_hash", pa.string()),
        ("tokens", pa.int64()),
        ("cost", pa.float64()),
    ]
)
PAIRS = pa.schema(
    [
        ("study", pa.string(), False),
        ("run", pa.string(), False),
        ("step", pa.int64(), False),
        ("probe_set", pa.string(), False),
        ("target_set", pa.string(), False),
        ("probe_id", pa.string(), False),
        ("target_id", pa.string(), False),
        ("probe_task", pa.string(), False),
        ("target_task", pa.string(), False),
        ("context", pa.string(), False),
        ("dot", pa.float64(), False),
        ("dot_error", pa.float64()),
        ("probe_norm_sq", pa.float64(), False),
        ("target_norm_sq", pa.float64(), False),
        ("rel_inf", pa.float64()),
        ("cosine", pa.float64()),
        ("rel_inf_adam", pa.float64()),
        ("probe_tokens", pa.int64(), False),
        ("target_tokens", pa.int64(), False),
    ]
)
# Pairs again for each family or layer of modules by itself.
FAMILIES, LAYERS = (
    pa.schema(
        [
            *(PAIRS.field(name) for name in PAIRS.names[:3]),
            by,
            *(PAIRS.field(name) for name in PAIRS.names[3:] if name not in ("dot_error", "rel_inf_adam")),
            ("carried", pa.float64()),
        ]
    )
    for by in (("family", pa.string()), ("layer", pa.int32()))
)
POWER = pa.schema(
    [
        ("study", pa.string()),
        ("strategy", pa.string()),
        ("context", pa.string()),
        ("target_set", pa.string()),
        ("n_tasks", pa.int64()),
        ("planted", pa.string()),
        ("effect", pa.float64()),
        ("power", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
    ]
)
CURVES = pa.schema(
    [
        ("study", pa.string()),
        ("curve", pa.string()),
        ("probe_set", pa.string()),
        ("target_set", pa.string()),
        ("context", pa.string()),
        ("step", pa.int64()),
        ("n_pairs", pa.int64()),
        ("n_skipped", pa.int64()),
        ("rel_inf", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("rel_inf_mean_loss", pa.float64()),
        ("cosine", pa.float64()),
    ]
)
EFFECT = [
    ("effect", pa.float64()),
    ("ci_low", pa.float64()),
    ("ci_high", pa.float64()),
    ("p_value", pa.float64()),
    ("n_probes", pa.int64()),
    ("n_tasks", pa.int64()),
]
VERDICTS = pa.schema(
    [
        ("study", pa.string()),
        ("strategy", pa.string()),
        ("context", pa.string()),
        ("target_set", pa.string()),
        ("control", pa.string()),
        ("strategy_rel_inf", pa.float64()),
        ("control_rel_inf", pa.float64()),
        *EFFECT,
        ("n_checkpoints", pa.int64()),
        ("verdict", pa.string()),
        ("wanted", pa.bool_()),
        ("effective_share", pa.float64()),
        ("effective", pa.bool_()),
        ("verdict_mean_loss", pa.string()),
        ("effect_mean_loss", pa.float64()),
        ("verdict_cosine", pa.string()),
        ("effect_cosine", pa.float64()),
    ]
)
CONFOUNDS = pa.schema(
    [
        ("study", pa.string()),
        ("strategy", pa.string()),
        ("context", pa.string()),
        ("target_set", pa.string()),
        ("check", pa.string()),
        *EFFECT,
        ("verdict", pa.string()),
        ("agrees", pa.bool_()),
        ("of_scale", pa.float64()),
        ("carried", pa.float64()),
    ]
)
BASELINES = pa.schema(
    [
        *(PAIRS.field(name) for name in PAIRS.names[: PAIRS.get_field_index("dot")]),
        ("bm25", pa.float64()),
        ("similarity", pa.float64()),
        ("loss_change", pa.float64()),
    ]
)
CONSUMED = pa.schema(
    [
        ("step", pa.int64()),
        ("process", pa.int64()),
        ("micro_batch", pa.int64()),
        ("example_id", pa.string()),
    ]
)
AUDIT = pa.schema(
    [
        ("judge", pa.string()),
        ("source", pa.string()),
        ("query_id", pa.string()),
        ("task", pa.string()),
        ("query", pa.string()),
        ("response", pa.string()),
        ("expected", pa.int64()),
        ("label", pa.int64()),
        ("reason", pa.string()),
        ("label_again", pa.int64()),
        ("hostile", pa.string()),
        ("label_hostile", pa.int64()),
        ("tokens", pa.int64()),
        ("cost", pa.float64()),
    ]
)
AUDIT_SUMMARY = pa.schema(
    [
        ("judge", pa.string()),
        ("measure", pa.string()),
        ("n", pa.int64()),
        ("unparsed", pa.int64()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("reference", pa.float64()),
    ]
)
CONFUSION = pa.schema(
    [
        ("judge", pa.string()),
        ("expected", pa.int64()),
        ("label", pa.int64()),
        ("n", pa.int64()),
    ]
)
# Beside these a manifest has a column for each factor, and a study's table those of its published values.
MANIFEST = pa.schema(
    [
        ("row", pa.string()),
        ("run", pa.string()),
        ("seed", pa.int64()),
        ("model", pa.string()),
        ("evaluation", pa.string()),
        ("scorer", pa.string()),
        ("path", pa.string()),
    ]
)
SCORES = pa.schema(
    [
        ("query_id", pa.string()),
        ("task", pa.string()),
        ("statistic", pa.string()),
        ("value", pa.float64()),
    ]
)
COMPARISON = pa.schema(
    [
        ("block", pa.string()),
        ("model", pa.string()),
        ("row", pa.string()),
        ("run", pa.string()),
        ("evaluation", pa.string()),
        ("metric", pa.string()),
        ("scorer", pa.string()),
        ("n_seeds", pa.int64()),
        ("n", pa.int64()),
        ("unscored", pa.int64()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("sd", pa.float64()),
        ("against", pa.string()),
        ("gain", pa.float64()),
        ("gain_low", pa.float64()),
        ("gain_high", pa.float64()),
        ("gain_p", pa.float64()),
        ("gain_p_holm", pa.float64()),
        ("relative_gain", pa.float64()),
        ("relative_gain_low", pa.float64()),
        ("relative_gain_high", pa.float64()),
        ("control", pa.string()),
        ("over_control", pa.float64()),
        ("over_control_low", pa.float64()),
        ("over_control_high", pa.float64()),
        ("over_control_p", pa.float64()),
    ]
)
CLAIMS = pa.schema(
    [
        ("study", pa.string()),
        ("source", pa.string()),
        ("claim", pa.string()),
        ("block", pa.string()),
        ("model", pa.string()),
        ("evaluation", pa.string()),
        ("metric", pa.string()),
        ("this", pa.string()),
        ("that", pa.string()),
        ("estimate", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("outcome", pa.string()),
    ]
)
# Beside these, for each predictor and outcome its number with `_low` and `_high`.
AGREEMENT = pa.schema(
    [
        ("group", pa.string()),
        ("item", pa.string()),
        ("verdict", pa.string()),
    ]
)
RANK_AGREEMENT = pa.schema(
    [
        ("group", pa.string()),
        ("predictor", pa.string()),
        ("outcome", pa.string()),
        ("n_items", pa.int64()),
        ("kendall_tau", pa.float64()),
        ("tau_low", pa.float64()),
        ("tau_high", pa.float64()),
        ("n_decisions", pa.int64()),
        ("decision_accuracy", pa.float64()),
        ("decision_low", pa.float64()),
        ("decision_high", pa.float64()),
        ("n_decided", pa.int64()),
        ("decided_accuracy", pa.float64()),
        ("decided_low", pa.float64()),
        ("decided_high", pa.float64()),
    ]
)
DECISIONS = pa.schema(
    [
        ("group", pa.string()),
        ("item_a", pa.string()),
        ("item_b", pa.string()),
        ("outcome", pa.string()),
        ("measured_difference", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("decided", pa.bool_()),
        ("predictor", pa.string()),
        ("predicted_difference", pa.float64()),
        ("right", pa.float64()),
    ]
)
SWEEP = pa.schema(
    [
        ("line", pa.string()),
        ("panel", pa.string()),
        ("evaluation", pa.string()),
        ("metric", pa.string()),
        ("x", pa.float64()),
        ("run", pa.string()),
        ("n_seeds", pa.int64()),
        ("n", pa.int64()),
        ("unscored", pa.int64()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("sd", pa.float64()),
        ("over_start", pa.float64()),
        ("over_start_low", pa.float64()),
        ("over_start_high", pa.float64()),
    ]
)
PHASES = pa.schema(
    [
        ("phase", pa.string()),
        ("line", pa.string()),
        ("panel", pa.string()),
        ("evaluation", pa.string()),
        ("metric", pa.string()),
        ("bar", pa.float64()),
        ("x", pa.float64()),
        ("x_low", pa.float64()),
        ("x_high", pa.float64()),
        ("x_sure", pa.float64()),
        ("reached", pa.float64()),
        ("last_x", pa.float64()),
    ]
)
SAVINGS = pa.schema(
    [
        ("saving", pa.string()),
        ("line", pa.string()),
        ("against", pa.string()),
        ("panel", pa.string()),
        ("evaluation", pa.string()),
        ("metric", pa.string()),
        ("x", pa.float64()),
        ("value", pa.float64()),
        ("saved", pa.float64()),
        ("saved_low", pa.float64()),
        ("saved_high", pa.float64()),
        ("beyond", pa.float64()),
    ]
)
CORRELATION = pa.schema(
    [
        ("metric", pa.string()),
        ("reference", pa.string()),
        ("scope", pa.string()),
        ("column", pa.string()),
        ("level", pa.string()),
        ("n_groups", pa.int64()),
        ("n", pa.int64()),
        ("rho", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)
COSTS = pa.schema(
    [
        ("way", pa.string()),
        ("part", pa.string()),
        ("jobs", pa.int64()),
        ("seconds", pa.float64()),
        ("cpu_seconds", pa.float64()),
        ("tokens", pa.int64()),
        ("cost_usd", pa.float64()),
    ]
)


def write_table(path: Path, frame: pl.DataFrame, schema: pa.Schema, metadata: Mapping[str, str] | None = None) -> None:
    """Write the schema's columns of ``frame`` as Parquet (zstd), with the version and ``metadata`` in the file's metadata."""
    table = frame.select(schema.names).to_arrow().cast(schema)
    write_arrow(path, table, metadata)


def write_arrow(path: Path, table: pa.Table, metadata: Mapping[str, str] | None = None) -> None:
    marked = table.replace_schema_metadata({"swift_study": __version__, **(metadata or {})})
    with publish(path) as part:
        if any(map(_holds_vectors, marked.schema)):
            pl.DataFrame(marked).write_parquet(part, **vector_storage(marked.schema))
        else:
            pq.write_table(marked, part, compression="zstd", write_page_checksum=True)


def vector_storage(schema: pa.Schema) -> dict[str, Any]:
    """How Polars, whose writer takes a third of Arrow's time for long vectors, stores a table that has them: as it is, since they hardly
    shrink, and without checksums of pages, which it does not write. A row group, which is read as a whole, has about 4 million numbers.
    Readers get the Arrow ``schema``, with its metadata."""
    longest = max(field.type.list_size for field in schema if _holds_vectors(field))
    texts = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    return {
        "compression": "uncompressed",
        "statistics": False,
        "row_group_size": min(max(1, 2**22 // longest), 2**20),
        "metadata": {"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes()).decode(), **texts},
    }


def _holds_vectors(field: pa.Field) -> bool:
    return bool(pa.types.is_fixed_size_list(field.type))


@contextmanager
def writing_table(path: Path, schema: pa.Schema, metadata: Mapping[str, str] | None = None) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Write a table of strings and numbers that is never in memory as a whole: the function adds a frame's rows, a row group each.

    Strings are written by number, which columns of an enumeration already have. Measured numbers are seldom met twice: they have no
    dictionary, and their bytes are sorted by place, which compresses better.
    """
    measured = [f.name for f in schema if pa.types.is_floating(f.type)]
    others = [name for name in schema.names if name not in measured]
    numbered = pa.schema([f.with_type(NUMBERED) if pa.types.is_string(f.type) else f for f in schema])
    marked = numbered.with_metadata({"swift_study": __version__, **(metadata or {})})

    with (
        publish(path) as part,
        pq.ParquetWriter(
            part,
            marked,
            compression="lz4",  # nearly as small as zstd here, and it is the writing that takes the time
            use_dictionary=others,
            column_encoding=dict.fromkeys(measured, "BYTE_STREAM_SPLIT"),
            write_statistics=False,
            write_page_checksum=True,
            store_schema=False,  # readers get strings
        ) as writer,
    ):

        def add(frame: pl.DataFrame) -> None:
            columns = frame.select(schema.names).with_columns(pl.col(pl.String).cast(pl.Categorical))
            writer.write_table(columns.to_arrow().cast(numbered))

        yield add


def read_table(path: Path, schema: pa.Schema) -> pl.DataFrame:
    """Read a table, checked against its schema; UserError names the file, the column and what was expected."""
    return pl.DataFrame(read_arrow(path, schema))


def read_arrow(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. Run the rule that makes it: snakemake {path}")
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path}: this is not a whole Parquet file ({str(error).splitlines()[0]}). It may have been cut short; delete it and "
            "run snakemake again, which makes it anew."
        ) from error
    for field in schema or []:
        position = table.schema.get_field_index(field.name)
        if position < 0:
            raise UserError(
                f"{path}: the column '{field.name}' ({field.type}) is missing; the file has {', '.join(table.schema.names)}. "
                f"It was written by version {_version(table)} of swift-study, this is {__version__}: delete it and run again."
            )
        if not table.schema.field(position).type.equals(field.type):
            raise UserError(
                f"{path}: the column '{field.name}' is {table.schema.field(position).type}, expected {field.type}. "
                f"It was written by version {_version(table)} of swift-study, this is {__version__}: delete it and run again."
            )
    return table


def _version(table: pa.Table) -> str:
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    return metadata.get(b"swift_study", b"unknown").decode()


def write_examples(path: Path, examples: list[Example], metadata: Mapping[str, str] | None = None) -> None:
    """Write a dataset. UserError if two examples are the same or there is none: ids must tell examples apart."""
    if not examples:
        raise UserError(f"{path}: the dataset would be empty. See the rejects table beside it for the reasons.")
    seen: dict[str, int] = {}
    for row, example in enumerate(examples):
        first = seen.setdefault(example.example_id, row)
        if first != row:
            raise UserError(
                f"{path}: rows {first + 1} and {row + 1} are the same example (id {example.example_id}, task {example.task!r}, "
                f"query {example.query[:60]!r}). Remove one of them from the source."
            )
    rows = [{"example_id": e.example_id, **e.model_dump()} for e in examples]
    write_arrow(path, pa.Table.from_pylist(rows, EXAMPLES), metadata)


def read_examples(path: Path) -> list[Example]:
    rows = read_arrow(path, EXAMPLES).to_pylist()
    examples = []
    for number, row in enumerate(rows, 1):
        try:
            example = Example(**{k: v for k, v in row.items() if k in Example.model_fields})
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise UserError(
                f"{path}, row {number}, column {'.'.join(map(str, problem['loc'])) or 'messages'}: "
                f"{problem['msg'].removeprefix('Value error, ')}. The file was changed by hand: delete it and run snakemake again."
            ) from error
        if example.example_id != row["example_id"]:
            raise UserError(
                f"{path}: row {number} has the id {row['example_id']}, but its content gives {example.example_id}: the file "
                "was changed by hand. Delete it and run snakemake again; edit the source or the strategy instead."
            )
        examples.append(example)
    return examples


def as_frame(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pl.DataFrame:
    """Rows as a frame of the schema; what a row lacks, and NaN, is null."""
    kinds = dict(zip(schema.names, pl.DataFrame(schema.empty_table()).dtypes, strict=True))
    return pl.DataFrame(rows, schema=kinds).fill_nan(None)
