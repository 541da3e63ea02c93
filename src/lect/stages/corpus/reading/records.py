# SPDX-License-Identifier: Apache-2.0
"""From lines and tables to texts: JSON Lines, CSV and parquet, with every bad record counted and named.

The JSON Lines reader takes a file line by line, so that one bad line costs one line. Which column holds the text
is found out over the first records: a usual name if one is there, else the column of strings with most text.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

NAMES = ("text", "content", "body", "document", "raw_content", "article", "passage", "sentence", "texto", "testua")
LOOK = 1000  # so many records are looked at before the column is chosen
WORDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class Record:
    """What one line or row held: its text, or why it has none."""

    line: int
    text: str = ""
    fault: str = ""


Row = tuple[int, dict[str, Any] | None, str]  # line, fields by name, fault when there are no fields


def choose_column(rows: Iterable[dict[str, Any]]) -> str:
    """The name of the text column: a usual name that holds strings, else the one with most text; "" if none."""
    size: Counter[str] = Counter()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str):
                size[name] += len(value)
    usual = [n for word in NAMES for n in size if n.lower().strip() == word and size[n]]
    if usual:
        return usual[0]
    best = max(sorted(size), key=lambda n: size[n], default="")
    return best if size[best] else ""


def pick(rows: Iterator[Row], column: str, chosen: dict[str, str], source: str) -> Iterator[Record]:
    """Take the text column out of rows; ``chosen[source]`` is set to the column that was found out."""
    first: list[Row] = []
    if not column:
        size = 0
        for row in rows:
            first.append(row)
            size += sum(len(v) for v in (row[1] or {}).values() if isinstance(v, str))
            if len(first) == LOOK or size > 1 << 24:
                break
        column = choose_column(fields for _, fields, _ in first if fields is not None)
    if column:
        chosen[source] = column
    for group in (first, rows):
        for line, fields, fault in group:
            yield _record(line, fields, fault, column)


def _record(line: int, fields: dict[str, Any] | None, fault: str, column: str) -> Record:
    if fields is None:
        return Record(line, fault=fault)
    if column not in fields:
        return Record(line, fault=f"no column {column}" if column else "no column of text")
    value = fields[column]
    if isinstance(value, str):
        return Record(line, text=value)
    return Record(line, fault="text is missing" if value is None else f"text is {WORDS.get(type(value), 'no text')}")


def json_rows(lines: Iterable[str | None]) -> Iterator[Row]:
    """One row for each line of JSON Lines that is not blank; a bare string is a text."""
    for number, line in enumerate(lines, 1):
        if line is None:
            yield number, None, "longer than any line may be"
        elif stripped := line.strip("\ufeff \t\r\n\x1e"):
            yield number, *json_fields(stripped)


def json_fields(line: str) -> tuple[dict[str, Any] | None, str]:
    """The fields of one JSON value, or None and why there are none."""
    try:
        value = json.loads(line)
    except RecursionError:
        return None, "nested too deep"
    except ValueError:
        return None, "not JSON"
    if isinstance(value, str):
        return {"text": value}, ""
    if isinstance(value, dict):
        return value, ""
    return None, "not an object"


def json_document_rows(text: str) -> Iterator[Row]:
    """The rows of one .json file: a list of records, one record, or JSON Lines under that name."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        yield from json_rows(text.split("\n"))
        return
    for number, item in enumerate(value if isinstance(value, list) else [value], 1):
        fields = {"text": item} if isinstance(item, str) else item
        yield (number, fields, "") if isinstance(fields, dict) else (number, None, "not an object")


def csv_rows(lines: Iterator[str | None], column: str) -> Iterator[Row]:
    """One row for each record of a CSV or TSV file; the separator and whether there is a header are found out."""
    csv.field_size_limit(min(sys.maxsize, 1 << 30))
    first: list[str] = []
    for line in lines:
        first.append(line or "")
        if len(first) == 50:
            break
    feed = (f"{line}\n" for group in (first, lines) for line in group if line is not None)
    reader = csv.reader(feed, delimiter=separator(first))
    names: list[str] | None = None
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, None, f"not CSV: {error}"
            continue
        if not row:
            continue
        if names is None:
            header = _is_header(row, column)
            names = [c.strip("\ufeff ") for c in row] if header else [f"column {i}" for i in range(1, len(row) + 1)]
            if header:
                continue
        yield reader.line_num, dict(zip(names, row, strict=False)), ""


def separator(lines: list[str]) -> str:
    """The separator that cuts the first records into the same number of fields, more than one, most often."""
    best, score = ",", 0.0
    for mark in ",;\t|":
        try:
            widths = Counter(len(row) for row in csv.reader((f"{line}\n" for line in lines), delimiter=mark) if row)
        except csv.Error:
            continue
        share, width = max(((n / sum(widths.values()), w) for w, n in widths.items() if w > 1), default=(0.0, 1))
        if share * (1 - 0.5 / width) > score:
            best, score = mark, share * (1 - 0.5 / width)
    return best


def _is_header(row: list[str], column: str) -> bool:
    """Say whether the first row names columns: all short, different, and no sentence among them."""
    cells = [c.strip("\ufeff ") for c in row]
    if column:
        return column in cells
    if any(c.lower() in NAMES for c in cells):
        return True
    short = all(0 < len(c) <= 40 and not c.endswith((".", "!", "?")) and c.count(" ") <= 3 for c in cells)
    return len(cells) > 1 and short and len(set(cells)) == len(cells) and not any(c[:1].isdigit() for c in cells)


def parquet_rows(file: BinaryIO, column: str) -> Iterator[Row]:
    """One row for each row of a parquet file; only columns of strings are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    schema = table.schema_arrow

    def holds_text(kind: pa.DataType) -> bool:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    wanted = [column] if column else [f.name for f in schema if holds_text(f.type)]
    number = 0
    for batch in table.iter_batches(batch_size=512, columns=[c for c in wanted if c in schema.names]):
        rows = batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows
        for row in rows:
            number += 1
            yield number, row, ""
