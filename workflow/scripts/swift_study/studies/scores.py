"""The scores of a manifest's rows, on the items that all rows share.

An item is a query. Where runs are asked one evaluation in several datasets, such as the test items in each run's own design, it is the
example that a query was first made from (its root), and only roots that all of these datasets have are items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from swift_study.config import Statistics
from swift_study.errors import UserError
from swift_study.evaluation.scorers import ScorerFile, load_scorer
from swift_study.io.tables import EXAMPLES, SCORES, read_table
from swift_study.studies.estimates import NAN, Resamples, Rule, Statistic, resample, scored


@dataclass(frozen=True)
class Scores:
    """What every run of the manifest did: ``statistics[run, evaluation][scorer]`` on the items of ``resamples``, NaN where there is no
    score; ``rules`` has the metrics of every scorer.

    ``asked[evaluation]`` (items,) says which items an evaluation asks, whether or not a run has a score for them.
    """

    manifest: pl.DataFrame
    rules: Mapping[str, Rule]
    resamples: Resamples
    asked: dict[str, np.ndarray]
    tasks: list[str]  # of the items
    statistics: dict[tuple[str, str], dict[str, Statistic]]
    pairing: list[str]  # sentences: how queries of several datasets were paired


def read_scores(manifest: pl.DataFrame, rules: Mapping[str, Rule], settings: Statistics, unit: Sequence[str], within: str | None) -> Scores:
    """Read every file of a manifest once. UserError names a file whose queries are not those of the other runs of its evaluation.

    An item that two evaluations ask is one item, drawn for both alike. Items have the columns `task` and `evaluation`.
    """
    roots, pairing = roots_of(manifest)
    wide: dict[str, pl.DataFrame] = {}
    order: dict[str, list[str]] = {}
    tasks: dict[str, tuple[str, str]] = {}
    first: dict[str, str] = {}
    for evaluation, path, queries in manifest.select("evaluation", "path", "queries").unique(maintain_order=True).iter_rows():
        frame = by_query(read_table(Path(path), SCORES), path)
        if queries is not None:
            frame = by_root(frame, roots[evaluation, queries], path, queries)
        wide[path] = frame
        ids = frame["query_id"].to_list()
        if evaluation not in order:
            order[evaluation], first[evaluation] = ids, path
            for query, task in zip(ids, frame["task"], strict=True):
                tasks.setdefault(query, (task, evaluation))
        elif set(ids) != set(order[evaluation]):
            missing, more = set(order[evaluation]) - set(ids), set(ids) - set(order[evaluation])
            raise UserError(
                f"{path}: it does not hold the queries of {first[evaluation]} ({len(missing)} missing, {len(more)} unknown). One of the "
                f"two was made from another dataset of the evaluation {evaluation!r}: delete it and run again."
            )
    items = pl.DataFrame(
        [(query, *about) for query, about in tasks.items()], schema=["query_id", "task", "evaluation"], orient="row"
    )  # fmt: skip
    resamples = resample(items, settings, unit, within)
    asked = {evaluation: np.isin(np.arange(len(items)), [resamples.place[q] for q in ids]) for evaluation, ids in order.items()}
    statistics: dict[tuple[str, str], dict[str, Statistic]] = {}
    for run, evaluation, scorer, path in manifest.select("run", "evaluation", "scorer", "path").unique(maintain_order=True).iter_rows():
        frame = wide[path]
        places = np.array([resamples.place[q] for q in frame["query_id"]], dtype=np.int64)
        own: dict[str, np.ndarray] = {}
        for name in frame.columns[2:]:
            values = np.full(len(items), NAN)
            values[places] = frame[name].to_numpy()
            own[name] = values
        statistics.setdefault((run, evaluation), {})[scorer] = own
    return Scores(manifest, rules, resamples, asked, items["task"].to_list(), statistics, pairing)


def roots_of(manifest: pl.DataFrame) -> tuple[dict[tuple[str, str], dict[str, str | None]], list[str]]:
    """By evaluation that is asked in several datasets, and the file of each, every query's root, None for one that not all of them have;
    and sentences about how many are paired.

    UserError where datasets have no root in common, or a root stands twice in one.
    """
    found: dict[tuple[str, str], dict[str, str | None]] = {}
    sentences: dict[str, list[str]] = {}  # with their evaluations
    for (evaluation,), rows in manifest.filter(pl.col("queries").is_not_null()).group_by("evaluation", maintain_order=True):
        sets = {Path(file).stem: read_roots(Path(file)) for file in rows["queries"].unique(maintain_order=True)}
        common = set.intersection(*(set(own.values()) for own in sets.values()))
        names = ", ".join(sets)
        if not common:
            raise UserError(
                f"The evaluation {evaluation!r} is asked in the datasets {names}, which are not made from the same examples, so that runs "
                "cannot be paired. Ask it in forms of one dataset, or compare the runs in studies of their own."
            )
        for file in rows["queries"].unique(maintain_order=True):
            found[str(evaluation), file] = {q: root if root in common else None for q, root in sets[Path(file).stem].items()}
        left_out = [f"{len(own) - len(common)} of {name}" for name, own in sets.items() if len(own) > len(common)]
        dropped = f"left out, since not all have them: {', '.join(left_out)}" if left_out else "none is left out"
        sentence = f"queries of {names} are paired by the example that they were made from: {len(common)} are in each; {dropped}."
        sentences.setdefault(sentence, []).append(str(evaluation))
    return found, [f"{', '.join(evaluations)}: {sentence}" for sentence, evaluations in sentences.items()]


def read_roots(path: Path) -> dict[str, str]:
    """By query of a dataset the id of the example that it was first made from."""
    frame = read_table(path, EXAMPLES).select("example_id", pl.coalesce("root_id", "example_id").alias("root"))
    twice = frame.filter(pl.col("root").is_duplicated())
    if len(twice):
        raise UserError(
            f"{path}: the queries {', '.join(twice['example_id'][:2])} are made from one example, so that they cannot be paired with "
            "those of other datasets. Ask the runs in datasets with one form of each example."
        )
    return dict(frame.iter_rows())


def by_root(frame: pl.DataFrame, roots: Mapping[str, str | None], path: str, queries: str) -> pl.DataFrame:
    """The rows of queries that have a root, under its id. UserError for a query that the dataset does not have."""
    if other := [query for query in frame["query_id"] if query not in roots]:
        raise UserError(f"{path}: it holds the query {other[0]}, which {queries} does not have. Delete it and run again.")
    renamed = pl.Series("query_id", [roots[query] for query in frame["query_id"]], dtype=pl.String)
    return frame.with_columns(renamed).filter(pl.col("query_id").is_not_null())


def by_query(long: pl.DataFrame, source: object) -> pl.DataFrame:
    """One row a query, in the file's order: `query_id`, `task` and a column for each statistic. UserError if one stands there twice."""
    twice = long.select("query_id", "statistic").is_duplicated()
    if twice.any():
        query, name = long.filter(twice).select("query_id", "statistic").row(0)
        raise UserError(f"{source}: the statistic {name!r} of the query {query} stands there twice. Delete the file and run again.")
    wide = long.pivot("statistic", index=["query_id", "task"], values="value", maintain_order=True)
    return wide.with_columns(pl.exclude("query_id", "task").cast(pl.Float64))


