"""Parquet tables that check themselves: written whole or not at all, refused when cut short or of another schema."""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
Columns = list[pa.Field]


def _of(kind: pa.DataType, names: Sequence[str], null: bool) -> Columns:
    return [pa.field(name, kind, null) for name in names]


def texts(*names: str, null: bool = True) -> Columns:
    """Columns of strings; ``null``: whether a row may lack them."""
    return _of(pa.string(), names, null)


def whole(*names: str, null: bool = True) -> Columns:
    return _of(pa.int64(), names, null)


def numbers(*names: str, null: bool = True) -> Columns:
    return _of(pa.float64(), names, null)


def truths(*names: str) -> Columns:
    return _of(pa.bool_(), names, True)


def interval(name: str) -> Columns:
    """A number with the ends of its interval."""
    return numbers(name, f"{name}_low", f"{name}_high")


def table_of(*columns: Columns) -> pa.Schema:
    return pa.schema([field for run in columns for field in run])


# ---- data and runs ----

MESSAGE = pa.struct(texts("role", "content"))
KEY_POINT = pa.struct(texts("text", "check", "value"))
EXAMPLES = table_of(
    texts("example_id", "parent_id", "root_id", "source", "task", "strategy"),
    [pa.field("messages", pa.list_(MESSAGE))],
    texts("rationale"),
    [pa.field("requirements", pa.list_(pa.string())), pa.field("key_points", pa.list_(KEY_POINT))],
    texts("golden", "unsatisfactory", "record"),
    [pa.field("value_spans", pa.list_(pa.list_(pa.int64())))],
)
REJECTS = table_of(texts("dataset", "task", "example_id", "reason"), whole("attempts"), texts("reply"))
# How long each example of a dataset is for a model; ``reason`` says why a run or a panel leaves it out, null: it does not.
LENGTHS = table_of(texts("model", "dataset", "example_id", "task"), whole("prompt_tokens", "completion_tokens"), texts("reason"))
# The lengths of a dataset's examples for a model, as people read them.
TOKENS = table_of(
    texts("model", "dataset"),
    whole("n_examples", "n_left_out"),
    numbers("mean_prompt_tokens", "mean_completion_tokens"),
    whole("longest"),
)
ACCOUNTS = table_of(
    texts("dataset"),
    whole("requests_sent", "replies_from_cache", "retries", "rejected", "failures", "prompt_tokens", "completion_tokens"),
    numbers("cost_usd"),
)
DATASETS = table_of(texts("dataset"), whole("n_examples", "n_tasks"), numbers("mean_completion_words"), whole("n_rejected"))
LEAKAGE = table_of(texts("study", "dataset"), whole("n_examples", "n_trained", "leaks"))
SCHEDULE = table_of(whole("epoch", "step", "position"), texts("example_id", "dataset"))
CONSUMED = table_of(whole("step", "process", "micro_batch"), texts("example_id"))
HISTORY = table_of(
    whole("step"),
    numbers("loss", "learning_rate", "grad_norm"),
    whole("tokens"),
    numbers("held_out_loss"),  # null where it was not measured
)
CHECKPOINTS = table_of(
    whole("number"),  # from 1, in the order of the steps
    whole("step"),
    texts("path"),  # folder beside the table; null where it is the model itself
    texts("kind"),  # adapter, full or model
)
CERTIFICATES = table_of(
    texts("panel"),
    whole("step"),
    texts("dtype", "attention"),
    truths("tf32"),
    texts("device"),
    whole("examples_checked"),
    numbers("alone_vs_batched", "against_float64"),
    texts("reference"),
    numbers("tolerance"),
    whole("not_finite", "duplicates"),
    truths("passed"),
)

# ---- responses, scores, audits ----

RESPONSES = table_of(texts("query_id", "response", "finish_reason"), whole("n_tokens", "seed"))
SCORES = table_of(texts("query_id", "task", "statistic"), numbers("value"))
ITEMS = table_of(texts("query_id", "reason", "raw", "judge", "prompt_hash"), whole("tokens"), numbers("cost"))
AUDIT = table_of(
    texts("judge", "source", "query_id", "task", "query", "response"),
    whole("expected", "label"),
    texts("reason"),
    whole("label_again"),
    texts("hostile"),
    whole("label_hostile", "tokens"),
    numbers("cost"),
)
AUDIT_SUMMARY = table_of(texts("judge", "measure"), whole("n", "unparsed"), numbers("value", "ci_low", "ci_high", "reference"))
CONFUSION = table_of(texts("judge"), whole("expected", "label", "n"))

# ---- influence ----

