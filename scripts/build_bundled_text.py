# SPDX-License-Identifier: Apache-2.0
"""Build the bundled text (`src/lect/data/*.jsonl.zst`) from Debian's packages.

    python scripts/build_bundled_text.py                 # fetches the packages with `apt-get download`
    python scripts/build_bundled_text.py --debs FOLDER   # uses the .deb files in FOLDER
    python scripts/build_bundled_text.py --check         # builds, compares with the files, writes nothing

Needs only Python, lxml and zstandard; a .deb is read as what it is, an `ar` archive with a tar inside.
The same packages give the same bytes: the order is by hash, nothing is sampled, no clock is read.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import lxml.html
import zstandard

DATA = Path(__file__).resolve().parent.parent / "src" / "lect" / "data"

# package -> (version, sha256 of the .deb)
PACKAGES = {
    "libreoffice-help-eu": ("4:7.4.7-1+deb12u14", "e88eaa5da5d9254a7c9bc1a6ac89d04758380adc044f9a007f666de68ef9aa91"),
    "libreoffice-help-en-us": (
        "4:7.4.7-1+deb12u14",
        "8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712",
    ),
    "libreoffice-help-km": ("4:7.4.7-1+deb12u14", "58700c6513c15d78e6dbbfda82b05f45fcb5a8acf0832f3dca50918d71e27f50"),
    "r-cran-janeaustenr": ("1.0.0-1", "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95"),
}
# language -> package of its help, folder in it, how Unicode's names of its letters begin (None: Latin, as in English)
HELPS: dict[str, tuple[str, str, str | None]] = {
    "eu": ("libreoffice-help-eu", "eu", None),
    "en": ("libreoffice-help-en-us", "en-US", None),
    "km": ("libreoffice-help-km", "km", "KHMER"),
}

ENGLISH_HELP = 3  # one page of the English help in so many, by hash; a novel is the rest
SHORTEST_DOCUMENT = 200  # characters
TRANSLATABLE = 3  # words; a paragraph of at least so many should have been translated
OWN_SCRIPT = 0.5  # share of a page's letters and marks; a page with less of its own script is left out
REPEATED_PARAGRAPH = 40  # characters; a paragraph at least this long is kept once
LONGEST_CELL = 60  # characters; a table row of cells no longer than this becomes one line
PASSAGE = 4000  # characters; books are cut into passages of about this size, at paragraph ends
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
BLOCKS = " or ".join(f"self::{tag}" for tag in ("p", "li", "td", "th", *HEADINGS))
INNER_BLOCKS = "|".join(f".//{tag}" for tag in ("p", "li", "td", *HEADINGS))
LEFT_OUT_CLASSES = {
    "howtoget", "relatedtopics", "icontable", "noteicon",  # menus to the command, links, icons
    "bascode", "pycode", "sqlcode", "code", "codeintable", "smathcode",  # programs, not prose
}  # fmt: skip
LEFT_OUT_TAGS = {"script", "style", "pre", "img", "nav", "footer", "meta"}

BEGIN, END = "<!-- counts: written by scripts/build_bundled_text.py -->", "<!-- end of counts -->"

Pages = dict[str, list[tuple[str, bool]]]  # page -> its paragraphs, each with: is it written on another page?


def squeeze(text: str) -> str:
    """One line with single spaces."""
    return " ".join(text.split())


# -- packages ---------------------------------------------------------------------------------------------------


def find_debs(packages: dict[str, tuple[str, str]], folder: Path | None, scratch: Path) -> dict[str, Path]:
    """The .deb of every package, checked against its sha256; fetched with apt-get where no folder is given."""
    if folder is None:
        names = [f"{name}={version}" for name, (version, _) in packages.items()]
        subprocess.run(["apt-get", "download", *names], cwd=scratch, check=True)
        folder = scratch
    found = {}
    for name, (version, wanted) in packages.items():
        files = sorted(folder.glob(f"{name}_*.deb"))
        if not files:
            sys.exit(f"no {name}_*.deb in {folder}; get version {version} of the Debian package {name}")
        got = hashlib.sha256(files[0].read_bytes()).hexdigest()
        if got != wanted:
            sys.exit(f"{files[0].name} has sha256 {got}, wanted {wanted} (version {version}): another package")
        found[name] = files[0]
    return found


def unpack(deb: Path) -> tarfile.TarFile:
    """The files of a .deb: the `data.tar.*` member of its ar archive."""
    raw = deb.read_bytes()
    place = 8
    while place < len(raw):
        name = raw[place : place + 16].decode().strip().rstrip("/")
        size = int(raw[place + 48 : place + 58])
        if name.startswith("data.tar"):
            return tarfile.open(fileobj=io.BytesIO(raw[place + 60 : place + 60 + size]))
        place += 60 + size + size % 2
    sys.exit(f"{deb.name} holds no data.tar")


def member(deb: Path, ending: str) -> bytes:
    """The one file of a package whose path ends so."""
    with unpack(deb) as tar:
        for info in tar:
            if info.isfile() and info.name.endswith(ending):
                handle = tar.extractfile(info)
                if handle is not None:
                    return handle.read()
    sys.exit(f"{deb.name} holds no file *{ending}")


# -- software help ----------------------------------------------------------------------------------------------


def only_the_default_wording(area: lxml.html.HtmlElement) -> None:
    """Where a page words something per system or module, keep the wording that is shown by default."""
    for switch in area.xpath(".//*[@class='switch' or @class='switchinline']"):
        wordings = list(switch)
        default = [w for w in wordings if (w.get("id") or "").startswith("default")] or wordings[:1]
        for wording in wordings:
            if wording not in default:
                wording.drop_tree()


def paragraphs(page: bytes) -> Iterator[tuple[str, bool]]:
    """(paragraph, whether it is shown here but written on another page) of a help page."""
    tree = lxml.html.document_fromstring(page, parser=lxml.html.HTMLParser(encoding="utf-8"))
    for area in tree.xpath("//*[@id='DisplayArea']"):
        only_the_default_wording(area)
        for element in area.xpath(".//*"):
            classes = set((element.get("class") or "").split())
            linked = element.tag == "p" and "embedded" in classes
            if element.tag in LEFT_OUT_TAGS or classes & LEFT_OUT_CLASSES or linked:
                element.drop_tree()
        for gap in area.xpath(".//br"):
            gap.tail = "\n" + (gap.tail or "")
        rows: dict[object, list[str]] = {}
        blocks = []
        for block in area.xpath(f".//*[{BLOCKS}]"):
            if block.xpath(INNER_BLOCKS):
                continue
            text = squeeze(block.text_content())
            if text:
                row = next(iter(block.xpath("ancestor-or-self::tr[1]")), block)
                rows.setdefault(row, []).append(text)
                blocks.append((row, bool(block.xpath("ancestor::div[@class='embedded']"))))
        for row, embedded in dict(blocks).items():
            cells = rows[row]
            short = max(map(len, cells)) <= LONGEST_CELL
            yield from ((text, embedded) for text in ([" | ".join(cells)] if short else cells))


def help_pages(deb: Path, language: str) -> Pages:
    """Every help page of a package, by its path."""
    marker = f"/help/{language}/text/"
    pages = {}
    with unpack(deb) as tar:
        for info in tar:
            if info.isfile() and marker in info.name and info.name.endswith(".html"):
                handle = tar.extractfile(info)
                if handle is not None:
                    pages[info.name.split(marker)[1].removesuffix(".html")] = list(paragraphs(handle.read()))
    return dict(sorted(pages.items()))


def english_paragraphs(pages: Pages) -> set[str]:
    """What stands in the English help and should stand in no translation."""
    return {text for parts in pages.values() for text, _ in parts if len(text.split()) >= TRANSLATABLE}


def keep_once(pages: Pages, unwanted: set[str]) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Pages without unwanted paragraphs, and with each long paragraph only where it was written.

    Help pages show parts of each other. A paragraph kept twice could stand in training and in test.
    """
    home: dict[str, str] = {}
    for embedded in (False, True):
        for page, parts in pages.items():
            for text, shown in parts:
                if shown == embedded and len(text) >= REPEATED_PARAGRAPH:
                    home.setdefault(text, page)
    kept: dict[str, list[str]] = {}
    counts = {"paragraphs": 0, "repeated": 0, "as_in_english": 0}
    for page, parts in pages.items():
        lines: list[str] = []
        for text, _ in parts:
            counts["paragraphs"] += 1
            if text in unwanted:
                counts["as_in_english"] += 1
            elif len(text) >= REPEATED_PARAGRAPH and (home[text] != page or text in lines):
                counts["repeated"] += 1
            else:
                lines.append(text)
        kept[page] = lines
    return kept, counts


