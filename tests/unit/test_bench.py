# SPDX-License-Identifier: Apache-2.0
"""The bench harness: what makes a result stale, how aims are judged, what the stored results say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench import harness  # noqa: E402

CODE = '"""Doc."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1\n'


def module(folder: Path, code: str, **names: object) -> ModuleType:
    path = folder / "sample.py"
    path.write_text(code, "utf-8")
    made = ModuleType("sample")
    made.__file__ = str(path)
    made.__doc__ = "A sample."
    made.CODE = []  # type: ignore[attr-defined]
    for name, thing in names.items():
        setattr(made, name, thing)
    return made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("LECT_BENCH", str(tmp_path / "work"))
    return tmp_path


def test_comments_and_docstrings_do_not_make_a_result_stale(here: Path) -> None:
    before = harness.key({"a": 1}, module(here, CODE))
    assert harness.key({"a": 1}, module(here, CODE.replace("Doc.", "Other words.") + "# more\n")) == before


@pytest.mark.parametrize("change", [("x + 1", "x + 2"), ("def f", "def g")])
def test_code_makes_a_result_stale(here: Path, change: tuple[str, str]) -> None:
    before = harness.key({"a": 1}, module(here, CODE))
    assert harness.key({"a": 1}, module(here, CODE.replace(*change))) != before


def test_configuration_and_named_code_make_a_result_stale(here: Path) -> None:
    before = harness.key({"a": 1}, module(here, CODE))
    assert harness.key({"a": 2}, module(here, CODE)) != before
    (here / "engine").mkdir()
    (here / "engine" / "loop.py").write_text("x = 1\n", "utf-8")
    named = harness.key({"a": 1}, module(here, CODE, CODE=["engine"]))
    assert named != before
    (here / "engine" / "loop.py").write_text("x = 2\n", "utf-8")
    assert harness.key({"a": 1}, module(here, CODE, CODE=["engine"])) != named


def test_a_fresh_result_is_not_measured_again(here: Path) -> None:
    calls = []

    def measure(config: dict[str, int], folder: Path) -> dict[str, object]:
        calls.append(folder)
        return {"figures": {"speed": 3.0, "share": None, "extra": 1}, "details": {"config": config}}

    goals = {"speed": harness.at_least(4), "share": harness.at_most(0.5)}
    sample = module(here, CODE, CONFIG={"a": 1}, GOALS=goals, measure=measure)
    result, fresh = harness.run("sample", sample)
    assert fresh and result["figures"]["speed"] == {"value": 3.0, "goal": "at least 4", "reached": False}
    assert result["figures"]["share"]["reached"] is None and "goal" not in result["figures"]["extra"]
    assert harness.run("sample", sample)[1] is False and len(calls) == 1
    assert harness.run("sample", sample, force=True)[1] is True and len(calls) == 2
    sample.CONFIG = {"a": 2}  # type: ignore[attr-defined]
    assert harness.run("sample", sample)[1] is True and len(calls) == 3


def test_a_goal_without_a_figure_is_an_error(here: Path) -> None:
    sample = module(here, CODE, CONFIG={}, GOALS={"speed": harness.at_least(4)})
    sample.measure = lambda config, folder: {"figures": {}, "details": {}}  # type: ignore[attr-defined]
    with pytest.raises(KeyError, match="speed"):
        harness.run("sample", sample)


def test_goals_are_bounds() -> None:
    assert harness.at_most(0.46).reached(0.46) and not harness.at_most(0.46).reached(0.47)
    assert harness.at_least(6).reached(6.0) and not harness.at_least(6).reached(5.9)
    assert harness.ratio(3.0, None) is None and harness.ratio(3.0, 0.0) is None and harness.ratio(3.0, 2.0) == 1.5


def test_every_comparison_is_whole() -> None:
    found = harness.comparisons()
    assert {"adapt", "startup", "trainer_usual", "trainer_tuned", "vocab_languages"} <= set(found)
    for name, comparison in found.items():
        assert json.loads(json.dumps(comparison.CONFIG)) is not None, name
        assert all(isinstance(goal, harness.Goal) for goal in comparison.GOALS.values()), name
        assert all((ROOT / word).exists() for word in comparison.CODE), f"{name}: CODE names what is not there"
        assert set(getattr(comparison, "NEEDS", [])) <= set(found), name


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "results").glob("*.json")), ids=lambda p: p.stem)
def test_stored_results_are_judged_by_the_present_aims(path: Path) -> None:
    result, comparison = json.loads(path.read_text("utf-8")), harness.comparisons().get(path.stem)
    assert comparison is not None, f"{path.name} has no comparison"
    for name, goal in comparison.GOALS.items():
        figure = result["figures"][name]
        assert figure["goal"] == str(goal) and figure["reached"] == goal.reached(figure["value"])
    assert result["commit"] and result["machine"]["cores"] and result["key"]


