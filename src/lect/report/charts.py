# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, drawn by Vega-Lite at two widths: one for a wide page, one for a phone.

Colours in the SVG are the ones of ``INK``; the page's style sheet maps each of them to its light and dark shade.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

Spec = dict[str, Any]
Rows = Sequence[dict[str, Any]]

WIDE, NARROW = 720, 328
INK = {"accent": "#0b6e6e", "soft": "#8fbdbb", "muted": "#6a7178", "faint": "#c3c8cc", "grid": "#e3e6e8"}
INK |= {"text": "#3a4046", "page": "#fdfdfe"}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


def svg(spec: Spec, width: int, height: int) -> str:
    """Draw one Vega-Lite specification, ``width`` by ``height`` pixels in all, as an SVG element for a page."""
    import vl_convert

    axis = {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelColor": INK["muted"],
        "titleColor": INK["muted"],
        "gridColor": INK["grid"],
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "titlePadding": 10,
    }
    config = {
        "font": FONT,
        "aria": False,
        "background": "transparent",
        "view": {"stroke": None},
        "axis": axis,
        "text": {"fontSize": 12, "color": INK["text"], "font": FONT},
        "legend": {
            "labelFontSize": 12,
            "labelColor": INK["text"],
            "title": None,
            "orient": "top",
            "offset": 6,
            "columnPadding": 14,
        },
    }
    whole = {"width": width, "height": height, "autosize": {"type": "fit", "contains": "padding"}} | spec
    drawn = vl_convert.vegalite_to_svg(whole | {"config": config, "padding": 2}, vl_version="5.21")
    drawn = re.sub(r'^<svg [^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', drawn, count=1)
    return drawn.replace(' pointer-events="none"', "")


def both(draw: Callable[[bool], Spec], height: int, narrow_height: int | None = None) -> tuple[str, str]:
    """Draw a chart wide and narrow; ``draw`` is told whether it is the narrow one."""
    return svg(draw(False), WIDE, height), svg(draw(True), NARROW, narrow_height or height)


def line_axis(field: str, title: str, narrow: bool, **more: Any) -> Spec:
    """An axis of numbers with a few round ticks."""
    scale = more.pop("scale", {"zero": False, "nice": True})
    axis = {"title": title, "tickCount": 4 if narrow else 7} | more
    return {"field": field, "type": "quantitative", "axis": axis, "scale": scale}