def own_share(text: str, script: str | tuple[str, ...]) -> float:
    """Which share of the letters and combining marks of a text is of a script; 0 for a text without any."""
    found = Counter(char for char in text if unicodedata.category(char)[0] in "LM")
    own = sum(count for char, count in found.items() if unicodedata.name(char, "").startswith(script))
    return own / max(1, found.total())


def only_translated(
    pages: dict[str, list[str]], script: str | tuple[str, ...]
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Pages in one script: without broken paragraphs and those in other scripts, then without pages mostly in others.

    An old translation holds English that has since changed in the English pages, so comparing is not enough. Names of
    functions and programs stay, and so does a short paragraph on a page that is otherwise translated.
    """
    kept: dict[str, list[str]] = {}
    counts = {"broken": 0, "foreign": 0, "foreign_pages": 0}
    for page, lines in pages.items():
        good = []
        for line in lines:
            if any(unicodedata.category(char) == "Cc" for char in line):
                counts["broken"] += 1
            elif len(line.split()) >= TRANSLATABLE and not own_share(line, script):
                counts["foreign"] += 1
            else:
                good.append(line)
        if len("\n".join(good)) < SHORTEST_DOCUMENT or own_share("\n".join(good), script) >= OWN_SCRIPT:
            kept[page] = good
        else:
            counts["foreign_pages"] += 1
    return kept, counts


# -- books ------------------------------------------------------------------------------------------------------


def unwrap(text: str) -> list[str]:
    """Hard-wrapped text as one line per paragraph."""
    return [line for part in re.split(r"\n[ \t]*\n", text) if (line := squeeze(part))]


def passages(name: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    """A book as documents of about PASSAGE characters, cut between paragraphs."""
    held: list[str] = []
    number = 0
    for line in lines:
        held.append(line)
        if sum(map(len, held)) >= PASSAGE:
            yield f"{name}/{number:03d}", "\n".join(held)
            held, number = [], number + 1
    if held:
        yield f"{name}/{number:03d}", "\n".join(held)


def persuasion(deb: Path) -> list[str]:
    """Persuasion, out of R's lazy-load file: compressed records, each a vector of lines in R's XDR format."""
    raw = member(deb, "/janeaustenr/data/Rdata.rdb")
    place = 0
    while place < len(raw):
        inflate = zlib.decompressobj()
        record = inflate.decompress(raw[place + 4 :])
        place = len(raw) - len(inflate.unused_data)
        lines = strings(record)
        if lines and lines[0].strip() == "Persuasion":
            text = "\n".join(lines)
            return unwrap(text[text.index("Chapter 1") :])
    sys.exit(f"{deb.name} holds no Persuasion")


def strings(record: bytes) -> list[str]:
    """A character vector in R's serialisation, version 3: header, native encoding, then (flags, length, bytes)."""
    _, _, _, encoding = struct.unpack(">4i", record[2:18])
    place = 18 + encoding
    flags, count = struct.unpack(">2i", record[place : place + 8])
    if record[:2] != b"X\n" or flags & 0xFF != 16:
        sys.exit("the record is not a character vector in R's XDR format")
    place += 8
    lines = []
    for _ in range(count):
        length = struct.unpack(">i", record[place + 4 : place + 8])[0]
        lines.append(record[place + 8 : place + 8 + length].decode("utf-8"))
        place += 8 + length
    return lines


# -- all together -----------------------------------------------------------------------------------------------


def build(debs: dict[str, Path]) -> tuple[dict[str, list[dict[str, str]]], dict[str, dict[str, int]]]:
    """Language -> documents in their order, and what was counted on the way."""
    pages = {language: help_pages(debs[package], folder) for language, (package, folder, _) in HELPS.items()}
    english = english_paragraphs(pages["en"])
    counts: dict[str, dict[str, int]] = {}
    found: dict[str, list[tuple[str, str, str, str]]] = {}
    for language, (package, _, script) in HELPS.items():
        kept, counts[language] = keep_once(pages[language], set() if language == "en" else english)
        if script is not None:
            kept, left_out = only_translated(kept, script)
            counts[language] |= left_out
        found[language] = [
            (f"help/{page}", "\n".join(lines), package, "MPL-2.0")
            for page, lines in kept.items()
            if language != "en" or hashlib.sha256(page.encode()).digest()[0] % ENGLISH_HELP == 0
        ]
    austen = "r-cran-janeaustenr"
    novel = passages("persuasion", persuasion(debs[austen]))
    found["en"] += [(name, text, austen, "public domain") for name, text in novel]
    documents = {}
    for language, rows in found.items():
        long_enough = [row for row in rows if len(row[1]) >= SHORTEST_DOCUMENT]
        counts[language]["too_short"] = len(rows) - len(long_enough)
        long_enough.sort(key=lambda row: hashlib.sha256(row[0].encode()).digest())
        documents[language] = [
            {
                "id": f"{language}/{name}",
                "text": text,
                "source": f"{package} {PACKAGES[package][0]}",
                "licence": licence,
            }
            for name, text, package, licence in long_enough
        ]
    return documents, counts


def lines_of(documents: list[dict[str, str]]) -> bytes:
    """The documents as JSON Lines."""
    return "".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents).encode()


