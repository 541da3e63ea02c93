# SPDX-License-Identifier: Apache-2.0
"""The main job from the command line on a pico model: it ends well, goes on after a stop, and fails in one line."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lect.testing import pico

SETTINGS = [
    "continue.compile=false",
    "continue.max_length=64",
    "continue.batch_tokens=256",
    "continue.learning_rate=3e-3",
]
SETTINGS += ["split.test=0.2", "split.calibration=0.1", "speed.tokens=8", "speed.rounds=1"]


def lect(*words: object, cwd: Path | None = None, file_limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if file_limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    command = [sys.executable, "-m", "lect", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, preexec_fn=limit)


def sentences(language: str, count: int, seed: int) -> list[str]:
    """Documents of some hundred bytes from the words of the pico corpus."""
    rng = random.Random(seed)
    words = [w for d in pico.documents() if d.language == language for w in d.text.split()]
    return [" ".join(rng.choices(words, k=60)) for _ in range(count)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    pico.model("gemma3", folder / "model")
    for name, language, seed in (("target", "eu", 1), ("kept", "en", 2)):
        rows = [json.dumps({"text": text}) for text in sentences(language, 120, seed)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def adapt(place: Path, out: Path, *extra: object) -> list[object]:
    words = ["adapt", place / "model", place / "target.jsonl", "--keep", place / "kept.jsonl", "--out", out]
    return [*words, "--tokens", 20000, "--set", *SETTINGS, *extra]


@pytest.fixture(scope="module")
def done(place: Path) -> Path:
    out = place / "out"
    result = lect(*adapt(place, out, "gates.kept=1", "gates.target=1"))
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout
    return out


def test_run_folder_is_whole(done: Path) -> None:
    names = {p.name for p in done.iterdir()}
    assert {"model", "model.gguf", "report.html", "report.json", "recipe.yaml", "record.json", "steps"} <= names
    report = json.loads((done / "report.json").read_text())
    assert report["schema"] == 1 and report["verdict"] == "pass"
    read, kept = report["corpus"]["read"], report["corpus"]["kept"]
    assert read == 240 == kept + sum(report["corpus"]["dropped"].values())
    assert report["size"]["adapted"]["parameters"] < report["size"]["base"]["parameters"]
    assert report["target"]["adapted"]["bits_per_byte"] < report["target"]["base"]["bits_per_byte"]
    assert 16000 <= report["cost"]["trained_tokens"] <= 20256, "the budget is places; padding is not trained on"
    assert {g["name"] for g in report["gates"]} >= {"reload", "segmentation", "kept_logits", "target", "kept"}
    assert not [p for p in (done / "steps").iterdir() if p.name.endswith((".tmp", ".scratch"))]


def test_model_loads_with_nothing_of_lect(done: Path) -> None:
    code = (
        "import sys, transformers as t\n"
        "m = t.AutoModelForCausalLM.from_pretrained(sys.argv[1]); k = t.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "i = k('Taula bat', return_tensors='pt'); o = m.generate(**i, max_new_tokens=3)\n"
        "assert 'lect' not in sys.modules; print(k.decode(o[0]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(done / "model")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Taula bat" in result.stdout


def test_second_call_takes_every_step_as_it_is(done: Path, place: Path) -> None:
    before = (done / "model" / "model.safetensors").read_bytes()
    result = lect("run", done / "recipe.yaml", "--out", done)
    assert result.returncode == 0, result.stderr
    record = json.loads((done / "record.json").read_text())
    assert all(step["skipped"] for step in record["steps"])
    assert (done / "model" / "model.safetensors").read_bytes() == before


def test_broken_gate_is_status_1_and_other_budgets_judge_anew(done: Path) -> None:
    result = lect("run", done / "recipe.yaml", "--out", done, "--set", "gates.target=-0.999")
    assert result.returncode == 1
    assert "gate broken: target" in result.stderr
    report = json.loads((done / "report.json").read_text())
    assert report["verdict"] == "fail"
    assert "speed" in report, "the report of a broken run is whole"
    assert lect("run", done / "recipe.yaml", "--out", done, "--set", "gates.target=1").returncode == 0


def test_killed_run_goes_on_and_ends_the_same(done: Path, place: Path) -> None:
    out = place / "killed"
    command = [sys.executable, "-m", "lect", *map(str, adapt(place, out, "gates.kept=1", "gates.target=1"))]
    command[command.index("--set") + 1 : 0] = []
    kills = 0
    for wait in (6.0, 9.0):
        process = subprocess.Popen(
            [*command, "continue.checkpoint_seconds=1"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        time.sleep(wait)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    result = lect(*adapt(place, out, "gates.kept=1", "gates.target=1", "continue.checkpoint_seconds=1"))
    assert result.returncode == 0, result.stderr
    assert kills, "the runs ended before they could be killed"
    assert (out / "model" / "model.safetensors").read_bytes() == (done / "model" / "model.safetensors").read_bytes()


def test_interrupt_says_how_to_go_on(place: Path) -> None:
    out = place / "interrupted"
    command = [sys.executable, "-m", "lect", *map(str, adapt(place, out))]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test in the background inherits "ignored"
    )
    deadline = time.monotonic() + 60
    while not (out / "record.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command again" in errors.splitlines()[-1]


def test_eval_measures_one_model_on_all_of_the_text(done: Path, place: Path) -> None:
    words = ["eval", done / "model", place / "target.jsonl", "--out", place / "eval", "--set", *SETTINGS[-2:]]
    result = lect(*words)
    assert result.returncode == 0, result.stderr
    report = json.loads((place / "eval" / "report.json").read_text())
    alone = report["target"]["base"]["bits_per_byte"]
    assert alone < json.loads((done / "report.json").read_text())["target"]["base"]["bits_per_byte"]
    assert report["corpus"]["splits"]["target"]["test"]["documents"] == 120


def test_generate_and_export(done: Path, place: Path) -> None:
    result = lect("generate", done / "model", "Taula bat", "--tokens", 5)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Taula bat")
    result = lect("export", done / "model", "--to", "gguf", "--out", place / "exported")
    assert result.returncode == 0, result.stderr
    assert (place / "exported" / "model.gguf").read_bytes()[:4] == b"GGUF"


def test_plan_writes_nothing(place: Path, tmp_path: Path) -> None:
    words = ["plan", place / "model", place / "target.jsonl", "--keep", place / "kept.jsonl", "--minutes", "1"]
    result = lect(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert all(word in result.stdout for word in ("keep", "trim", "extend", "replace", "together"))
    assert all(word in result.stdout for word in ("epochs", "learning rate", "bits per byte", "needs 2 earlier runs"))
    assert result.stdout.count("*") == 1
    assert not list(tmp_path.iterdir())


def bad(place: Path, tmp_path: Path, *words: object, **limits: int) -> str:
    result = lect(*words, **limits)
    assert result.returncode == 2, f"{result.returncode}: {result.stderr}"
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("lect: "), result.stderr
    assert "Traceback" not in result.stderr
    return last


def test_bad_inputs(place: Path, tmp_path: Path) -> None:
    keep = ["--keep", place / "kept.jsonl", "--tokens", "1000", "--set", *SETTINGS]
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("")
    binary.write_bytes(bytes(range(256)) * 64)
    for file in (empty, binary):
        line = bad(place, tmp_path, "adapt", place / "model", file, "--out", tmp_path / "o", *keep)
        assert file.name in line
    small = tmp_path / "small.txt"
    small.write_text("Bat bi hiru.")
    bad(place, tmp_path, "adapt", place / "model", small, "--out", tmp_path / "o2", *keep)
    for wreck, words in (("truncate", "model.safetensors"), ("remove", "tokenizer.json")):
        broken = tmp_path / wreck
        pico.model("llama", broken)
        victim = broken / words
        victim.unlink() if wreck == "remove" else victim.write_bytes(victim.read_bytes()[:1000])
        (broken / "manifest.json").unlink()
        line = bad(place, tmp_path, "adapt", broken, place / "target.jsonl", "--out", tmp_path / f"o-{wreck}", *keep)
        assert wreck in line
    assert not (tmp_path / "o" / "model").exists()


def test_full_disk_is_named_and_nothing_is_half_written(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "full"
    result = lect(*adapt(place, out), file_limit=60_000)
    assert result.returncode == 2, result.stderr
    assert "disk is full" in result.stderr.splitlines()[-1]
    for home in (out / "steps").iterdir():
        if not home.name.startswith("."):
            assert not home.is_dir() or (home / "step.json").exists()
    assert not (out / "model").exists()


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self/mem").exists(), reason="root writes everywhere")
def test_folder_that_cannot_be_written_is_named(place: Path) -> None:
    line = bad(place, place, *adapt(place, Path("/proc/lect-out")))
    assert "/proc" in line and "--out" in line
