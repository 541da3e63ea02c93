# SPDX-License-Identifier: Apache-2.0
"""Driver of `tokenizer-adapter`: each new row from the rows of the pieces that the old tokenizer makes of the token."""

from __future__ import annotations

from typing import Any

import peer_job


def adapt(job: dict[str, Any]) -> None:
    """`TokenizerAdapter(...).adapt_from_pretrained(...)`; the import in its documentation fails."""
    from tokenizer_adapter.adapter import TokenizerAdapter

    model, old, new = peer_job.load(job)
    adapter = TokenizerAdapter(**job["settings"])
    peer_job.save(job, adapter.adapt_from_pretrained(model, new, old), new)


if __name__ == "__main__":
    peer_job.run(adapt)