def facts(documents: dict[str, list[dict[str, str]]], counts: dict[str, dict[str, int]]) -> str:
    """What the README says in numbers."""
    rows = ["| file | Debian package | licence | documents | bytes of text |", "|---|---|---|---:|---:|"]
    for language, items in documents.items():
        for source in sorted({d["source"] for d in items}):
            own = [d for d in items if d["source"] == source]
            size = sum(len(d["text"].encode()) for d in own)
            rows.append(f"| `{language}.jsonl.zst` | {source} | {own[0]['licence']} | {len(own):,} | {size:,} |")
    words = {
        "repeated": "stood on another page too",
        "as_in_english": "not translated, word for word as in English",
        "foreign": f"of {TRANSLATABLE} words or more without a letter of the language's script",
        "broken": "with broken characters",
    }
    for language, numbers in counts.items():
        left = ", ".join(f"{numbers[key]:,} {text}" for key, text in words.items() if numbers.get(key))
        rows += ["", f"`{language}`: of {numbers['paragraphs']:,} help paragraphs left out: {left};"]
        if numbers.get("foreign_pages"):
            rows += [f"then {numbers['foreign_pages']:,} pages with less than {OWN_SCRIPT:.0%} of their letters in it;"]
        rows += [f"then {numbers['too_short']:,} pages and entries of less than {SHORTEST_DOCUMENT} characters."]
    sums = [f"{hashlib.sha256(lines_of(items)).hexdigest()}  {language}.jsonl" for language, items in documents.items()]
    return "\n".join([*rows, "", "sha256 of the files when unpacked:", "", "```", *sums, "```"])


