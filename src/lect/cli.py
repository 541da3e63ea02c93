# SPDX-License-Identifier: Apache-2.0
"""The verbs of the ``lect`` command; no logic, and nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from lect import __version__, processes
from lect.errors import BrokenGate, UserError

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # lect.models lifts it for a hub id, and for nothing else
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

Words = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]
Settings = Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True, negative="")]

app = App(
    name="lect",
    version=__version__,
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
    help="Adapt an open language model to your own text: smaller, faster and better there, with proof in one report."
    "\n\nFirst steps: `lect plan MODEL TEXT` shows what would be done, `lect adapt MODEL TEXT --out DIR` does it."
    "\n\nMODEL is a Hugging Face folder, a GGUF file, a packaged alias such as gemma-3-270m, or a hub id."
    " TEXT is files, folders, patterns, `bundled:eu`, or `-` for standard input.",
)


@app.command
def adapt(
    model: str,
    /,
    *text: str,
    out: Path,
    keep: Words = (),
    minutes: float | None = None,
    tokens: int | None = None,
    settings: Settings = (),
) -> None:
    """Adapt a model to text: plan, then run the plan; the report ends in DIR/report.html.

    Example: lect adapt gemma-3-270m my-letters/ --keep english.txt --out adapted --minutes 20

    :param model: Folder, GGUF file, packaged alias or hub id.
    :param text: Files, folders or patterns with the text to adapt to.
    :param out: Folder for the result; run the same command again to go on after a stop.
    :param keep: Text that the model must stay good at; without it, a bundled sample of English.
    :param minutes: Minutes of training.
    :param tokens: Tokens of training, instead of minutes.
    :param settings: Change a knob or a budget: step.knob=value, for instance trim.max_rows=30000 or gates.kept=0.05.
    """
    from lect import verbs

    verbs.adapt(model, text, keep, out, minutes, tokens, settings)


@app.command
def plan(
    model: str,
    /,
    *text: str,
    keep: Words = (),
    minutes: float | None = None,
    tokens: int | None = None,
    settings: Settings = (),
) -> None:
    """Print what adapt would do: steps, why, minutes, memory and bytes; nothing is written.

    Example: lect plan gemma-3-270m my-letters/ --minutes 20

    :param model: Folder, GGUF file, packaged alias or hub id.
    :param text: Files, folders or patterns with the text to adapt to.
    :param keep: Text that the model must stay good at; without it, a bundled sample of English.
    :param minutes: Minutes of training.
    :param tokens: Tokens of training, instead of minutes.
    :param settings: Change a knob or a budget: step.knob=value.
    """
    from lect import verbs

    verbs.plan(model, text, keep, minutes, tokens, settings)


@app.command
def run(recipe: Path, /, *, out: Path, settings: Settings = ()) -> None:
    """Run a recipe; steps that are done are taken as they are.

    Example: lect run adapted/recipe.yaml --out adapted --set continue.minutes=30

    :param recipe: A recipe in YAML, for instance the recipe.yaml that adapt wrote.
    :param out: Folder for the result.
    :param settings: Change a knob or a budget: step.knob=value.
    """
    from lect import verbs

    verbs.run_recipe(recipe, out, settings)


@app.command
def check(recipe: Path, /, *, settings: Settings = ()) -> None:
    """Check a recipe without running it: keys, knobs, ranges, and that every step gets what it needs.

    :param recipe: A recipe in YAML.
    :param settings: Change a knob or a budget: step.knob=value.
    """
    from lect import verbs

    verbs.check_recipe(recipe, settings)


@app.command(name="list")
def list_(stage: str | None = None, /) -> None:
    """List every method: steps of recipes by stage, then parts that fill slots of steps.

    :param stage: Only this stage or kind of part.
    """
    from lect import verbs

    verbs.list_methods(stage)


@app.command
def show(method: str, /) -> None:
    """Show one method: what it claims, its paper, its knobs with ranges and defaults.

    Example: lect show vocab/trim

    :param method: A name from lect list.
    """
    from lect import verbs

    verbs.show_method(method)


@app.command(name="eval")
def eval_(model: str, /, *text: str, keep: Words = (), out: Path | None = None, settings: Settings = ()) -> None:
    """Measure a model on text: bits per byte, two exams made from the text, speed and size.

    Example: lect eval adapted/model my-letters/

    :param model: Folder, GGUF file, packaged alias or hub id.
    :param text: Files, folders or patterns.
    :param keep: A second text to measure on.
    :param out: Folder for the report; without it the figures are only printed.
    :param settings: Change a knob: step.knob=value.
    """
    from lect import verbs

    verbs.evaluate(model, text, keep, out, settings)


@app.command
def generate(model: str, prompt: str, /, *, tokens: int = 100) -> None:
    """Continue a prompt greedily and print what the model writes.

    Example: lect generate adapted/model "Gelaxka bat hautatzeko,"

    :param model: Folder, GGUF file, packaged alias or hub id.
    :param prompt: The text to continue.
    :param tokens: The most tokens to write.
    """
    from lect import verbs

    verbs.generate(model, prompt, tokens)


@app.command
def export(model: str, /, *, to: Literal["gguf"] = "gguf", out: Path, settings: Settings = ()) -> None:
    """Write a model in another format.

    Example: lect export adapted/model --to gguf --out for-llama-cpp

    :param model: Folder, packaged alias or hub id.
    :param to: The format.
    :param out: Folder for the result.
    :param settings: Change a knob: gguf.dtype=q8_0.
    """
    from lect import verbs

    verbs.export(model, to, out, settings)


@app.command
def report(folder: Path, /) -> None:
    """Write report.json and report.html of a run folder anew and print the short table.

    :param folder: A folder that adapt or run wrote.
    """
    from lect import verbs

    verbs.report(folder)


def main() -> None:
    """Run the command line; 0 is success, 1 a broken gate, 2 something the user can mend, 130 an interrupt.

    Of several processes (see :mod:`lect.processes`) the first does so, and the others follow it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is an interrupt
    try:
        if processes.rank():
            from lect import runner

            runner.follow()
        else:
            app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(str(error), 2)
    except UserError as error:
        _fail(str(error), 2)
    except BrokenGate as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("stopped; what was done is kept. To go on, run the same command again", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    finally:
        processes.end()


def _fail(text: str, status: int) -> None:
    """Print one line and leave."""
    print(f"lect: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(status)
