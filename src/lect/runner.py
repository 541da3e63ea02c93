# SPDX-License-Identifier: Apache-2.0
"""Run resolved steps in a folder: skip what is there, keep what was done, write the records. Names no method.

A run folder holds ``recipe.yaml`` (resolved), ``record.json``, ``report.json``, ``report.html``, what steps publish
(``model/``, ``model.gguf``), and ``steps/<label>-<fingerprint>/`` with ``out/`` (the artefact) and ``step.json``.
``logs/<label>-<fingerprint>/`` has the curves of steps that were asked to track themselves.
A step is written under a temporary name, flushed and renamed: a half-written one is never taken for a whole one.
A file or a model's folder that a knob names counts by its bytes too. Budgets of gates are no part of a fingerprint:
other budgets judge the same measurements anew.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lect
from lect import artefacts, inputs, machine, models, processes, report
from lect.artefacts import Artefact, Model, read_json, sha256, write_json, write_text
from lect.errors import BrokenGate, UserError
from lect.method import Gate, Listener, Run, Silent
from lect.recipe import Recipe, ResolvedStep
from lect.registry import build_step, find, named_files

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
KEEP_GOING = "Report"  # a broken gate on a measurement does not keep the other measurements from being made


def run(
    recipe: Recipe,
    folder: Path,
    listener: Listener | None = None,
    plan: Mapping[str, Any] | None = None,
    verb: str = "run",
) -> dict[str, Any]:
    """Run every step of ``recipe`` in ``folder`` and return the report.

    Raises UserError for what the user can mend, BrokenGate (after the report is written) when a measured quantity
    left its budget. Interrupted or killed, the same call goes on where it stopped.
    """
    listener = listener or Silent()
    with _disk_errors(folder), _locked(folder):
        write_text(folder / "recipe.yaml", recipe.as_yaml())
        for step in recipe.steps if processes.size() > 1 else ():
            build_step(step.use, step.values).spread(processes.size())
        base = Model(models.resolve(recipe.model, say=listener.say))
        sources = inputs.sources(recipe.text, recipe.keep, folder / "steps")
        record = _open_record(recipe, folder, base, sources, plan, verb)
        made: dict[str, Artefact] = {"base": base, "sources": sources}
        started = time.monotonic()
        broken: list[Gate] = []
        try:
            for step in recipe.steps:
                if broken and find(step.use).output != KEEP_GOING:
                    listener.say(f"skipped {step.label}: a gate is broken")
                    continue
                made[step.label], row = _step(step, recipe, folder, made, listener)
                record["steps"].append(row)
                record["seconds"] = sum(r["seconds"] for r in record["steps"])
                broken += [
                    Gate(name=g["name"], limit=g["limit"], value=g["value"]) for g in row["gates"] if not g["pass"]
                ]
                write_json(folder / "record.json", record)
            record["status"] = "broken gate" if broken else "done"
        except BaseException as error:
            record["status"] = f"stopped: {type(error).__name__}"
            raise
        finally:
            record["wall_seconds"] = time.monotonic() - started
            write_json(folder / "record.json", record)
            data = report.build(folder)
    if broken:
        words = "; ".join(f"{g.name} is {g.value:.4g}, limit {g.limit:.4g}" for g in broken)
        raise BrokenGate(f"gate broken: {words}. Everything is in {folder}; see {folder / 'report.html'}")
    return data


def _step(
    step: ResolvedStep, recipe: Recipe, folder: Path, made: dict[str, Artefact], listener: Listener
) -> tuple[Artefact, dict[str, Any]]:
    """Run one step, or take what an earlier run of the same step left."""
    info = find(step.use)
    method = build_step(step.use, step.values)
    given = {name: made[label] for name, label in step.inputs.items()}
    limits = {name: recipe.gates[name] for name in info.gates}
    key = {
        "use": step.use,
        "version": info.card["version"],
        "knobs": step.values,
        "seed": recipe.seed,
        "inputs": {name: artefact.fingerprint for name, artefact in given.items()},
    }
    if files := dict(named_files(info, step.values)):
        key["files"] = {name: sha256(p) if p.is_file() else Artefact(p).fingerprint for name, p in files.items()}
    fingerprint = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    home = folder / "steps" / f"{step.label}-{fingerprint[:12]}"
    scratch = folder / "steps" / f".{home.name}.scratch"
    skipped = (home / "step.json").exists()
    if skipped:
        listener.say(f"{step.label}: done before, taken as it is")
    else:
        listener.say(f"{step.label}: {info.card['title']}")
        temporary = folder / "steps" / f".{home.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "out").mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        context = Run(
            folder=temporary / "out",
            scratch=scratch,
            logs=folder / "logs" / home.name,
            seed=recipe.seed,
            device=machine.device(),
            limits=limits,
            listener=listener,
            processes=method.spread(processes.size()),
        )
        if context.processes > 1:
            held = {name: [type(artefact).__name__, str(artefact.folder.resolve())] for name, artefact in given.items()}
            folders = {"folder": str(context.folder.resolve()), "scratch": str(scratch.resolve())}
            processes.Orders.give(
                {"use": step.use, "values": step.values, "seed": recipe.seed, "given": held} | folders
            )
        with machine.Meter() as meter:
            method.apply(context, **given)
        made_row = key | {
            "name": step.label,
            "fingerprint": fingerprint,
            "folder": f"steps/{home.name}/out",
            "seconds": meter.seconds,
            "peak_memory_bytes": meter.peak_memory_bytes,
            "gates": [g.as_dict() for g in context.gates],
            "facts": context.facts,
        }
        write_json(temporary / "step.json", made_row)
        _flush(temporary)
        os.replace(temporary, home)
    shutil.rmtree(scratch, ignore_errors=True)
    row: dict[str, Any] = read_json(home / "step.json") | {"skipped": skipped}
    recorded = [Gate(name=g["name"], limit=limits.get(g["name"], g["limit"]), value=g["value"]) for g in row["gates"]]
    row["gates"] = [gate.as_dict() for gate in recorded]
    artefact = getattr(artefacts, info.output)(home / "out")
    if method.publish:
        _publish(home / "out", folder / method.publish)
    return artefact, row


def follow() -> None:
    """Take part in the steps that process 0 spreads, until it ends; what went wrong there too, it tells alone."""
    try:
        while (order := processes.Orders.take()) is not None:
            given = {name: getattr(artefacts, kind)(Path(place)) for name, (kind, place) in order["given"].items()}
            context = Run(
                folder=Path(order["folder"]),
                scratch=Path(order["scratch"]),
                seed=order["seed"],
                device=machine.device(),
                processes=processes.size(),
                process=processes.rank(),
            )
            build_step(order["use"], order["values"]).apply(context, **given)
    except (UserError, KeyboardInterrupt):
        if not processes.ended():
            raise


def _open_record(
    recipe: Recipe, folder: Path, base: Model, sources: artefacts.Sources, plan: Mapping[str, Any] | None, verb: str
) -> dict[str, Any]:
    """The record of this run before its first step; a plan made by an earlier call is kept."""
    earlier = folder / "record.json"
    kept_plan = read_json(earlier).get("plan") if earlier.exists() else None
    return {
        "lect": lect.__version__,
        "verb": verb,
        "command": ["lect", *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(),
        "seconds": 0.0,
        "seed": recipe.seed,
        "machine": machine.describe(),
        "versions": machine.versions(),
        "inputs": {
            "model": {"name": recipe.model, "fingerprint": base.fingerprint, "licence": models.licence(base.folder)},
            "files": [
                {"role": role, "path": str(path), "bytes": path.stat().st_size, "sha256": total}
                for role, path, total in sources.sums
            ],
        },
        "gates": recipe.gates,
        "plan": dict(plan) if plan else kept_plan,
        "steps": [],
        "status": "running",
    }


def _publish(source: Path, target: Path) -> None:
    """Show a folder, or the one file of that name in it, under ``target``: linked where it can be, else copied."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.unlink(missing_ok=True)
    if (source / target.name).is_file():
        _link(source / target.name, temporary)
        os.replace(temporary, target)
        return
    shutil.copytree(source, temporary, copy_function=_link)
    if target.exists():
        shutil.rmtree(target)
    os.replace(temporary, target)


def _link(source: Any, target: Any) -> Any:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _flush(folder: Path) -> None:
    """Ask the system to put every file and folder under ``folder`` on the disk."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` and hold its lock, so that two runs never write into one folder."""
    try:
        (folder / "steps").mkdir(parents=True, exist_ok=True)
        lock = open(folder / "steps" / ".lock", "w")  # noqa: SIM115
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(f"{folder}: cannot be written ({error.strerror}); give another --out") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another lect runs in this folder; wait for it or give another --out") from None
        yield


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into one line that names the folder and the fix."""
    try:
        yield
    except OSError as error:
        place = error.filename or folder
        if error.errno in FULL:
            free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
            raise UserError(
                f"{place}: the disk is full ({free / 1e6:.0f} MB free); make room and run the same command again, "
                "finished steps are kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(f"{place}: cannot be written ({error.strerror}); give another --out") from error
        raise
