# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import random
import statistics

from lect.artefacts import Document
from lect.stages.corpus.kinds import document_id
from lect.stages.corpus.length import Length


def documents(given: list[str], role: str = "target") -> list[Document]:
    return [Document(document_id(role, t), t, role=role) for t in given]


def test_threshold_is_the_median_less_three_robust_deviations() -> None:
    """equation: exp(median - 3 * 1.4826 * MAD) of the log lengths, by the textbook loop."""
    rng = random.Random(0)
    texts = ["x" * max(1, int(rng.lognormvariate(5, 0.8))) for _ in range(301)]
    logs = [math.log(len(t)) for t in texts]
    middle = statistics.median(logs)
    spread = 1.4826 * statistics.median(abs(x - middle) for x in logs)
    fitted = Length(always_keep=10**9).fit(texts)
    assert math.isclose(fitted["least_bytes"], math.exp(middle - 3 * spread), rel_tol=1e-9)


def test_fitted_to_the_text_not_to_english(apply) -> None:
    """invariant: in a corpus of short texts short texts stay; in one of long texts they go, if below always_keep."""
    rng = random.Random(1)
    short = [f"hitz {i} " + "bat " * rng.randint(2, 8) for i in range(60)]
    long = [f"hitz {i} " + "luze " * rng.randint(150, 600) for i in range(60)]
    assert len(apply(Length(), documents(short))[0]) == 60
    kept, run = apply(Length(), documents([*long, "hitz 1 bat bat", "--- ***"]))
    assert len(kept) == 60 and run.facts["dropped"] == {"short": 1, "no_letters": 1}
    assert len(apply(Length(always_keep=5), documents([*long, "hitz 1 bat bat"]))[0]) == 61


def test_roles_are_fitted_apart_and_few_texts_not_at_all(apply) -> None:
    """invariant: what is short for one role is not for another; fewer than 20 texts lose only those without letters."""
    long = documents([f"{i} " + "luze " * 300 for i in range(40)])
    short = documents([f"{i} kept bat bi" for i in range(40)], "kept")
    assert len(apply(Length(), long + short)[0]) == 80
    assert len(apply(Length(), documents(["a", "b " * 1000, "."]))[0]) == 2
