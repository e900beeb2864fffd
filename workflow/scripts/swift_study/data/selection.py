"""Examples chosen by scores: of their own, and of the relatives that were made from them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from swift_study.config import FileSource, Scores, Selection
from swift_study.data.draw import place
from swift_study.data.rows import file_rows
from swift_study.data.sources import holds
from swift_study.errors import UserError
from swift_study.examples import Example, fold

Row = dict[str, Example]  # an example under the name "example", and its relatives under theirs


def rows_of(selection: Selection, datasets: Mapping[str, Sequence[Example]]) -> list[Row]:
    """Each example with its relatives, those that it has. ``datasets`` by name: the examples', the relatives', and all between them."""
    known = {e.example_id: e for members in datasets.values() for e in members}
    descendants: dict[str, dict[str, Example]] = {}
    for name, dataset in selection.relatives.items():
        first: dict[str, Example] = {}
        for member in datasets[dataset]:
            for ancestor in _ancestors(member, known):
                first.setdefault(ancestor, member)
        descendants[name] = first
    return [
        {"example": e, **{name: first[e.example_id] for name, first in descendants.items() if e.example_id in first}}
        for e in datasets[selection.examples]
    ]


def _ancestors(example: Example, known: Mapping[str, Example]) -> list[str]:
    """Ids of the examples that it was made from, the nearest first."""
    found: list[str] = []
    following = example.parent_id
    while following is not None and following not in found and following != example.example_id:
        found.append(following)
        following = known[following].parent_id if following in known else None
    return found


def choose(
    selection: Selection,
    rows: Sequence[Row],
    scores: Mapping[str, float | None],
    responses: Mapping[str, str | None],
    seed: int,
    name: str,
) -> list[Row]:
    """The rows that fit and are taken. ``scores`` and ``responses`` are by example_id. UserError, with counts, where there are too few."""
    conditions = {relative: sum(_fits(selection, row, relative, scores) for row in rows) for relative in selection.where}
    fitting = [
        row
        for row in rows
        if all(_fits(selection, row, relative, scores) for relative in selection.where) and _can_be_put_out(selection, row, responses)
    ]
    take = selection.take
    if take.order in ("top", "bottom"):
        fitting = [row for row in fitting if take.of in row and scores.get(row[take.of].example_id) is not None]
        sign = -1 if take.order == "top" else 1
        fitting.sort(key=lambda row: sign * (scores[row[take.of].example_id] or 0.0))  # ties as in the dataset
    elif take.order == "random":
        fitting.sort(key=lambda row: place(row["example"], seed))
    chosen, tasks = _within_tasks(selection, rows, fitting)
    chosen = chosen[: take.examples]
    asked, found = (take.tasks, tasks) if take.tasks is not None and tasks < take.tasks else (take.examples, len(chosen))
    if not chosen or (asked is not None and found < asked):
        told = "; ".join(f"{count} have {relative} with the score {selection.where[relative]}" for relative, count in conditions.items())
        what = "tasks" if asked == take.tasks and found == tasks else "examples"
        raise UserError(
            f"selections.{name}: {asked or 'some'} {what} are asked for (take), but {found} are there: of the {len(rows)} examples of "
            f"{selection.examples!r}{' ' + told + ';' if told else ''} {len(fitting)} fit everything. Add examples to "
            f"{selection.examples!r}, loosen selections.{name}.where, or lower selections.{name}.take."
        )
    return chosen


def _within_tasks(selection: Selection, rows: Sequence[Row], fitting: Sequence[Row]) -> tuple[list[Row], int]:
    """At most ``per_task`` of each task, of at most ``tasks`` tasks in the order of the dataset; and of how many tasks there are some."""
    take = selection.take
    if take.per_task is None and take.tasks is None:
        return list(fitting), len({row["example"].task for row in fitting})
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in fitting:
        by_task[row["example"].task].append(row)
    order = [task for task in dict.fromkeys(row["example"].task for row in rows) if task in by_task]
    return [row for task in order[: take.tasks] for row in by_task[task][: take.per_task]], len(order)


def _fits(selection: Selection, row: Row, relative: str, scores: Mapping[str, float | None]) -> bool:
    score = scores.get(row[relative].example_id) if relative in row else None
    return score is not None and holds(score, selection.where[relative], f"the score of the example {row[relative].example_id}")


def _can_be_put_out(selection: Selection, row: Row, responses: Mapping[str, str | None]) -> bool:
    """Whether the row has all that the outputs are made of; a relative that a strategy rejected is not there."""
    for output in selection.outputs.values():
        if output.of not in row:
            return False
        if output.completion == "response" and not (responses.get(row[output.of].example_id) or "").strip():
            return False
    return True


def put_out(selection: Selection, name: str, chosen: Sequence[Row], responses: Mapping[str, str | None]) -> list[Example]:
    """The dataset ``name`` of the chosen rows."""
    output = selection.outputs[name]
    made = []
    for row in chosen:
        example = row[output.of]
        texts = {
            "own": example.completion,
            "golden": example.golden or example.completion,
            "response": responses.get(example.example_id) or "",
        }
        completion = texts[output.completion]
        if completion == example.completion:  # the same example: no child of itself
            made.append(example.model_copy(update={"strategy": name}))
        else:
            made.append(example.derive(name, example.query, completion))
    return made


def scores_of_file(scores: Scores, examples: Sequence[Example]) -> dict[str, float | None]:
    """By example_id the scores of a table of the user's. UserError names the row of what is no number, and a table without any of them."""
    column, path = scores.column or "", scores.file or ""
    found: dict[str, float] = {}
    for number, row in file_rows(FileSource(path=path)):
        for needed in (scores.key, column):
            if needed not in row:
                raise UserError(f"{path}, row {number}: there is no column {needed!r}; the row has {', '.join(row)}.")
        if row[column] is None or row[column] == "":
            continue
        try:
            value = float(row[column])
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}, row {number}, column {column}: expected a number, found {row[column]!r}.") from error
        key = str(row[scores.key])
        key = fold(key) if scores.key == "query" else key
        if key in found:
            raise UserError(f"{path}, row {number}: the example {key[:80]!r} has a score above already. Remove one of the two.")
        found[key] = value
    scored = {e.example_id: found.get(fold(e.query) if scores.key == "query" else e.example_id) for e in examples}
    if all(score is None for score in scored.values()):
        raise UserError(f"{path}: none of the {len(scored)} examples has a score in it, by the column {scores.key!r}.")
    return scored
