# SPDX-License-Identifier: Apache-2.0
"""Driver of `deepfocus`, the authors' FOCUS: fastText vectors of the new tokens, trained on the target text."""

from __future__ import annotations

from typing import Any

import peer_job


def focus(job: dict[str, Any]) -> None:
    """`FOCUS(...)` as in its documentation; one thread, which makes fastText repeatable."""
    from deepfocus import FOCUS

    model, old, new = peer_job.load(job)
    rows = FOCUS(
        source_embeddings=model.get_input_embeddings().weight.detach(),
        source_tokenizer=old,
        target_tokenizer=new,
        target_training_data_path=job["texts"]["target"],
        processes=1,
        **job["settings"],
    )
    peer_job.save(job, model, new, rows)


if __name__ == "__main__":
    peer_job.run(focus)
