# SPDX-License-Identifier: Apache-2.0
"""Trimming: segmentation and kept logits are those of the base, and the share of unseen tokens is what was foretold."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lect.artefacts import Corpus, Document, Model
from lect.errors import UserError
from lect.method import Run
from lect.ops.text import encode
from lect.registry import build_step
from lect.testing import pico

SYLLABLES = [a + b for a in "bdfgklmnprstz" for b in "aeiou"]


def trim(folder: Path, base: Model, corpus: Corpus, **knobs: Any) -> tuple[Model, Run]:
    (folder / "out").mkdir(parents=True)
    (folder / "scratch").mkdir()
    run = Run(folder=folder / "out", scratch=folder / "scratch")
    return build_step("vocab/trim", {"multiple": 1, **knobs}).apply(run, model=base, corpus=corpus), run  # type: ignore[return-value]


def words(seed: int, count: int) -> list[str]:
    """Made-up words of one to four syllables, Zipf-like: a few of them very often, most of them rarely."""
    draw = np.random.default_rng(seed)
    return ["".join(draw.choice(SYLLABLES, size=draw.integers(1, 5))) for _ in range(count)]


def zipfian_corpus(folder: Path, documents: int, seed: int) -> Corpus:
    """Documents about a topic each: a word, once used, comes again in its document (so tokens are not independent)."""
    draw = np.random.default_rng(seed)
    lexicon = words(0, 4000)
    weight = 1.0 / np.arange(1, len(lexicon) + 1)
    weight /= weight.sum()

    def text() -> str:
        topic = draw.choice(len(lexicon), size=12, p=weight**0.6 / (weight**0.6).sum())
        body = np.concatenate([draw.choice(len(lexicon), size=40, p=weight), draw.choice(topic, size=40)])
        return " ".join(lexicon[i] for i in draw.permutation(body))

    splits = ["train"] * documents + ["calibration"] * 60 + ["test"] * 200
    folder.mkdir(parents=True)
    return Corpus.write(folder, (Document(id=f"{i}", text=text(), split=s) for i, s in enumerate(splits)))


def model_of_words(folder: Path) -> Model:
    """A byte-level model whose tokenizer knows many of the made-up words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=5000, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    lexicon = words(0, 4000)
    lines = [" ".join(lexicon[i] for i in range(start, len(lexicon), 1 + start % 7)) for start in range(60)]
    rust.train_from_iterator(lines, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, eos_token="<end>", bos_token="<end>")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=512, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        live = GPT2LMHeadModel(config).eval()
    folder.mkdir(parents=True)
    return Model.write(folder, live, tokenizer)


@pytest.fixture(scope="module")
def foretold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Corpus]:
    place = tmp_path_factory.mktemp("words")
    return model_of_words(place / "model"), zipfian_corpus(place / "corpus", 150, seed=1)


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_segmentation_and_kept_logits_are_the_base_s(family: str, tmp_path: Path) -> None:
    """The invariant of the paper (section 3): nothing that is kept behaves differently."""
    base = pico.model(family, tmp_path / "base", padding=8)
    corpus = pico.corpus(tmp_path / "corpus")
    made, run = trim(tmp_path / "run", base, corpus, target=0.3, kept=0.3)
    assert {g.name for g in run.gates} == {"segmentation", "unknown", "kept_logits", "reload"}
    assert all(g.passed for g in run.gates), run.gates
    old, new = base.tokenizer(), made.tokenizer()
    assert len(new) < len(old) and made.load().get_input_embeddings().weight.shape[0] == len(new)
    name, known = {i: token for token, i in new.get_vocab().items()}, old.get_vocab()
    origin = torch.tensor([known[name[i]] for i in range(len(new))])
    texts = corpus.texts(split="train") + corpus.texts(split="calibration")
    for before, after in zip(encode(old, texts), encode(new, texts), strict=True):
        assert origin[after].tolist() == before
    wide, narrow = base.load(), made.load()
    assert torch.equal(narrow.get_input_embeddings().weight, wide.get_input_embeddings().weight[origin])
    ids_bt = torch.tensor([encode(new, texts)[0][:60]])
    with torch.no_grad():
        expected = wide(input_ids=origin[ids_bt]).logits[..., origin]
        torch.testing.assert_close(narrow(input_ids=ids_bt).logits, expected, rtol=0, atol=1e-5)


def test_the_foretold_share_is_what_further_text_shows(foretold: tuple[Model, Corpus], tmp_path: Path) -> None:
    """Document-level Good-Turing agrees with 200 further documents; the same over tokens is far too low."""
    base, corpus = foretold
    _, run = trim(tmp_path, base, corpus, target=1.0)
    estimate = run.facts["unseen"]["chosen"]["estimate"]["target"]
    ids = encode(base.tokenizer(), corpus.texts("target", "train"))
    tokens = [i for text in ids for i in text]
    seen, counts = np.unique(tokens, return_counts=True)
    further = [i for text in encode(base.tokenizer(), corpus.texts("target", "test")) for i in text]
    fact = float(np.isin(further, seen, invert=True).mean())
    assert fact > 0.01
    assert abs(estimate / fact - 1) < 0.15
    assert (counts == 1).sum() / len(tokens) < 0.75 * fact


