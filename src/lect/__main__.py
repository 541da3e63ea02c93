# SPDX-License-Identifier: Apache-2.0
"""``python -m lect`` is the ``lect`` command."""

from lect.cli import main

if __name__ == "__main__":
    main()