PAIR = [
    *texts("study", "run", null=False),
    *whole("step", null=False),
    *texts("probe_set", "target_set", "probe_id", "target_id", "probe_task", "target_task", "context", null=False),
]
NORMS = numbers("probe_norm_sq", "target_norm_sq", null=False)
LENGTHS_OF_PAIR = whole("probe_tokens", "target_tokens", null=False)
PAIRS = table_of(
    PAIR, numbers("dot", null=False), numbers("dot_error"), NORMS, numbers("rel_inf", "cosine", "rel_inf_adam"), LENGTHS_OF_PAIR
)
# Pairs again for each family or layer of modules by itself.
FAMILIES, LAYERS = (
    table_of(PAIR[:3], [by], PAIR[3:], numbers("dot", null=False), NORMS, numbers("rel_inf", "cosine"), LENGTHS_OF_PAIR, numbers("carried"))
    for by in (pa.field("family", pa.string()), pa.field("layer", pa.int32()))
)
BASELINES = table_of(PAIR, numbers("bm25", "similarity", "loss_change"))
CURVES = table_of(
    texts("study", "curve", "probe_set", "target_set", "context"),
    whole("step", "n_pairs", "n_skipped"),
    numbers("rel_inf", "ci_low", "ci_high", "rel_inf_mean_loss", "cosine"),
)
VERDICT = texts("study", "strategy", "context", "target_set")
EFFECT = [*numbers("effect", "ci_low", "ci_high", "p_value"), *whole("n_probes", "n_tasks")]
VERDICTS = table_of(
    VERDICT,
    texts("control"),
    numbers("strategy_rel_inf", "control_rel_inf"),
    EFFECT,
    whole("n_checkpoints"),
    texts("verdict"),
    truths("wanted"),
    numbers("effective_share"),
    truths("effective"),
    texts("verdict_mean_loss"),
    numbers("effect_mean_loss"),
    texts("verdict_cosine"),
    numbers("effect_cosine"),
)
CONFOUNDS = table_of(VERDICT, texts("check"), EFFECT, texts("verdict"), truths("agrees"), numbers("of_scale", "carried"))
POWER = table_of(VERDICT, whole("n_tasks"), texts("planted"), numbers("effect", "power", "ci_low", "ci_high"))

# ---- studies of scores ----

# Beside these a manifest has a column for each factor, and a study's table those of its published values.
MANIFEST = table_of(texts("row", "run"), whole("seed"), texts("model", "evaluation", "scorer", "path", "queries"))
LEVEL = [*whole("n_seeds", "n", "unscored"), *numbers("value", "low", "high", "sd")]
COMPARISON = table_of(
    texts("block", "model", "row", "run", "evaluation", "metric", "scorer"),
    LEVEL,
    texts("against"),
    interval("gain"),
    numbers("gain_p", "gain_p_holm"),
    interval("relative_gain"),
    texts("control"),
    interval("over_control"),
    numbers("over_control_p"),
)
CLAIMS = table_of(
    texts("study", "source", "claim", "block", "model", "evaluation", "metric", "this", "that"),
    numbers("estimate", "ci_low", "ci_high"),
    texts("outcome"),
)
SWEEP = table_of(texts("line", "panel", "evaluation", "metric"), numbers("x"), texts("run"), LEVEL, interval("over_start"))
PHASES = table_of(
    texts("phase", "line", "panel", "evaluation", "metric"), numbers("bar"), interval("x"), numbers("x_sure", "reached", "last_x")
)
SAVINGS = table_of(
    texts("saving", "line", "against", "panel", "evaluation", "metric"), numbers("x", "value"), interval("saved"), numbers("beyond")
)
CORRELATION = table_of(texts("metric", "reference", "scope", "column", "level"), whole("n_groups", "n"), numbers("rho", "low", "high"))
# Beside these, for each predictor and outcome its number with `_low` and `_high`.
AGREEMENT = table_of(texts("group", "item", "verdict"))
RANK_AGREEMENT = table_of(
    texts("group", "predictor", "outcome"),
    whole("n_items"),
    numbers("kendall_tau", "tau_low", "tau_high"),
    whole("n_decisions"),
    numbers("decision_accuracy", "decision_low", "decision_high"),
    whole("n_decided"),
    numbers("decided_accuracy", "decided_low", "decided_high"),
)
DECISIONS = table_of(
    texts("group", "item_a", "item_b", "outcome"),
    numbers("measured_difference", "low", "high"),
    truths("decided"),
    texts("predictor"),
    numbers("predicted_difference", "right"),
)
COSTS = table_of(texts("way", "part"), whole("jobs"), numbers("seconds", "cpu_seconds"), whole("tokens"), numbers("cost_usd"))


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


def read_tables(paths: Iterable[str | Path], schema: pa.Schema) -> pl.DataFrame:
    """The rows of several tables, one after the other; no row where there is no table."""
    return pl.concat([pl.DataFrame(schema.empty_table()), *(read_table(Path(path), schema).select(schema.names) for path in paths)])


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
