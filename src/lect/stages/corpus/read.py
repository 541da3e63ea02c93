# SPDX-License-Identifier: Apache-2.0
"""Read the user's files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

from lect.artefacts import Document, Sources
from lect.errors import UserError
from lect.method import OneOf, Range, Run, knobs
from lect.stages.corpus.kinds import Reader, document_id
from lect.stages.corpus.reading.collect import Collector
from lect.stages.corpus.reading.files import Limits

CARD = {
    "title": "Read text in any usual format and encoding",
    "paper": "",
    "claim": "Every document read is kept or dropped for a named reason; no input makes it crash or hang.",
    "differs": [],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Read(Reader):
    """A corpus out of files and folders, with an account of every file, line and byte that could not be read.

    Reads .txt, .md and any other text, .html, .jsonl, .json, .csv, .tsv and .parquet, and .gz, .zst, .bz2, .xz and .zip
    of these. The encoding is found out (UTF-8 first); what cannot be decoded becomes U+FFFD and is counted. JSON
    Lines are read line by line: a bad line costs one line, and is named by file, line and reason. HTML is taken
    apart in a worker process under a time and a memory limit. Archives that grow past their limits are refused.
    Raises UserError for a path that is not there and for text of which nothing is readable.
    """

    column: str | None = None
    """Column or field that holds the text in JSON, CSV and parquet; null finds it out."""
    html: Annotated[str, OneOf("article", "page")] = "article"
    """What of a web page is text: its main article, if it has one, or all that it says outside menus (page)."""
    max_document_bytes: Annotated[int, Range(at_least=256)] = 8_000
    """Documents longer than this many bytes are cut at blank lines, else lines, else words."""
    max_html_bytes: Annotated[int, Range(at_least=1)] = 20_000_000
    """Web pages larger than this many bytes are dropped."""
    max_html_seconds: Annotated[float, Range(above=0)] = 20.0
    """Web pages that take longer than this many seconds are dropped."""
    max_html_memory: Annotated[int, Range(at_least=500_000_000)] = 2_000_000_000
    """Address space of the worker that takes web pages apart, in bytes."""
    max_expanded_bytes: Annotated[int, Range(at_least=1)] = 50_000_000_000
    """Compressed files and archives that grow past this many bytes are refused."""
    max_expansion: Annotated[float, Range(at_least=1)] = 200.0
    """Compressed files that grow past this many times their size (and past 64 MiB) are refused."""
    max_archive_entries: Annotated[int, Range(at_least=1)] = 200_000
    """Archives with more files than this are refused."""

    def read(self, run: Run, sources: Sources) -> Iterator[Document]:
        """Yield the documents of the target files, then of the kept ones."""
        roles = [role for role in ("target", "kept") if any(r == role for r, _ in sources.files)]
        if "target" not in roles:
            raise UserError("no text was given; name at least one file or folder with text in it")
        facts: dict[str, dict[str, object]] = {}
        for role in roles:
            paths = [path for r, path in sources.files if r == role]
            for path in paths:
                if not path.exists():
                    raise UserError(f"{path}: there is no such file or folder; check the path")
            total = sum(p.stat().st_size for p in paths if p.is_file())
            seen = [0]

            def progress(size: int, seen: list[int] = seen, total: int = total) -> None:
                seen[0] += size
                run.progress(seen[0], max(total, seen[0]), "byte")

            collector = self.collector()
            collector.progress = progress
            size = 0
            for text in collector.collect(paths):
                size += len(text.text.encode())
                meta = json.dumps(text.place)
                yield Document(document_id(role, text.text), text.text, text.source, role=role, meta=meta)
            account = collector.account
            facts[role] = account.facts() | {"bytes": size}
            if not account.texts:
                why = ", ".join(f"{n} {reason}" for reason, n in account.dropped.items()) or "no files in it"
                named = ", ".join(map(str, paths[:3]))
                raise UserError(f"{named}: nothing readable as {role} text ({why}); give files that hold text")
            if account.dropped or account.undecodable:
                run.say(f"{role}: {_summary(account.facts())}")
        run.fact(**_together(facts))

    def collector(self) -> Collector:
        """The reader of paths that these knobs ask for."""
        return Collector(
            column=self.column or "",
            html=self.html,
            most_bytes=self.max_document_bytes,
            limits=Limits(self.max_expanded_bytes, self.max_expansion, self.max_archive_entries),
            html_bytes=self.max_html_bytes,
            html_seconds=self.max_html_seconds,
            html_memory=self.max_html_memory,
        )


def _summary(facts: dict[str, object]) -> str:
    lost = facts["dropped"]
    assert isinstance(lost, dict)
    words = [f"{facts['kept']} of {facts['read']} documents read"]
    words += [f"{n} {reason}" for reason, n in lost.items()]
    undecodable = facts["undecodable"]
    assert isinstance(undecodable, dict)
    if undecodable["count"]:
        words.append(f"{undecodable['count']} characters could not be decoded in {undecodable['files']} files")
    return "; ".join(words)


def _together(roles: dict[str, dict[str, object]]) -> dict[str, object]:
    """The counts over all roles, and those of each."""
    dropped: dict[str, int] = {}
    sums = {"read": 0, "kept": 0, "bytes": 0}
    for facts in roles.values():
        for name in sums:
            sums[name] += int(str(facts[name]))
        lost = facts["dropped"]
        assert isinstance(lost, dict)
        for reason, n in lost.items():
            dropped[reason] = dropped.get(reason, 0) + n
    return {**sums, "dropped": dropped, "roles": roles}
