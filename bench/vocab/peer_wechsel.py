# SPDX-License-Identifier: Apache-2.0
"""Driver of `wechsel`, the authors' WECHSEL: neighbours in aligned word vectors of both languages.

The vectors are trained on the kept text (source) and the target text, by the package's own function (fastText) or by
gensim's Word2Vec, which the package takes too, then without subwords. The package aligns with a dictionary file; its
own ones are downloaded, so it gets the words that both texts hold in the same spelling.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import peer_job


def words(text: str) -> list[str]:
    """The words and signs of a text; the package's default needs data that is downloaded."""
    return re.findall(r"\w+|[^\w\s]", text)


def vectors(kind: str, path: str) -> tuple[Any, list[str]]:
    """Word vectors of one text, and their words."""
    if kind == "fasttext":
        from wechsel import train_embeddings

        model = train_embeddings(path, tokenize_fn=words, thread=1)
        return model, list(model.get_words(on_unicode_error="ignore"))
    from gensim.models import Word2Vec

    lines = [words(line) for line in Path(path).read_text("utf-8").splitlines()]
    # the settings that the package gives to fastText, without its n-grams
    model = Word2Vec(lines, vector_size=100, negative=10, sg=0, epochs=20, min_count=5, workers=1, seed=0)
    return model, list(model.wv.index_to_key)


def wechsel(job: dict[str, Any]) -> None:
    """`WECHSEL(...).apply(...)` as in its documentation."""
    from wechsel import WECHSEL

    kind = job["settings"]["vectors"]
    source, known = vectors(kind, job["texts"]["kept"])
    target, also = vectors(kind, job["texts"]["target"])
    shared = sorted({word for word in {*known} & {*also} if word.isalnum()})
    dictionary = Path(job["out"]).parent / "shared.txt"
    dictionary.write_text("".join(f"{word}\t{word}\n" for word in shared), "utf-8")
    model, old, new = peer_job.load(job)
    table = model.get_input_embeddings().weight.detach().numpy()
    made = WECHSEL(source, target, bilingual_dictionary=str(dictionary))
    rows, _ = made.apply(old, new, table, use_subword_info=kind == "fasttext")
    if job["settings"]["rows"] == "new":
        ids = old.get_vocab()
        for token, n in new.get_vocab().items():
            if token in ids:
                rows[n] = table[ids[token]]
    print(f"{len(shared)} pairs of words")
    peer_job.save(job, model, new, rows)


if __name__ == "__main__":
    peer_job.run(wechsel)