def metric_of(name: str, rules: Mapping[str, Rule], statistics: Mapping[str, Statistic]) -> tuple[str, str] | None:
    """The scorer that gives a metric, and the metric's own name; None where no scorer does. `judge.accuracy` names the scorer.

    UserError where several scorers give it.
    """
    scorer, dot, own = name.rpartition(".")
    found = []
    for other in statistics:
        if dot and other != scorer:
            continue
        rule = rules[other]
        one = rule.of({k: np.where(scored(statistics[other]), v, NAN)[:1] for k, v in statistics[other].items()}, np.ones((1, 1)))
        if own in one:
            found.append(other)
    if len(found) > 1:
        raise UserError(
            f"The metric {name!r} comes from several scorers ({', '.join(found)}). Name one, as {found[0]}.{name}, or set the study's "
            "`scorers`."
        )
    return (found[0], own) if found else None


def rules_of(files: Mapping[str, str]) -> dict[str, Rule]:
    """The metrics of scorers, by the scorers' files. UserError if one cannot be loaded."""
    return {name: rule_of(load_scorer(Path(file))) for name, file in files.items()}


def rule_of(scorer: ScorerFile) -> Rule:
    def metrics(sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return scorer.metrics(sums)

    return Rule(metrics, scorer.estimate if "estimate" in scorer.functions else None)
