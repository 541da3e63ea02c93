# SPDX-License-Identifier: Apache-2.0
"""Terms: where listed ones stand in a text, and which a text of a field has."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from pathlib import Path

import networkx
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lect import data
from lect.errors import UserError
from lect.ops import terms
from lect.ops.text import encode, encode_spans
from lect.testing import pico


def tokens(family: str, text: str, listing: dict[str, int]) -> list[tuple[str, int, bool]]:
    """Each token's stretch of the text, its class, and whether it begins something."""
    ((_, spans_t2),) = encode_spans(pico.build(family)[1], [text])
    class_t, first_t = terms.Matcher(listing).tokens(text, spans_t2)
    return [(text[a:b], int(c), bool(f)) for (a, b), c, f in zip(spans_t2.tolist(), class_t, first_t, strict=True)]


@pytest.mark.parametrize("family", ["bert", "gemma3", "gpt2"])
def test_terms_are_found_whole_the_longest_first_and_not_across_punctuation(family: str) -> None:
    listing = {"pivot table": 1, "table": 2, "table row": 3, "naïve row": 4}
    text = "The Pivot-Table row. Tables, a pivot, table; TABLE\nRow? NAÏVE row"
    found = tokens(family, text, listing)
    runs: list[tuple[int, str]] = []
    for surface, number, first in found:
        if number > 0 and not first:
            runs[-1] = number, runs[-1][1] + surface
        else:
            runs.append((number, surface))
    listed = [(number, term.replace(" ", "").replace("\n", "")) for number, term in runs if number > 0]
    assert [n for n, _ in listed] == [1, 2, 3, 4]
    if family == "bert":  # tokens of the others may be bytes of a character
        assert [t.casefold() for _, t in listed] == ["pivot-table", "table", "tablerow", "naïverow"]
    outside = {surface.strip() for number, surface in runs if number == -1}
    assert {",", ";"} <= outside and not any(c.isalnum() for surface in outside for c in surface)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60), st.lists(st.text(max_size=8), max_size=4), st.sampled_from(["bert", "gemma3", "gpt2"]))
def test_any_text_is_matched_token_by_token(text: str, some: list[str], family: str) -> None:
    tokenizer = pico.build(family)[1]
    listing = {term: n + 1 for n, term in enumerate(map(terms.normal, [*some, text[:5]])) if term}
    ((_, spans_t2),) = encode_spans(tokenizer, [text])
    class_t, first_t = terms.Matcher(listing).tokens(text, spans_t2)
    assert len(class_t) == len(first_t) == len(encode(tokenizer, [text])[0])
    assert {*class_t.tolist()} <= {-1, 0, *listing.values()}
    assert first_t[class_t <= 0].all() and first_t[:1].all()


def test_terms_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffPivot  Table\n\npivot-table\r\nÉcran\n", "utf-8")
    assert terms.read(str(tmp_path / "a.txt"), "x") == ["pivot table", "écran"]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "c.txt").write_text("--\n")
    for name, what in (("b.txt", "cannot be read"), ("c.txt", "has no terms"), ("d.txt", "cannot be read")):
        with pytest.raises(UserError, match=f"^x: .*{name}: {what}"):
            terms.read(str(tmp_path / name), "x")


def graph(seed: int) -> tuple[int, np.ndarray, np.ndarray]:
    """A graph of nodes with and without links, and where it starts from."""
    draw = np.random.default_rng(seed)
    nodes = 12
    pairs = {tuple(sorted(draw.choice(nodes - 2, 2, replace=False).tolist())) for _ in range(15)}
    links = np.asarray([*pairs, *((b, a) for a, b in pairs)])
    start = draw.random(nodes) * (draw.random(nodes) < 0.5)
    start[-1] += 0.1
    return nodes, links, start


@pytest.mark.parametrize("seed", range(4))
def test_pagerank_is_the_solution_of_its_equation_and_that_of_networkx(seed: int) -> None:
    nodes, links, start = graph(seed)
    share = start / start.sum()
    walk = np.zeros((nodes, nodes))  # from column to row
    for a in range(nodes):
        targets = [b for one, b in links.tolist() if one == a]
        for b in targets:
            walk[b, a] = 1 / len(targets)
        if not targets:
            walk[:, a] = share
    exact = np.linalg.solve(np.eye(nodes) - 0.85 * walk, 0.15 * share)
    made = terms.pagerank(links, nodes, start)
    assert made == pytest.approx(exact, abs=1e-7)
    other = networkx.Graph(links.tolist())
    other.add_nodes_from(range(nodes))
    ranks = networkx.pagerank(other, alpha=0.85, personalization=dict(enumerate(start)), tol=1e-10, max_iter=1000)
    assert made == pytest.approx([ranks[n] for n in range(nodes)], abs=1e-6)


def test_importance_adds_up_the_ranks_of_the_texts() -> None:
    near = [np.asarray(n, dtype=np.int64) for n in ([1, 2], [0], [], [4], [3], [])]
    texts, seeds = [{0, 5}, {1, 3}, {5}], {2, 4}
    total = dict.fromkeys(range(6), 0.0)
    for text in texts:
        edges = {(w, int(o)) for w in text for o in near[w]}
        if not edges:
            continue
        one = networkx.Graph([*edges])
        start = {n: float(n in seeds) for n in one} if seeds & {*one} else None
        ranks = networkx.pagerank(one, alpha=0.85, personalization=start, tol=1e-12, max_iter=1000)
        for n, rank in ranks.items():
            total[n] += rank / max(ranks.values())
    expected = [total[n] / max(total.values()) for n in range(6)]
    assert terms.importance(texts, near, seeds) == pytest.approx(expected, abs=1e-6)
    assert expected[5] == 0


