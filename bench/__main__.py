# SPDX-License-Identifier: Apache-2.0
"""Run the comparisons whose results are stale and print all figures.

python -m bench                   # all stale ones
python -m bench adapt startup     # these, if stale
python -m bench adapt --force     # this one, anyhow
python -m bench --table           # only print what stands in bench/results, as Markdown
"""

from __future__ import annotations

import argparse
import json
import sys

from bench import harness


def main() -> int:
    """Run what was asked for; exit 1 when a figure misses its aim, 0 otherwise."""
    known = harness.comparisons()
    parser = argparse.ArgumentParser(description="Run the stale comparisons and print their figures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; all when none is named")
    parser.add_argument("--force", action="store_true", help="measure again, stale or not")
    parser.add_argument("--table", action="store_true", help="print the stored results and measure nothing")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"no comparison {', '.join(unknown)}; there are {', '.join(known)}")
    results = []
    for name in options.names or known:
        file = harness.RESULTS / f"{name}.json"
        if options.table:
            results += [json.loads(file.read_text("utf-8"))] if file.exists() else []
            continue
        result, measured = harness.run(name, known[name], options.force)
        print(f"{name}: {'measured' if measured else 'as stored, nothing changed'}", file=sys.stderr, flush=True)
        results.append(result)
    print(harness.table(results))
    missed = [figure for result in results for figure in result["figures"].values() if figure.get("reached") is False]
    return 1 if missed and not options.table else 0


if __name__ == "__main__":
    sys.exit(main())
