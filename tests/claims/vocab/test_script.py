# SPDX-License-Identifier: Apache-2.0
"""Scripts: tokens of other scripts go and no others, and text of the scripts that stay segments as before."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from vocab_families import FAMILIES, SAID, family

from lect.artefacts import Corpus, Model
from lect.errors import UserError
from lect.method import Run
from lect.ops.text import encode
from lect.ops.tokenizer import Vocabulary
from lect.testing import pico
from vocab_steps import apply, corpus_of, model_of

BASQUE, ENGLISH, GERMAN, SPANISH, RUSSIAN, GREEK = SAID[:6]


def cut(folder: Path, base: Model, corpus: Corpus, **knobs: Any) -> tuple[Model, Run]:
    return apply("vocab/script", folder, base, corpus, **knobs)


def foreign(text: str) -> bool:
    """True where a letter or mark of the text has a name that begins with another script than Latin."""
    neutral = ("LATIN", "COMBINING", "MODIFIER", "VARIATION", "FEMININE", "MASCULINE")
    letters = [c for c in text if unicodedata.category(c)[0] in "LM"]
    return any(not unicodedata.name(c).startswith(neutral) for c in letters)


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_of_other_scripts_go_and_no_others(name: str, tmp_path: Path) -> None:
    """The paper's rule, by a plain look at each token as the library prints it; further text of the script is safe."""
    rust = family(name)
    vocabulary = Vocabulary.read(rust)
    base, corpus = model_of(rust, tmp_path / "base"), corpus_of(tmp_path / "corpus", [BASQUE], [ENGLISH])
    made, run = cut(tmp_path / "run", base, corpus)
    assert {gate.name for gate in run.gates} == {"segmentation", "unknown", "kept_logits", "reload"}
    assert all(gate.passed for gate in run.gates), run.gates
    new = made.tokenizer()
    needed = vocabulary.alphabet | vocabulary.special() | vocabulary.named()
    needed |= {i for ids in encode(rust, [BASQUE, ENGLISH]) for i in ids}
    stays = {i for i in vocabulary.strings if not foreign(rust.decode([i], skip_special_tokens=False))}
    # A token of parts of characters stays, and with it what it is merged from.
    left = {vocabulary.strings[i] for i in vocabulary.ancestors(needed | stays)}
    assert {*Vocabulary.read(new).strings.values()} == left
    assert 20 < len(left) < len(vocabulary.strings) - 10
    assert run.facts["scripts"]["kept"] == ["LATIN"]
    further = [GERMAN, SPANISH, SAID[9], SAID[10], "Żółw i naïve façade, 2026!"]
    for before, after in zip(encode(rust, further), encode(new, further), strict=True):
        assert [rust.id_to_token(i) for i in before] == new.convert_ids_to_tokens(after)
    changed = 0
    for before, after in zip(encode(rust, [RUSSIAN, GREEK]), encode(new, [RUSSIAN, GREEK]), strict=True):
        assert rust.decode(before, skip_special_tokens=False) == new.decode(
            after, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        changed += len(after) > len(before)
    assert changed == 2


def test_the_scripts_of_either_text_stay_above_their_share(tmp_path: Path) -> None:
    base = model_of(family("gemma"), tmp_path / "base")
    words = " ".join(["kaixo"] * 399)

    def kept(n: int, target: str, other: str, **knobs: Any) -> list[str]:
        corpus = corpus_of(tmp_path / f"corpus-{n}", [target], [other])
        return list(cut(tmp_path / f"run-{n}", base, corpus, **knobs)[1].facts["scripts"]["kept"])

    assert kept(0, BASQUE, RUSSIAN) == ["CYRILLIC", "LATIN"]
    assert kept(1, words + " Я", ENGLISH) == ["LATIN"]  # one letter in 1996
    assert kept(2, words + " ЯЯ", ENGLISH) == ["CYRILLIC", "LATIN"]
    assert kept(3, words + " ЯЯ", ENGLISH, share=0.01) == ["LATIN"]
    assert kept(4, words * 10, RUSSIAN, share=0.01) == ["CYRILLIC", "LATIN"]  # of one text alone
    assert kept(5, RUSSIAN, words * 10, share=0.01) == ["CYRILLIC", "LATIN"]


def test_scripts_can_be_named_and_text_of_others_is_left_alone(tmp_path: Path) -> None:
    """What the text uses stays, whatever is named; the other tokens of its script go."""
    rust = family("gpt2")
    base, corpus = model_of(rust, tmp_path / "base"), corpus_of(tmp_path / "corpus", [RUSSIAN[:30]])
    made, run = cut(tmp_path / "run", base, corpus, scripts="greek, Devanagari")
    assert all(gate.passed for gate in run.gates) and run.facts["scripts"]["kept"] == ["DEVANAGARI", "GREEK"]
    new = made.tokenizer()
    for text, same in ((GREEK, True), (SAID[7], True), (RUSSIAN[:30], True), (RUSSIAN, False), (ENGLISH, False)):
        before, after = encode(rust, [text])[0], encode(new, [text])[0]
        assert ([rust.id_to_token(i) for i in before] == new.convert_ids_to_tokens(after)) == same, text


def test_scripts_that_the_model_does_not_know_are_refused_in_one_line(tmp_path: Path) -> None:
    base = pico.model("gemma3", tmp_path / "base")
    for n, (text, knobs, what) in enumerate(
        (
            ("ភាសាខ្មែរ", {}, "^vocab/script: the text is in KHMER, of which the model has no token; name"),
            ("1, 2, 3!", {}, "^vocab/script: the text is in no script at all, of which"),
            (BASQUE, {"scripts": "LATIN, KHMER"}, "^vocab/script.scripts: KHMER is named, .* no token; it has .*LATIN"),
            (BASQUE, {"scripts": " , "}, "^vocab/script.scripts: no script is named"),
        )
    ):
        with pytest.raises(UserError, match=what) as error:
            cut(tmp_path / f"run-{n}", base, corpus_of(tmp_path / f"corpus-{n}", [text]), **knobs)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gemma", "xlmr"])
def test_rows_fill_a_multiple_with_the_first_of_the_others(name: str, tmp_path: Path) -> None:
    rust = family(name)
    base, corpus = model_of(rust, tmp_path / "base"), corpus_of(tmp_path / "corpus", [BASQUE], [ENGLISH])
    free, _ = cut(tmp_path / "free", base, corpus)
    rows = len(free.tokenizer())
    full, run = cut(tmp_path / "full", base, corpus, multiple=32)
    assert len(full.tokenizer()) == -(-rows // 32) * 32 > rows
    assert {*free.tokenizer().get_vocab()} < {*full.tokenizer().get_vocab()}
    assert all(gate.passed for gate in run.gates)


def test_a_chat_template_keeps_its_words(tmp_path: Path) -> None:
    rust = family("qwen")
    template = "{{ '<|im_start|>' + 'Чтобы сохранить' + messages[0]['content'] + '<think>' }}"
    base, corpus = model_of(rust, tmp_path / "base", template), corpus_of(tmp_path / "corpus", ["Taula bat, taula bi."])
    made, run = cut(tmp_path / "run", base, corpus)
    assert run.facts["scripts"]["kept"] == ["LATIN"] and run.facts["scripts"]["dropped_tokens"]["CYRILLIC"] > 3
    new, old = made.tokenizer(), base.tokenizer()
    said = encode(old, ["Чтобы сохранить"])[0]
    assert new.convert_ids_to_tokens(encode(new, ["Чтобы сохранить"])[0]) == old.convert_ids_to_tokens(said)
    written = [t.apply_chat_template([{"role": "user", "content": "xyz"}], return_dict=False) for t in (new, old)]
    names = [t.convert_ids_to_tokens(ids) for t, ids in zip((new, old), written, strict=True)]
    assert names[0] == names[1] and new.chat_template == template
