"""Plain: a field of the record is the query, another one the completion, and all of that is its value.

Options: `prompt` and `completion`, the names of these fields; `instruction`, a text before the query, or with `instruction_at: last`
behind it.
"""

import json
from collections.abc import Mapping
from typing import Any

from swift_study.data.designs import Record, Rendered, Value
from swift_study.errors import Rejected


def render(record: Record, options: Mapping[str, Any]) -> Rendered:
    prompt, answer = _field(record, options, "prompt"), _field(record, options, "completion")
    parts = [str(options.get("instruction", "")), prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)]
    ordered = parts if options.get("instruction_at", "first") == "first" else reversed(parts)
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return Rendered("\n\n".join(part for part in ordered if part), [Value(text)])


def parse(response: str, record: Record, options: Mapping[str, Any]) -> Record:
    name = str(options.get("completion", "completion"))
    if isinstance(record.get(name), str):
        return {name: response.strip() if record[name] == record[name].strip() else response}
    try:
        return {name: json.loads(response)}
    except (ValueError, RecursionError) as error:
        raise Rejected(f"unparsable: the response is not JSON ({error})") from error


def _field(record: Record, options: Mapping[str, Any], key: str) -> Any:
    name = str(options.get(key, key))
    if record.get(name) in (None, ""):
        raise Rejected(f"the record has no {name!r}; it has {', '.join(record)}")
    return record[name]
