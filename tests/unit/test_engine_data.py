# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.artefacts import Document
from lect.engine.data import Encoded, Ends, Mixed, Stream, lay, sample, sample_batches
from lect.parts.mixture.kind import Feedback, Mixture
from lect.parts.mixture.replay import Replay
from lect.parts.packing.one_document import OneDocument
from lect.testing import pico

_, TOKENIZER = pico.build("gemma3")
BEGIN, END = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
ENDS = Ends((BEGIN,), (END,))


def documents(texts):
    return [Document(id=f"{n:03}", text=text) for n, text in enumerate(texts)]


def stream(texts, room=64, longest=32, seed=0, ends=ENDS):
    encoded = Encoded.of(TOKENIZER, documents(texts))
    return Stream(encoded, OneDocument(), ends, longest=longest, room=room, seed=seed, device="cpu")


def test_begins_and_ends_as_the_tokenizer_wants():
    assert Ends.of(TOKENIZER) == ENDS
    assert Ends.of(pico.build("gpt2")[1]).lead == ()
    assert Ends.of(pico.build("llama")[1]).lead == (pico.build("llama")[1].bos_token_id,)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=12), st.integers(0, 3))
def test_an_epoch_holds_every_token_of_every_text_once(texts, seed):
    """Arbitrary Unicode; what is laid into rows, put together again, is what was encoded."""
    made = stream(texts, seed=seed)
    pieces, batches = made.epoch(0)
    back = {}
    for number, batch in enumerate(batches):
        laid = made.batch(number)
        assert laid.row.ids_t.shape == laid.target_t.shape == (64,)
        assert laid.tokens == int(laid.weight_t.sum()) <= 64
        borders = laid.row.offsets.tolist()
        for (piece,), low, high in zip(batch, borders, borders[1:], strict=False):
            document, start, stop = pieces[piece].tolist()
            ids, targets = laid.row.ids_t[low:high].tolist(), laid.target_t[low:high].tolist()
            assert ids[0] == BEGIN
            assert ids[1:] == targets[:-1], "each place's target is the next place's token"
            assert laid.row.positions_t[low:high].tolist() == list(range(high - low))
            whole = [*ids[1:], targets[-1]]
            last = stop == np.diff(made.encoded.starts)[document]
            assert (whole[-1] == END) or not last
            back.setdefault(document, []).append((start, whole[:-1] if last else whole))
    for document, text in enumerate(texts):
        expected = TOKENIZER.backend_tokenizer.encode(text, add_special_tokens=False).ids
        found = [i for _, part in sorted(back.get(document, [])) for i in part]
        assert found == list(made.encoded.ids[made.encoded.starts[document] : made.encoded.starts[document + 1]])
        if not any(token in text for token in TOKENIZER.all_special_tokens):
            assert found == expected


def test_batches_depend_on_seed_and_number_alone_and_epochs_differ():
    texts = [f"{n} gelaxka bat hautatzeko" * (1 + n % 4) for n in range(20)]
    one, other = stream(texts), stream(texts)
    numbers = list(range(60))
    first = {n: one.batch(n).row.ids_t.tolist() for n in numbers}
    assert {n: other.batch(n).row.ids_t.tolist() for n in reversed(numbers)} == first
    assert stream(texts, seed=1).batch(0).row.ids_t.tolist() != first[0]
    size = len(one.epoch(0)[1])
    assert sorted(first[n] for n in range(size)) != sorted(first[n + size] for n in range(size))


def test_bytes_of_an_epoch_are_the_bytes_of_the_text():
    texts = ["Dokumentua gordetzeko, aukeratu Fitxategia. " * n for n in (1, 7, 20)]
    made = stream(texts)
    total = sum(made.batch(n).bytes for n in range(len(made.epoch(0)[1])))
    assert total == pytest.approx(sum(len(t.encode()) for t in texts))


def test_epochs_are_counted_as_a_loop_would():
    """Rows of each text over the rows of its epochs, which are packed anew and need not be of one number."""
    texts = {"target": stream([f"bat {n} hiru lau bost" * 3 for n in range(9)]), "kept": stream(["one two three"] * 40)}
    mixed = Mixed(texts, Replay(share=0.25))
    mixed.begin(30)
    for rows in (0, 1, 7, 30):
        left = {name: sum(mixed.place(n)[0] == name for n in range(rows)) for name in texts}
        found = mixed.epochs(rows)
        for name, text in texts.items():
            epoch = 0
            while left[name] >= (size := len(text.epoch(epoch)[1])):
                left[name] -= size
                epoch += 1
            assert found[name] == pytest.approx(epoch + left[name] / size)
    assert mixed.epochs(30)["target"] > 2