def main() -> int:
    """Build, then write or compare."""
    parser = argparse.ArgumentParser(description="Build the bundled text from Debian's packages.")
    parser.add_argument("--debs", type=Path, help="folder with the .deb files; fetched with apt-get when not given")
    parser.add_argument("--check", action="store_true", help="compare with the files there and write nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        documents, counts = build(find_debs(PACKAGES, options.debs, Path(scratch)))
    readme = DATA / "README.md"
    before, _, after = readme.read_text("utf-8").partition(BEGIN)
    text = before + BEGIN + "\n" + facts(documents, counts) + "\n" + END + after.partition(END)[2]
    wrong = [readme.name] if readme.read_text("utf-8") != text else []
    for language, items in documents.items():
        file = DATA / f"{language}.jsonl.zst"
        plain = lines_of(items)
        there = zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read() if file.exists() else b""
        wrong += [file.name] if there != plain else []
        if there != plain and not options.check:
            file.write_bytes(zstandard.ZstdCompressor(level=22).compress(plain))
        print(f"{file.name}: {len(items)} documents, {len(plain):,} bytes")
    if not options.check:
        readme.write_text(text, "utf-8")
    print(("differ: " if options.check else "written: ") + (", ".join(wrong) or "none"))
    return 1 if wrong and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
