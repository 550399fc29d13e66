"""Draws a history as one HTML file without scripts: lanes of faults per target, of processes per key and per host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from faults.checker.violation import Violation
from faults.history import History

__all__ = ["timeline"]

WIDTH, LABEL, ROW, GAP = 1400, 170, 18, 3
GRID_STEPS = (1, 2, 5, 10, 20, 60, 120, 300, 600)
GRID_LINES = 16
STYLE = """
body { font: 13px system-ui, sans-serif; margin: 24px; color: #222; background: #fff }
li { color: #b00020 } svg { display: block; margin-top: 16px }
text { font: 11px system-ui, sans-serif; fill: #333 } .grid { stroke: #e3e3e3 } .name { font-weight: 600 }
.fault { fill: #e0a030 } .life { fill: #4a86c5 } .bad { fill: #c62038 } .lane { fill: #f6f6f6 }
"""


@dataclass(frozen=True)
class Bar:
    """A stretch of time in a lane. ``kind``: the class of its colour."""

    first: float
    last: float
    kind: str
    text: str


def timeline(history: History, violations: Sequence[Violation]) -> str:
    """Return the page. Processes that are a part of a violation are red."""
    bad = {id(record) for violation in violations for record in violation.records}
    end = max((record.at for record in history.records), default=1.0)
    lanes: dict[str, list[Bar]] = {}
    for fault in sorted(history.faults, key=lambda fault: fault.began.target):
        last = end if fault.ended is None else fault.ended
        text = f"{fault.began.kind} ({fault.began.detail}), round {fault.began.round}"
        lanes.setdefault(f"fault {fault.began.target}", []).append(Bar(fault.began.at, last, "fault", text))
    for group in ("key", "host"):
        for life in sorted(history.lives, key=lambda life: getattr(life, group)):
            kind = "bad" if id(life) in bad else "life"
            text = f"{life.backend} of {life.key}, token {life.token}, on {life.host}"
            name = life.key if group == "key" else f"on {life.host}"
            lanes.setdefault(name, []).append(Bar(life.at, life.last, kind, text))
    listed = "".join(f"<li>Guarantee {each.guarantee}: {escape(each.text)}</li>" for each in violations[:100])
    seed = "" if history.end is None else f" of seed {history.end.seed}"
    counts = f"{len(history.faults)} faults, {len(history.lives)} processes, {len(history.operations)} operations"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>History under faults</title>'
        f"<style>{STYLE}</style><h1>History{seed}: {len(violations)} violations</h1>"
        f"<p>{counts} in {end:.0f} s. Hover a bar for details.</p><ul>{listed}</ul>{_svg(lanes, end)}</html>"
    )


def _svg(lanes: dict[str, list[Bar]], end: float) -> str:
    scale = (WIDTH - LABEL) / max(end, 1.0)
    parts, y = [], 20
    for name, bars in lanes.items():
        rows = _rows(bars)
        height = len(rows) * (ROW + GAP)
        parts.append(f'<rect class="lane" x="{LABEL}" y="{y}" width="{WIDTH - LABEL}" height="{height - GAP}"/>')
        parts.append(f'<text class="name" x="0" y="{y + 13}">{escape(name)}</text>')
        for number, row in enumerate(rows):
            parts += [_bar(bar, y + number * (ROW + GAP), scale) for bar in row]
        y += height + GAP
    step = next((step for step in GRID_STEPS if end / step <= GRID_LINES), GRID_STEPS[-1])
    grid = []
    for second in range(0, int(end) + 1, step):
        x = LABEL + second * scale
        grid.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="16" y2="{y}"/>')
        grid.append(f'<text x="{x:.1f}" y="12">{second} s</text>')
    return f'<svg width="{WIDTH + 40}" height="{y}">{"".join(parts + grid)}</svg>'


def _bar(bar: Bar, y: int, scale: float) -> str:
    x, width = LABEL + bar.first * scale, max(2.0, (bar.last - bar.first) * scale)
    title = f"{bar.text}: {bar.first:.2f} s to {bar.last:.2f} s"
    rect = f'<rect class="{bar.kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW}" rx="2">'
    return f"{rect}<title>{escape(title)}</title></rect>"


def _rows(bars: Sequence[Bar]) -> list[list[Bar]]:
    """Put bars that overlap into rows of their own."""
    rows: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda bar: bar.first):
        row = next((row for row in rows if row[-1].last < bar.first), None)
        if row is None:
            rows.append([bar])
        else:
            row.append(bar)
    return rows
