# SPDX-License-Identifier: Apache-2.0
"""Every text in a set of paths, in a fixed order, with an account of what gave none."""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lect.stages.corpus.reading.account import Account, Text
from lect.stages.corpus.reading.decode import Decoder, cut, is_binary, lines, texts
from lect.stages.corpus.reading.files import DAMAGED, Item, Limits, Refused, items, readable, walk
from lect.stages.corpus.reading.html import declared_encoding
from lect.stages.corpus.reading.records import Row, csv_rows, json_document_rows, json_rows, parquet_rows, pick
from lect.stages.corpus.reading.sandbox import Broken, Sandbox

HTML = (".html", ".htm", ".xhtml")
JSON_LINES = (".jsonl", ".ndjson", ".jsonlines")
TABLES = (".csv", ".tsv")
PLAIN = (".txt", ".md", ".markdown", ".text", ".rst", "")
MOST_WORKERS = 4


@dataclass
class Collector:
    """Reads paths; ``account`` says afterwards what was met."""

    column: str
    html: str
    most_bytes: int
    limits: Limits
    html_bytes: int
    html_seconds: float
    html_memory: int
    account: Account = field(default_factory=Account)
    progress: Callable[[int], None] = lambda size: None

    def __post_init__(self) -> None:
        self._local = threading.local()
        self._sandboxes: list[Sandbox] = []

    def collect(self, paths: Iterable[Path]) -> Iterator[Text]:
        """Yield the texts of all files under ``paths``, in their order."""
        workers = min(MOST_WORKERS, os.cpu_count() or 1)
        pages: deque[tuple[Item, Future[bytes]]] = deque()
        pool = ThreadPoolExecutor(workers)
        try:
            for item in self._items(paths):
                if item.suffix in HTML:
                    if (data := self._html_source(item)) is not None:
                        pages.append((item, pool.submit(self._extract, data)))
                    if len(pages) >= 8 * workers:
                        yield from self._page(*pages.popleft())
                    continue
                while pages:
                    yield from self._page(*pages.popleft())
                yield from self._guarded(item, self._read(item))
            while pages:
                yield from self._page(*pages.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for sandbox in self._sandboxes:
                sandbox.close()  # wakes a thread that waits for a slow page
            pool.shutdown(wait=True)
            self._sandboxes.clear()

    def _items(self, paths: Iterable[Path]) -> Iterator[Item]:
        for top in paths:
            for path, fault in walk(top):
                if fault or not readable(path):
                    self.account.drop_file(path.as_posix(), fault or "unreadable")
                    continue
                self.account.files += 1
                try:
                    for item in items(path, self.limits):
                        if item.suffix == ".hidden":
                            self.account.drop_file(item.name, "hidden")
                        else:
                            yield item
                except Refused as refused:
                    self.account.drop_file(path.as_posix(), refused.reason, refused.detail)
                except (*DAMAGED, NotImplementedError, RuntimeError) as error:
                    self.account.drop_file(path.as_posix(), "damaged_archive", str(error))
                self.progress(path.stat().st_size)

    def _guarded(self, item: Item, found: Iterator[Text]) -> Iterator[Text]:
        """What could be read before the first fault of the file itself, and the fault."""
        try:
            yield from found
        except Refused as refused:
            self.account.drop_file(item.name, refused.reason, refused.detail)
        except DAMAGED as error:
            self.account.drop_file(item.name, "damaged_file", str(error))

    def _read(self, item: Item) -> Iterator[Text]:
        if item.suffix == ".parquet":
            yield from self._parquet(item)
            return
        head = item.head()
        if not head:
            self.account.drop_file(item.name, "empty_file")
            return
        if is_binary(head):
            self.account.drop_file(item.name, "binary")
            return
        decoder = Decoder()
        pieces = texts(item.chunks(), decoder)
        if item.suffix in JSON_LINES:
            yield from self._records(item, "jsonl", json_rows(lines(pieces)))
        elif item.suffix == ".json":
            whole = item.data(self.html_bytes * 16)
            yield from self._records(item, "json", json_document_rows(decoder(whole, True)))
        elif item.suffix in TABLES:
            yield from self._records(item, "csv", csv_rows(lines(pieces), self.column))
        else:
            self.account.formats["text"] += 1
            yield from self._cut(pieces, item.name, {})
        self.account.encodings[decoder.encoding or "ascii"] += 1
        self.account.bad_bytes(item.name, decoder.bad)

    def _parquet(self, item: Item) -> Iterator[Text]:
        import pyarrow as pa

        try:
            with item.open() as file:
                whole = file if item.name.endswith(".parquet") and ":" not in item.name else None
                source = whole or io.BytesIO(item.data(self.limits.expanded_bytes))
                yield from self._records(item, "parquet", parquet_rows(source, self.column))
        except (pa.ArrowException, OSError) as error:
            self.account.drop_file(item.name, "damaged_file", str(error).split("\n")[0])

    def _records(self, item: Item, kind: str, rows: Iterator[Row]) -> Iterator[Text]:
        self.account.formats[kind] += 1
        count = 0
        for record in pick(rows, self.column, self.account.columns, item.name):
            count += 1
            if record.fault:
                self.account.drop_line(item.name, record.line, record.fault)
            elif not record.text.strip():
                self.account.drop_line(item.name, record.line, "empty")
            else:
                yield from self._cut([record.text], item.name, {"line": record.line})
        if not count:
            self.account.drop_file(item.name, "no_records")

    def _cut(self, pieces: Iterable[str], source: str, place: dict[str, int]) -> Iterator[Text]:
        """The text in parts that are not too long; what cannot be written as UTF-8 becomes U+FFFD and is counted."""
        for number, part in enumerate(cut(pieces, self.most_bytes)):
            clean = part
            try:
                part.encode("utf-8")
            except UnicodeEncodeError:
                clean = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in part)
                self.account.bad_bytes(source, sum("\ud800" <= c <= "\udfff" for c in part))
            if clean.strip():
                self.account.texts += 1
                yield Text(clean, source, place | ({"part": number} if number else {}))
            elif not number:
                self.account.drop_file(source, "empty_file")

    def _html_source(self, item: Item) -> bytes | None:
        """The page as UTF-8, decoded as its bytes or its own word suggest; None when there is nothing to extract."""
        try:
            data = item.data(self.html_bytes)
        except Refused as refused:
            self.account.drop_file(item.name, refused.reason, refused.detail)
            return None
        except DAMAGED as error:
            self.account.drop_file(item.name, "damaged_file", str(error))
            return None
        if not data.strip() or is_binary(data):
            self.account.drop_file(item.name, "binary" if data.strip() else "empty_file")
            return None
        decoder = Decoder(declared_encoding(data))
        text = decoder(data, True)
        self.account.encodings[decoder.encoding or "ascii"] += 1
        self.account.bad_bytes(item.name, decoder.bad)
        self.account.formats["html"] += 1
        return text.encode("utf-8", "replace")

    def _extract(self, data: bytes) -> bytes:
        """Call this thread's worker."""
        sandbox = getattr(self._local, "sandbox", None)
        if sandbox is None:
            function = f"lect.stages.corpus.reading.html:{'article' if self.html == 'article' else 'whole_page'}"
            sandbox = Sandbox(function, memory_bytes=self.html_memory, seconds=self.html_seconds)
            self._local.sandbox = sandbox
            self._sandboxes.append(sandbox)
        return sandbox.call(data)

    def _page(self, item: Item, future: Future[bytes]) -> Iterator[Text]:
        try:
            text = future.result().decode("utf-8")
        except Broken as broken:
            self.account.drop_file(item.name, f"html_{broken.args[0].lower()}")
            return
        if not text.strip():
            self.account.drop_file(item.name, "no_text_in_html")
            return
        yield from self._cut([text], item.name, {})
