# SPDX-License-Identifier: Apache-2.0
"""From HTML to text; runs in the sandbox."""

from __future__ import annotations

import re

CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([a-zA-Z0-9_:.-]{2,40})""", re.IGNORECASE)
XML_CHARSET = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([a-zA-Z0-9_:.-]{2,40})""")
XML_HEAD = re.compile(r"^\s*<\?xml[^>]*\?>")
ASIDE = 1 / 3  # share of the letters of a page
SILENT = ("script", "style", "template", "noscript", "svg", "math", "iframe", "object", "head", "select", "button")
AROUND = ("nav", "header", "footer", "aside", "form")
BLOCK_NAMES = "address article blockquote body caption center dd details div dl dt fieldset figcaption figure h1 h2"
BLOCK_NAMES += " h3 h4 h5 h6 hr html li main ol p pre section summary table tbody tfoot thead tr ul"
BLOCKS = frozenset(BLOCK_NAMES.split())


def declared_encoding(data: bytes) -> str:
    """The encoding that a page says it has, or ""."""
    found = XML_CHARSET.search(data[:1024]) or CHARSET.search(data[:4096])
    return found.group(1).decode("ascii") if found else ""


def article(data: bytes) -> bytes:
    """The main text of a page if more than ``ASIDE`` of the page is something else, else the whole page. UTF-8.

    The extractor (trafilatura) leaves headings and lists out of a page that is all text, and takes menus in where it
    finds no article; a page without much around its text is better taken whole.
    """
    import trafilatura

    page = XML_HEAD.sub("", data.decode("utf-8", "replace"), count=1)
    whole = whole_page(data)
    text = trafilatura.extract(page, fast=True, include_comments=False) or ""
    if not text or _letters(text) >= (1 - ASIDE) * _letters(whole.decode()) > 0:
        return whole
    return text.encode("utf-8", "replace")


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


def whole_page(data: bytes) -> bytes:
    """All that a page says, block by block, without navigation, scripts and forms. UTF-8."""
    from lxml import etree, html  # type: ignore[import-untyped]

    page = XML_HEAD.sub("", data.decode("utf-8", "replace"), count=1).replace("\0", "")
    if not page.strip():
        return b""
    try:
        tree = html.document_fromstring(page, parser=html.HTMLParser(remove_comments=True, huge_tree=True))
    except etree.ParserError:  # nothing but comments
        return b""
    pieces: list[str] = []
    skipped = None
    for event, node in etree.iterwalk(tree, events=("start", "end")):
        if skipped is None and event == "start":
            if node.tag in SILENT or node.tag in AROUND:
                skipped = node
                continue
            if node.tag in BLOCKS or node.tag == "br":
                pieces.append("\n\n" if node.tag in BLOCKS and node.tag not in ("tr", "li", "dt", "dd") else "\n")
            elif node.tag in ("td", "th"):
                pieces.append("\t")
            pieces.append(_text(node.text, node.tag == "pre"))
        elif event == "end":
            if skipped is node:
                skipped = None
            if skipped is None:
                if node.tag in BLOCKS:
                    pieces.append("\n")
                pieces.append(_text(node.tail, False))
    lines = [line.strip(" \t") for line in "".join(pieces).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip().encode("utf-8", "replace")


def _text(value: str | None, keep: bool) -> str:
    return "" if not value else value if keep else re.sub(r"[ \t\r\n\f]+", " ", value)