def test_related_words_are_those_near_by_and_not_the_word_itself() -> None:
    table = np.asarray([[1, 0], [1, 0.1], [0.8, 0.6], [-1, 0], [0, -1], [1, 1.7], [2, 0]], dtype=np.float32)
    found = terms.related(np.tile(table, (2, 1)))  # 14 words: at most two related ones each
    assert [set(n.tolist()) for n in found[:5]] == [{6, 7}, {8, 0}, {9, 5}, {10}, {11}]


def test_base_scores_by_hand() -> None:
    total = Counter({"pivot table": 6, "table": 10, "pivot": 8, "pivot table row": 2})
    inside = Counter({"pivot table": 3, "table": 4, "pivot": 2, "pivot table row": 1})
    counts, general = Counter({"pivot": 8, "table": 10, "row": 2}), Counter({"table": 4, "said": 36})
    tf_idf = terms.base_scores("tf_idf", total, inside, 8, counts, general)
    assert tf_idf["table"] == pytest.approx(10 * math.log(2)) and tf_idf["pivot"] == pytest.approx(8 * math.log(4))
    c_value = terms.base_scores("c_value", total, inside, 8, counts, general)
    assert c_value["table"] == pytest.approx(1 * (10 - (6 + 2) / 2))
    assert c_value["pivot table"] == pytest.approx(math.log2(3) * (6 - 2))
    assert c_value["pivot table row"] == pytest.approx(2 * 2)
    weirdness = terms.base_scores("weirdness", total, inside, 8, counts, general)
    pivot, table = (8 / 20) / (1 / 40), (10 / 20) / (5 / 40)
    assert weirdness["pivot table"] == pytest.approx((pivot + table) / 2) and weirdness["table"] == table


def test_frequent_words_make_up_the_share() -> None:
    counts = {"a": 50, "b": 30, "c": 15, "d": 5}
    assert [terms.frequent(counts, share) for share in (0, 0.5, 0.8, 1)] == [[], ["a"], ["a", "b"], [*"abcd"]]


@pytest.fixture(scope="module")
def texts() -> tuple[list[str], list[str]]:
    """Help of an office program, and a novel."""
    with open(data.path("en"), "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as raw:
        rows = [json.loads(line) for line in io.TextIOWrapper(raw, encoding="utf-8")]
    office, novel = ([r["text"] for r in rows if word in r["source"]] for word in ("libreoffice", "austen"))
    return office[:120], novel[:15]


TERMS = ["cell", "spreadsheet", "formula", "toolbar", "dialog", "cursor", "document", "column", "row", "table", "field"]
GENERAL = ["this", "from", "when", "which", "will", "have", "not", "any", "all", "use", "other", "first", "following"]
GENERAL += ["then", "only", "more"]


@pytest.mark.parametrize(("how", "least"), [("tf_idf", 0.85), ("weirdness", 0.9), ("c_value", 0.8)])
def test_terms_of_a_field_rank_above_general_words(texts: tuple[list[str], list[str]], how: str, least: float) -> None:
    """The chance that a term stands above a general word; words that are no candidates stand below all."""
    found = terms.ranked(*texts, how=how, count=10**6, seed=1, who="test")
    assert list(found.values()) == sorted(found.values(), reverse=True)
    place = {term: n for n, term in enumerate(found)}
    above = [place.get(a, 10**6) < place.get(b, 10**6) for a in TERMS for b in GENERAL]
    assert set(TERMS) <= set(found)
    assert sum(above) / len(above) > least
    if how == "tf_idf":
        again = terms.ranked(*texts, how=how, count=50, seed=1, who="test")
        assert list(again.items()) == list(found.items())[:50]


def test_related_words_raise_the_terms_that_matter(texts: tuple[list[str], list[str]]) -> None:
    """With the base score taken away, words of the field are still more important than words of a story."""
    found = terms.ranked(*texts, count=10**6, seed=1, who="test")
    split = [[[w for *_, w in clause] for clause in terms.clauses(text)] for text in texts[0]]
    inside = Counter(w for text in split for w in {w for clause in text for w in clause})
    for text in texts[1]:
        inside.update({*terms.words([text])})
    counts = terms.words(texts[0])
    base = {w: counts[w] * math.log(sum(map(len, texts)) / inside[w]) for w in found if " " not in w}
    raised = {w: found[w] / base[w] for w in base}
    top = max(raised.values())
    assert 1.2 < top / min(raised.values()) < 2 + 1e-6, "one plus an importance of 0 to 1"
    mean = [np.mean([raised[w] for w in some if w in raised]) for some in (TERMS, raised)]
    assert mean[0] > 1.1 * mean[1]


def test_texts_without_terms_are_refused() -> None:
    for target in ([], [""], ["one two three"]):
        with pytest.raises(UserError, match=r"^test: no word of the target text but its commonest stands 3 times"):
            terms.ranked(target, [], count=5, seed=0, who="test")