def test_the_figures_of_the_main_job_come_out_of_a_report(tmp_path: Path) -> None:
    """A run folder as the report's own tests write it, read as `bench/adapt.py` reads the real one."""
    sys.path.insert(0, str(ROOT / "tests"))
    from bench import adapt

    from lect.report import build
    from report_fixture import write_run

    report = build(write_run(tmp_path))
    figures = adapt.figures(report)
    assert set(adapt.GOALS) == {n for n in figures if n in adapt.GOALS} | {"llamacpp_decode_speed_ratio"}
    size, target = report["size"], report["target"]
    assert figures["parameters_share"] == size["adapted"]["parameters"] / size["base"]["parameters"]
    change = target["adapted"]["bits_per_byte"] / target["base"]["bits_per_byte"] - 1
    assert figures["target_bits_per_byte_change"] == pytest.approx(change)
    assert figures["utilisation"] == report["training"][-1]["utilisation"]
    assert figures["decode_speed_ratio"] is not None and figures["prefill_speed_ratio"] is not None
    assert all("losses" not in row for row in adapt.brief(report["training"]))
    json.dumps(adapt.brief(report["training"]), allow_nan=False)


def test_a_promise_holds_only_where_the_whole_interval_does() -> None:
    from bench.pretrain import claims

    mean, low, high = claims.interval([-0.03, -0.02, -0.01])
    assert (
        mean == pytest.approx(-0.02) and low == pytest.approx(-0.04484, abs=1e-4) and low + high == pytest.approx(-0.04)
    )
    assert claims.verdict(mean, high, 0.0) == "holds weakly"
    assert claims.verdict(mean, high, 0.01) == "holds"
    assert claims.verdict(mean, high, -0.03) == "does not hold here"


def test_every_claim_is_a_method_that_takes_its_knobs() -> None:
    from bench.pretrain import claims

    from lect.registry import build_step

    for told in claims.CLAIMS.values():
        assert build_step("pretrain/continue", {**claims.SHARED["knobs"], **told["with"]})


def test_a_packing_holds_where_it_keeps_both_promises() -> None:
    from bench.pretrain import packing

    from lect.registry import build_step

    for module in packing.variants().values():
        for which in ("packing", "baseline"):
            assert build_step("pretrain/continue", {**module.CONFIG["knobs"], "packing": module.CONFIG[which]})

    def judged(bits: list[float], rates: list[float], faster: float | None) -> tuple[str, float]:
        plain = {"target": 2.0, "kept": 2.0, "bytes_per_second": 100.0}
        rounds = [
            {"baseline": plain, "packing": {"target": b, "kept": 2.0, "bytes_per_second": r}}
            for b, r in zip(bits, rates, strict=True)
        ]
        found = packing.judged(rounds, faster)
        return found["verdict"], found["figures"]["bytes_per_second_ratio"]

    fewer, as_many = [1.90, 1.91, 1.92], [1.90, 2.01, 2.02]
    assert judged(fewer, [140, 141, 139], 1.3) == ("holds", 1.4)
    assert judged(fewer, [140, 100, 131], 1.3) == ("holds weakly", 1.31)
    assert judged(as_many, [140, 141, 139], 1.3)[0] == "holds weakly"
    assert judged([2.1, 2.2, 2.3], [140, 141, 139], 1.3)[0] == "does not hold here"
    assert judged(fewer, [110, 111, 109], 1.3)[0] == "does not hold here"
    assert judged(fewer, [110, 111, 109], None)[0] == "holds"