def test_a_budget_holds_on_text_never_seen(foretold: tuple[Model, Corpus], tmp_path: Path) -> None:
    """Rows are added until the budget holds, and it holds on the test split too."""
    base, corpus = foretold
    rows = []
    for number, budget in enumerate((0.02, 0.01, 0.005)):
        made, run = trim(tmp_path / str(number), base, corpus, target=budget)
        rows.append(len(made.tokenizer()))
        assert run.facts["unseen"]["chosen"]["estimate"]["target"] <= budget
        assert run.facts["text"]["target"]["test"]["resegmented_tokens"] <= 1.2 * budget
        assert all(gate.passed for gate in run.gates)
    assert rows == sorted(set(rows)) and rows[-1] < len(base.tokenizer())
    curve = run.facts["unseen"]["curve"]
    shares = [(p["rows"], p["estimate"]["target"], p["calibration"]["target"]) for p in curve]
    assert [s[0] for s in shares] == sorted({s[0] for s in shares})
    assert all(a[1] >= b[1] and a[2] >= b[2] for a, b in pairwise(shares))


def test_the_ranking_beats_the_order_of_the_base(foretold: tuple[Model, Corpus], tmp_path: Path) -> None:
    """As many further tokens by the ranking cover more of unseen text than the first ids of the base do."""
    base, corpus = foretold
    made, run = trim(tmp_path, base, corpus, target=0.01)
    old, new = base.tokenizer(), made.tokenizer()
    further = [i for text in encode(old, corpus.texts("target", "test")) for i in text]
    learn = corpus.texts("target", "train") + corpus.texts("target", "calibration")
    need = {i for text in encode(old, learn) for i in text}
    known = old.get_vocab()
    chosen = {known[token] for token in new.get_vocab()}
    extra = len(new) - run.facts["unseen"]["needed_rows"]
    by_id = need | set([i for i in range(len(old)) if i not in need][: extra + 256])
    assert extra > 100
    assert np.isin(further, list(chosen)).mean() > np.isin(further, list(by_id)).mean()


def test_rows_can_be_capped_and_fill_a_multiple(foretold: tuple[Model, Corpus], tmp_path: Path) -> None:
    base, corpus = foretold
    free, run = trim(tmp_path / "free", base, corpus, target=1.0)
    need = run.facts["unseen"]["needed_rows"]
    assert len(free.tokenizer()) == need
    full, _ = trim(tmp_path / "full", base, corpus, target=1.0, multiple=64)
    assert len(full.tokenizer()) == -(-need // 64) * 64
    capped, _ = trim(tmp_path / "capped", base, corpus, target=0.001, max_rows=need + 50)
    assert len(capped.tokenizer()) == need + 50
    with pytest.raises(UserError, match=rf"max_rows: {need - 1} rows are too few, the text alone needs {need}"):
        trim(tmp_path / "short", base, corpus, max_rows=need - 1)


def test_a_chat_template_keeps_its_words(tmp_path: Path) -> None:
    live, tokenizer = pico.build("qwen3")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|reserved_special_token_7|>"]})
    live.resize_token_embeddings(len(tokenizer))
    tokenizer.chat_template = "{{ '<|im_start|>' + 'Forma' + messages[0]['content'] }}"
    (tmp_path / "base").mkdir()
    base = Model.write(tmp_path / "base", live, tokenizer)
    documents = [Document(id="1", text="Taula bat, taula bi.", split="train")]
    (tmp_path / "corpus").mkdir()
    made, _ = trim(tmp_path / "run", base, Corpus.write(tmp_path / "corpus", documents), target=1.0)
    new = made.tokenizer()
    vocab = new.get_vocab()
    assert "<|im_start|>" in vocab and "<|reserved_special_token_7|>" not in vocab
    assert new.chat_template == tokenizer.chat_template
    message = [{"role": "user", "content": "Taula bat"}]
    written = [t.apply_chat_template(message, return_dict=False) for t in (new, tokenizer)]
    names = [t.convert_ids_to_tokens(ids) for t, ids in zip((new, tokenizer), written, strict=True)]
    assert names[0] == names[1]


def test_no_target_text_is_refused(tmp_path: Path) -> None:
    base = pico.model("gpt2", tmp_path / "base")
    (tmp_path / "corpus").mkdir()
    corpus = Corpus.write(tmp_path / "corpus", [Document(id="1", text="Only to keep.", role="kept", split="train")])
    with pytest.raises(UserError, match="no training text in the target role"):
        trim(tmp_path / "run", base, corpus)
