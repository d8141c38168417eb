#!/usr/bin/env python3
"""Draws a side-by-side result as SVG: for each workload a bar per server for speed, and one for the CPU that it took.

    Benchmarks/plot.py RESULT.json PLOT.svg      draws again what scripts/bench --json has measured

Bars are drawn to the longest one of their workload and panel; the figures beside them are absolute medians.
"""

import json
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from machine import machine_text
from report import conditions

# In pixels, at the width of a page on GitHub. Fonts of 12 pixels take up to 7 for a character.
WIDTH = 900
NAMES = 175
PANEL = 355
FIGURES = 85
BAR, STEP, GROUP_GAP, TITLE = 11, 16, 34, 116
OURS, TWO_FILES, ONE_FILE, NO_FILE, INK, FAINT = "#c2410c", "#0f766e", "#64748b", "#b4bfcc", "#1f2937", "#6b7280"
COLORS = [("Plexus, two copies", OURS), ("others with two copies", TWO_FILES), ("with one file", ONE_FILE),
          ("that store nothing", NO_FILE)]
PANELS = [NAMES, NAMES + PANEL + 10]


def text(x: float, y: float, content: str, size: int = 12, color: str = INK, anchor: str = "start",
         bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}>'
            f"{escape(content)}</text>")


def bar(x: float, y: float, share: float, color: str, label: str, is_ours: bool) -> list[str]:
    length = max(1, share * (PANEL - FIGURES))
    return [f'<rect x="{x:.0f}" y="{y:.0f}" width="{length:.1f}" height="{BAR}" rx="1.5" fill="{color}"/>',
            text(x + length + 5, y + BAR - 1, label, 11, bold=is_ours)]


def figure(value: float, unit: str) -> str:
    if unit == "MB/s":
        return f"{value:.0f} {unit}"
    if value >= 10_000:
        return f"{value / 1000:.0f}k {unit}"
    if value >= 1000:
        return f"{value / 1000:.1f}k {unit}"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def color(row: dict) -> str:
    if row["server"] == "plexus":
        return OURS
    if "2 files" in row["io"]:
        return TWO_FILES
    return NO_FILE if row["io"] == "nothing stored" else ONE_FILE


def group(rows: list[dict], y: float) -> list[str]:
    """One workload. Speed is MB/s where requests are large."""
    speed, unit = ("megabytes_per_second", "MB/s") if rows[0]["countsBytes"] else ("iops", "IOPS")
    measures = [(speed, unit), ("cpu_microseconds_per_request", "us")]
    longest = {name: max((row["measures"][name]["median"] for row in rows if row["measures"]), default=0) or 1
               for name, _ in measures}
    parts = [text(12, y, rows[0]["workload"], 13, bold=True)]
    for row in rows:
        y += STEP
        is_ours = row["server"] == "plexus"
        parts.append(text(NAMES - 8, y + 1, row["server"], 12, OURS if is_ours else INK, "end", is_ours))
        if not row["measures"]:
            parts.append(text(NAMES, y + 1, "failed", 11, FAINT))
            continue
        for x, (name, unit_text) in zip(PANELS, measures):
            value = row["measures"][name]["median"]
            parts += bar(x, y - BAR + 2, value / longest[name], color(row), figure(value, unit_text), is_ours)
    return parts


def color_key(rows: list[dict], y: float) -> list[str]:
    """Only of the colors that are there."""
    parts, x = [], 12
    for label, shade in COLORS:
        if any(color(row) == shade for row in rows):
            parts += [f'<rect x="{x}" y="{y - 9}" width="10" height="10" rx="1.5" fill="{shade}"/>', text(x + 15, y, label)]
            x += 180
    return parts


def legend(result: dict) -> str:
    """Which server does what kind of i/o."""
    kinds: dict[str, list[str]] = {}
    for server in result["servers"]:
        kinds.setdefault(server["io"], []).append(server["name"])
    return "; ".join(f"{io}: {', '.join(names)}" for io, names in kinds.items())


def wrapped(words: str, length: int) -> list[str]:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) > length:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def svg(date: str, machine: dict, result: dict) -> str:
    workloads = list(dict.fromkeys(row["workload"] for row in result["summary"]))
    groups = [[row for row in result["summary"] if row["workload"] == workload] for workload in workloads]
    parts = [text(12, 24, "Plexus, which writes two copies, beside other NBD servers", 16, bold=True),
             text(12, 43, f"{date}: {machine_text(machine)}, {result['fileSystem']}", 12, FAINT),
             text(12, 59, f"fio over a Unix socket, {conditions(result)}", 12, FAINT),
             *color_key(result["summary"], 82),
             text(PANELS[0], TITLE - 8, "IOPS or MB/s: longer is better", 12, bold=True),
             text(PANELS[1], TITLE - 8, "server CPU per request: shorter is better", 12, bold=True)]
    y = TITLE + 18
    for rows in groups:
        parts += group(rows, y)
        y += STEP * len(rows) + GROUP_GAP
    for note_line in wrapped(legend(result), 135):
        parts.append(text(12, y, note_line, 11, FAINT))
        y += 15
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>', *parts, "</svg>", ""])


def write_plots(path: Path, document: dict) -> list[Path]:
    """One plot for each file system; with several, its name is put into the file's."""
    results = [result for result in document["results"] if result["kind"] == "side by side"]
    written = []
    for result in results:
        name = path if len(results) == 1 else path.with_stem(f"{path.stem}-{result['fileSystem']}")
        name.write_text(svg(document["date"], document["machine"], result), encoding="utf-8")
        written.append(name)
    return written


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 64
    write_plots(Path(sys.argv[2]), json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