def losses(rows: Rows) -> tuple[str, str]:
    """The training loss of every step (thinned to means of equal runs of steps) and its running mean."""
    values = [{"x": r["step"], "y": r["loss"]} for r in rows]
    size = -(-len(values) // 300)
    groups = [values[i : i + size] for i in range(0, len(values), size)]
    thin = [{"x": g[-1]["x"], "y": fmean(v["y"] for v in g)} for g in groups]
    span = max(1, len(thin) // 20)
    smooth = []
    for i, row in enumerate(thin):
        near = thin[max(0, i - span) : i + span + 1]
        smooth.append({"x": row["x"], "y": fmean(v["y"] for v in near)})

    def draw(narrow: bool) -> Spec:
        x = line_axis("x", "training step", narrow, grid=False)
        y = line_axis("y", "loss, nats per token", narrow)
        mark = {"type": "line", "clip": True}
        if len(thin) == 1:
            mark = {"type": "point", "filled": True}
        return {
            "layer": [
                {
                    "data": {"values": thin},
                    "mark": mark | {"strokeWidth": 1, "color": INK["faint"]},
                    "encoding": {"x": x, "y": y},
                },
                {
                    "data": {"values": smooth},
                    "mark": mark | {"strokeWidth": 2.25, "color": INK["accent"]},
                    "encoding": {"x": x, "y": y},
                },
            ]
        }

    return both(draw, 260, 220)


def evaluations(rows: Rows) -> tuple[str, str]:
    """Bits per byte on target and kept text against minutes; the values at step 0 are dashed."""
    values = [
        {"x": r["seconds"] / 60, "y": r[role], "role": role}
        for r in rows
        for role in ("target", "kept")
        if r[role] is not None
    ]
    names = {"target": "your text", "kept": "kept text"}
    colour = {"target": INK["accent"], "kept": INK["muted"]}

    def draw(narrow: bool) -> Spec:
        x = line_axis("x", "minutes of training", narrow, grid=False)
        y = line_axis("y", "bits per byte", narrow)
        layers: list[Spec] = []
        for role, word in names.items():
            mine = [v for v in values if v["role"] == role]
            if not mine:
                continue
            start = next((r[role] for r in rows if r["step"] == 0), None)
            if start is not None:
                rule = {"type": "rule", "strokeDash": [3, 4], "strokeWidth": 1.25, "color": colour[role]}
                layers.append(
                    {
                        "data": {"values": [{"y": start}]},
                        "mark": rule,
                        "encoding": {"y": y},
                    }
                )
            point = {"filled": True, "size": 34, "color": colour[role]}
            line = {"type": "line", "strokeWidth": 2.25, "color": colour[role], "point": point}
            layers.append({"data": {"values": mine}, "mark": line, "encoding": {"x": x, "y": y}})
            label = {
                "type": "text",
                "align": "right",
                "baseline": "bottom",
                "dy": -8,
                "color": colour[role],
                "fontWeight": 600,
            }
            last = mine[-1] | {"label": word}
            layers.append(
                {
                    "data": {"values": [last]},
                    "mark": label,
                    "encoding": {"x": x, "y": y, "text": {"field": "label", "type": "nominal"}},
                }
            )
        return {"layer": layers}

    return both(draw, 260, 230)


UNITS = ((1e9, "billion parameters"), (1e6, "million parameters"), (1e3, "thousand parameters"), (1, "parameters"))


def parameters(models: dict[str, dict[str, float]]) -> tuple[str, str]:
    """One bar per model, split into embedding, head and body."""
    shades = {"embedding": INK["accent"], "head": INK["soft"], "body": INK["faint"]}
    rows: list[dict[str, Any]] = []
    most = max(sum(parts.get(p) or 0 for p in shades) for parts in models.values())
    unit, word = next(u for u in UNITS if most >= u[0] or u[0] == 1)
    for model, parts in models.items():
        start = 0.0
        for part in ("embedding", "head", "body"):
            amount = parts.get(part) or 0
            if amount:
                end = start + amount
                rows.append({"model": model, "part": part, "from": start / unit, "to": end / unit})
                start = end

    def draw(narrow: bool) -> Spec:
        present = [p for p in shades if any(r["part"] == p for r in rows)]
        bar = {"type": "bar", "height": 30}
        y = {
            "field": "model",
            "type": "nominal",
            "sort": list(models),
            "axis": {"title": None, "labelColor": INK["text"], "minExtent": 62},
        }
        return {
            "data": {"values": rows},
            "mark": bar,
            "encoding": {
                "y": y,
                "x": line_axis("from", word, narrow, scale={"domain": [0, most / unit]}),
                "x2": {"field": "to"},
                "color": {
                    "field": "part",
                    "type": "nominal",
                    "sort": present,
                    "scale": {"domain": present, "range": [shades[p] for p in present]},
                    "legend": {"symbolType": "square"},
                },
            },
        }

    return both(draw, 90 + 46 * len(models))


def vocabulary(curve: Rows, chosen_rows: float | None) -> tuple[str, str]:
    """Share of further tokens split otherwise, against rows kept: estimates as lines, what was counted as dots."""
    names = {"target": "your text", "kept": "kept text"}
    values = [
        {"x": point["rows"], "y": point[kind][role], "text": names[role], "kind": kind}
        for point in curve
        for kind in ("estimate", "calibration")
        for role in names
        if role in point[kind]
    ]
    present = [name for name in names.values() if any(v["text"] == name for v in values)]
    shades = [INK["accent"] if name == names["target"] else INK["muted"] for name in present]
    places = [v["x"] for v in values]
    scale = {"type": "log", "nice": False} if min(places) > 0 and max(places) > 3 * min(places) else {"zero": False}

    def draw(narrow: bool) -> Spec:
        x = line_axis("x", "vocabulary rows kept", narrow, grid=False, format="~s", labelOverlap=True, scale=scale)
        y = line_axis("y", "share split otherwise", narrow, format="~%", scale={"zero": True, "nice": True})
        layers: list[Spec] = []
        if chosen_rows is not None:
            rule = {"type": "rule", "strokeDash": [3, 4], "strokeWidth": 1.25, "color": INK["text"]}
            chosen = [{"x": chosen_rows, "label": "chosen"}]
            layers.append({"data": {"values": chosen}, "mark": rule, "encoding": {"x": x}})
            word = {"type": "text", "align": "left", "dx": 6, "y": 8, "color": INK["text"]}
            text = {"field": "label", "type": "nominal"}
            layers.append({"data": {"values": chosen}, "mark": word, "encoding": {"x": x, "text": text}})
        shade = {
            "field": "text",
            "type": "nominal",
            "scale": {"domain": present, "range": shades},
            "legend": {"symbolType": "stroke", "symbolStrokeWidth": 3},
        }
        line = {"type": "line", "strokeWidth": 2.25, "point": len(curve) == 1}
        for kind, mark in (("estimate", line), ("calibration", {"type": "point", "filled": True, "size": 34})):
            mine = [v for v in values if v["kind"] == kind]
            layers.append({"data": {"values": mine}, "mark": mark, "encoding": {"x": x, "y": y, "color": shade}})
        return {"layer": layers}

    return both(draw, 260, 240)