def test_mixtures_by_language_are_judged_on_what_they_promise() -> None:
    from types import SimpleNamespace

    from bench.pretrain import languages

    from lect.artefacts import Document
    from lect.registry import build_step

    for module in languages.variants().values():
        for way in languages.WAYS:
            assert build_step("pretrain/continue", {**module.CONFIG["knobs"], **module.CONFIG[way]})
    better, worse = ({"eu": bits, "km": 1.0, "en": 1.0, "mean": 5.0} for bits in (0.9, 1.0))
    found = languages.judged({"method": [better] * 3, "baseline": [worse] * 3}, "eu")
    assert found["verdict"] == "holds" and found["figures"]["eu_change_high"] == pytest.approx(-0.1)
    assert found["figures"]["method_eu"] == 0.9 and found["figures"]["baseline_eu"] == 1.0
    assert languages.judged({"method": [worse] * 3, "baseline": [better] * 3}, "eu")["verdict"] == "does not hold here"

    some = [
        Document(id=f"{n:03d}{language}{split}", text="a", language=language, split=split)
        for language in ("eu", "km", "und")
        for split in ("train", "test")
        for n in range(25)
    ]
    text = SimpleNamespace(documents=lambda split=None: (d for d in some if split in (None, d.split)))
    left = [*languages.thinned(text, ["eu", "km"], "eu")]
    assert [d.id for d in left if d.language == "eu" and d.split == "train"] == [
        "000eutrain",
        "010eutrain",
        "020eutrain",
    ]
    assert sum(d.language == "eu" for d in left) == 28 and sum(d.language == "km" for d in left) == 50
    assert not any(d.language == "und" for d in left)


def test_growth_is_level_where_its_bits_cross() -> None:
    """Bits fall by half from 0.75 to all of the operations on a log scale; the mean of both is where it is level."""
    from bench.pretrain import grow

    def found(scratch: float) -> dict[str, dict[str, float]]:
        bits = {"scratch": scratch, "small": 5.0, "grown": 2.0, "shorter": 4.0}
        shares = {"scratch": 1.0, "small": 0.2, "grown": 1.0, "shorter": 0.75}
        return {name: {"bits": bits[name], "flops": 8.0 * shares[name]} for name in bits}

    judged = grow.judged([found(8**0.5)] * 3)
    assert judged["verdict"] == "holds" and judged["figures"]["level_flops_share"] == pytest.approx(0.875)
    assert judged["figures"]["change"] == pytest.approx(2 / 8**0.5 - 1)
    assert judged["figures"]["shorter_change"] == pytest.approx(4 / 8**0.5 - 1)
    assert grow.judged([found(1.9)] * 3)["verdict"] == "does not hold here"


def test_teacher_and_masking_are_judged_against_their_own_baselines() -> None:
    from bench.pretrain import masked, teacher

    def run(bits: float, speed: float) -> dict[str, float]:
        return {"target": bits, "kept": 1.0, "tokens_per_second": speed}

    rounds = [{"seed": n, "plain": run(2.0, 300.0), "taught": run(1.9 + n / 100, 240.0)} for n in range(3)]
    judged = teacher.judged(rounds, {})
    assert judged["verdict"] == "holds" and judged["figures"]["seconds_ratio"] == pytest.approx(1.25)
    assert judged["figures"]["target_change"] == pytest.approx(1.91 / 2 - 1)
    nats = {"uniform": 4.0, "one": 3.0, "other": 5.0}
    rounds = [{name: {"terms": value, "all": 4.0} for name, value in nats.items()}] * 3
    judged = masked.judged(rounds, ["one", "other"], {})
    assert judged["verdict"] == "one holds; other does not hold here"
    assert judged["figures"]["one_terms_change"] == pytest.approx(-0.25) and judged["figures"]["one_all_change"] == 0


def test_held_out_terms_are_masked_whole() -> None:
    from bench.pretrain.masked import HeldOut

    from lect.testing import pico

    tokenizer = pico.build("bert")[1]
    told = {"bytes": 1000, "term_share": 0.5, "share": 0.15}
    held = HeldOut(told, tokenizer, ["the document, a number and the document"] * 8, ["the document"], 6)
    words = tokenizer.convert_ids_to_tokens(held.flat)
    places = held.places["terms"].tolist()
    assert {word for word, chosen in zip(words, places, strict=True) if chosen} == {"the", "document"}
    firsts = [n for n, word in enumerate(words) if word == "the"]
    assert len(firsts) == 16 and all(places[n] == places[n + 1] for n in firsts)
    assert 0 < held.counted()["terms"] == 2 * sum(places[n] for n in firsts) < 32
    length = len(words) // 8
    assert {stop for _, stop in held.pieces} >= {length * n for n in range(1, 9)}
    assert all(0 < stop - start <= 4 for start, stop in held.pieces)
