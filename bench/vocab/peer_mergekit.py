# SPDX-License-Identifier: Apache-2.0
"""Driver of `mergekit-tokensurgeon`: the tokenizer of a donor model for the model, with rows made by its methods.

The donor is the folder that lect wrote; the methods that are asked for do not read the donor's rows.
"""

from __future__ import annotations

from typing import Any

import peer_job


def transplant(job: dict[str, Any]) -> None:
    """The command line tool, in this process."""
    from mergekit.scripts.tokensurgeon import main

    main.main([job["source"], job["tokenizer"], job["out"], *job["settings"]], standalone_mode=False)


if __name__ == "__main__":
    peer_job.run(transplant)