class Numbered:
    def __init__(self, name, tokens=100):
        self.name, self.encoded = name, SimpleNamespace(tokens=tokens)

    def batch(self, number):
        return self.name, number


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_replay_is_an_even_share_and_uses_each_stream_in_order(share):
    data = Mixed({"target": Numbered("target"), "kept": Numbered("kept")}, Replay(share=share))
    drawn = [data.batch(n) for n in range(200)]
    kept = [n for role, n in drawn if role == "kept"]
    target = [n for role, n in drawn if role == "target"]
    assert kept == list(range(round(200 * share)))
    assert target == list(range(200 - round(200 * share)))
    if share:
        gaps = np.diff([n for n, (role, _) in enumerate(drawn) if role == "kept"])
        assert gaps.max() - gaps.min() <= 1


@given(
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=5),
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=5),
    st.integers(1, 300),
)
@settings(deadline=None)
def test_every_text_has_had_its_share_at_any_time(first, last, rows):
    """Shares that move over the run: no text is ever a whole row ahead, all are read in order, the order is fixed."""
    names = [f"t{n}" for n in range(min(len(first), len(last)))]

    class Moving(Mixture):
        def shares(self, tokens, progress, feedback):
            assert tokens == dict.fromkeys(names, 100)
            return {name: (1 - progress) * a + progress * b for name, a, b in zip(names, first, last, strict=False)}

    data = Mixed({name: Numbered(name) for name in names}, Moving())
    data.batch(7)
    data.begin(rows)
    drawn = [data.place(n) for n in range(rows)]
    due = dict.fromkeys(names, 0.0)
    for number, (name, own) in enumerate(drawn):
        shares = Moving().shares(data.tokens, number / rows, Feedback())
        for other, share in shares.items():
            due[other] += share / sum(shares.values())
        had = [found for found, _ in drawn[: number + 1]]
        assert own == had.count(name) - 1
        assert all(had.count(other) < due[other] + 1 for other in names)
    again = Mixed({name: Numbered(name) for name in names}, Moving())
    again.begin(rows)
    assert [again.place(n) for n in reversed(range(rows))] == drawn[::-1]


def test_what_is_measured_changes_the_rows_behind_it_alone():
    """Half and half until row 6, then all of the text with the greater loss; laid again in one go, it is the same."""

    class Greater(Mixture):
        def shares(self, tokens, progress, feedback):
            last = feedback.losses[-1] if feedback.losses else dict.fromkeys(tokens, 1.0)
            return {name: float(last[name] == max(last.values())) for name in tokens}

    data = Mixed({name: Numbered(name) for name in "ab"}, Greater())
    data.begin(12)
    drawn = [data.place(n) for n in range(6)]
    data.learn(6, {"a": 2.0, "b": 3.0})
    assert data.shares() == {"a": 0.0, "b": 1.0}
    drawn += [data.place(n) for n in range(6, 12)]
    assert [name for name, _ in drawn] == [*"ab" * 3, *"b" * 6] or [name for name, _ in drawn] == [*"ba" * 3, *"b" * 6]
    again = Mixed({name: Numbered(name) for name in "ab"}, Greater())
    again.begin(12)
    again.learn(6, {"a": 2.0, "b": 3.0})
    assert [again.place(n) for n in range(12)] == drawn
    with pytest.raises(ValueError, match="row 3 was laid before"):
        data.learn(3, {"a": 1.0, "b": 1.0})


def test_a_row_refuses_more_than_its_room_and_pads_without_weight():
    with pytest.raises(ValueError, match="do not fit"):
        lay([[1, 2, 3, 4]], 2, 0.0, (), "cpu")
    batch = lay([[1, 2, 3]], 5, 3.0, ("a",), "cpu")
    assert batch.weight_t.tolist() == [1, 1, 0, 0, 0]
    assert batch.row.offsets.tolist() == [0, 2, 5], "the padding is a document of its own"
    assert batch.attended == 4 + 9


def test_sample_is_fixed_and_counts_its_bytes_exactly():
    given_documents = documents(["Taula bat txertatzeko " * 50, "🙂 naïve", "A formula"])
    chosen = sample(TOKENIZER, given_documents, ENDS, longest=20, tokens=10_000)
    assert chosen == sample(TOKENIZER, reversed(given_documents), ENDS, longest=20, tokens=10_000)
    encoded = Encoded.of(TOKENIZER, chosen)
    assert np.diff(encoded.starts).max() <= 19
    batches, size = sample_batches(encoded, TOKENIZER, ENDS, room=32, device="cpu")
    assert size == sum(len(d.text.encode()) for d in chosen)
    assert sum(b.tokens for b in batches) == encoded.tokens
    assert torch.cat([b.target_t[b.weight_t > 0] for b in batches]).tolist() == encoded.ids.tolist()
    assert len(sample(TOKENIZER, given_documents, ENDS, longest=20, tokens=1)) == 1
