"""Make the three files of this folder from their sources: python data/sde/make.py SOURCES, the folder of the files that SOURCE.md names."""

import gzip
import json
import random
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOMAINS = {"d1": ["food", "service", "ambience", "price"], "d2": ["staff", "miscellaneous", "place", "menu"]}
DOMAINS["all"] = DOMAINS["d1"] + DOMAINS["d2"]
PARTS = {"train": "train.xml.gz", "dev": "val.xml", "test": "test.xml"}
EVENTS = [
    "Catastrophe", "Attack", "Hostile_encounter", "Causation", "Process_start", "Competition", "Motion", "Social_event", "Killing",
    "Conquering",
]  # fmt: skip


def lines(path: Path) -> list[str]:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode().split("\n")


def reviews(folder: Path) -> Iterator[dict[str, Any]]:
    read = [(part, s) for part, file in PARTS.items() for s in ET.fromstring("\n".join(lines(folder / file))).iter("sentence")]
    for domain, aspects in DOMAINS.items():
        for part, sentence in read:
            labels = {c.get("category"): c.get("polarity") for c in sentence.iter("aspectCategory")}
            if sum(aspect in labels for aspect in aspects) >= 2:
                text = (sentence.findtext("text") or "").strip()
                record = {"text": text, "aspects": {aspect: labels.get(aspect, "unmentioned") for aspect in aspects}}
                yield {"task": domain, "domain": domain, "part": part, "record": record}


def named_entities(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.glob("*.tsv.gz")):
        for block in "\n".join(lines(file)).split("\n\n"):
            tokens = [line.split("\t") for line in block.split("\n") if "\t" in line]
            entities = sorted({e for layer in range(1, max(map(len, tokens), default=1)) for e in spans(tokens, layer)})
            names = [[kind, " ".join(token[0] for token in tokens[a:b])] for a, b, kind in entities]
            nested = any(one != other and one[0] <= other[0] and other[1] <= one[1] for one in entities for other in entities)
            if 8 <= len(tokens) <= 40 and sum(len(name.split()) for _, name in names) <= 25:
                record = {"text": " ".join(token[0] for token in tokens), "entities": names}
                rows.append({"task": "ner", "part": "", "record": record, "doc": file.name.split("_brat")[0], "nested": nested})
    drawn = random.Random(17)
    books = sorted({row["doc"] for row in rows})
    drawn.shuffle(books)
    parts = {"train": [r for r in rows if r["doc"] not in books[:20]], "test": [r for r in rows if r["doc"] in books[:20]]}
    for members in parts.values():
        drawn.shuffle(members)
    chosen = []
    for (part, members), n in zip(parts.items(), (1000, 300), strict=True):  # a fifth without entities
        some = [r for r in members if r["record"]["entities"]][: n * 4 // 5]
        both = some + [r for r in members if not r["record"]["entities"]][: n - len(some)]
        drawn.shuffle(both)
        chosen += [row | {"part": part} for row in both]
    return chosen


def spans(tokens: list[list[str]], layer: int) -> Iterator[tuple[int, int, str]]:
    """First token, the one behind the last, and type of the entities in one layer of BIO labels."""
    labels = [token[layer] if layer < len(token) else "O" for token in tokens]
    for start, label in enumerate(labels):
        if label.startswith("B-"):
            end = start + 1
            while end < len(labels) and labels[end] == "I-" + label[2:]:
                end += 1
            yield start, end, label[2:]


def events(folder: Path) -> list[dict[str, Any]]:
    sentences: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.gz")):
        for row in map(json.loads, filter(str.strip, lines(file))):
            sentences.setdefault(row["sentence"], row)
    rows: list[dict[str, Any]] = []
    for text, row in sentences.items():
        found = sorted([m["event_type"], m["trigger"]["text"]] for m in row["event_mentions"] if m["event_type"] in EVENTS)
        if len(text) <= 260:
            rows.append({"task": "events", "part": "", "record": {"text": text, "events": found}, "doc": row["doc_id"]})
    drawn = random.Random(17)
    documents = sorted({row["doc"] for row in rows})
    drawn.shuffle(documents)
    test = documents[: len(documents) // 4]
    some = [r for r in rows if r["record"]["events"]]
    none = [r for r in rows if not r["record"]["events"]]
    drawn.shuffle(none)
    chosen = [row | {"part": "test" if row["doc"] in test else "train"} for row in some + none[: len(some) // 4]]
    drawn.shuffle(chosen)
    return chosen


def write(name: str, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (Path(__file__).parent / name).write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    sources = Path(sys.argv[1])
    write("masa.jsonl.gz", list(reviews(sources / "mams-acsa")))
    write("ner.jsonl.gz", named_entities(sources / "litbank" / "entities"))
    write("events.jsonl.gz", events(sources / "geneva"))
