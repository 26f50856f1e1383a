#!/usr/bin/env python3
"""Turns what a terminal shows into an SVG plot: text with colours in, SVG out. Standard library only.

docs/terminal.svg was made from a real run, in a window of 100 columns, with VLLM_BENCH_KEEP_FOREIGN=true and
VLLM_BENCH_PORT=auto in the environment:

    tmux new-session -d -s plot -x 100 -y 60
    tmux send-keys -t plot "vllm-bench run --engine sim --models openai/gpt-oss-20b --tp 4 8 --sim-speed 300" Enter
    tmux capture-pane -e -p -S - -t plot > screen.txt        # when the run has ended
    sed "s|$PWD|/work|g" screen.txt | docs/make_terminal_svg.py --title 'vllm-bench run --engine sim' > docs/terminal.svg

Lines that were left out show as one `⋮`; nothing else is changed.

The plot brings its own dark background, so that it reads the same on light and on dark pages.
"""

import argparse
import re
import sys
import unicodedata
from html import escape

BACKGROUND, FOREGROUND, FRAME = "#16191f", "#d5d9e0", "#3a404c"
NORMAL = ["#5c6370", "#e06c75", "#8cc570", "#d9b26b", "#61afef", "#c678dd", "#56b6c2", "#d5d9e0"]
BRIGHT = ["#7f8694", "#ff7b86", "#a5e075", "#f0c674", "#7cc3ff", "#d78cf0", "#6fd3df", "#ffffff"]
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
CELL, LINE, SIZE, MARGIN, BAR = 7.83, 17.5, 13, 18, 34
SGR = re.compile(r"\x1b\[([0-9;]*)m")
OTHER = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]|\x1b[()][A-Z0-9]|\x0f")


def palette(number):
    """The colour with this number among 256."""
    if number < 16:
        return (NORMAL + BRIGHT)[number]
    if number >= 232:
        return "#" + f"{8 + 10 * (number - 232):02x}" * 3
    steps = [0, 95, 135, 175, 215, 255]
    number -= 16
    return "#" + "".join(f"{steps[part]:02x}" for part in (number // 36, number // 6 % 6, number % 6))


def apply(style, codes):
    """The style after one SGR sequence."""
    codes = [int(code or 0) for code in codes.split(";")]
    while codes:
        code = codes.pop(0)
        if code == 0:
            style = {}
        elif code in (1, 2, 3, 4):
            style = {**style, {1: "bold", 2: "dim", 3: "italic", 4: "underline"}[code]: True}
        elif code == 22:
            style = {key: value for key, value in style.items() if key not in ("bold", "dim")}
        elif code in (23, 24):
            style = {key: value for key, value in style.items() if key != {23: "italic", 24: "underline"}[code]}
        elif 30 <= code <= 37:
            style = {**style, "fill": NORMAL[code - 30]}
        elif 90 <= code <= 97:
            style = {**style, "fill": BRIGHT[code - 90]}
        elif code == 39:
            style = {key: value for key, value in style.items() if key != "fill"}
        elif code == 38 and codes[:1] == [5] and len(codes) > 1:
            style, codes = {**style, "fill": palette(codes[1])}, codes[2:]
        elif code == 38 and codes[:1] == [2] and len(codes) > 3:
            style, codes = {**style, "fill": "#" + "".join(f"{c:02x}" for c in codes[1:4])}, codes[4:]
    return style


def pieces(line, style):
    """The parts of a line that look alike, and the style in which the next line begins."""
    found = []
    parts = SGR.split(OTHER.sub("", line))
    for index, part in enumerate(parts):
        if index % 2:
            style = apply(style, part)
        elif part:
            found.append((part, style))
    return found, style


def width(text):
    """Columns that a text takes."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def attributes(style):
    found = [f'fill="{style.get("fill", FOREGROUND)}"']
    found += ['font-weight="bold"'] * style.get("bold", False)
    found += ['font-style="italic"'] * style.get("italic", False)
    found += ['text-decoration="underline"'] * style.get("underline", False)
    found += ['fill-opacity="0.62"'] * style.get("dim", False)
    return " ".join(found)


def plot(lines, columns, title):
    rows, style = [], {}
    for number, line in enumerate(lines):
        parts, style = pieces(line, style)
        column = 0
        y = BAR + MARGIN + (number + 0.8) * LINE
        for text, look in parts:
            # Each run of words has a place of its own: not every reader keeps several blanks.
            for run in re.finditer(r"[^ ]+(?: [^ ]+)*", text):
                body = run.group()
                x = MARGIN + (column + width(text[: run.start()])) * CELL
                # textLength keeps columns aligned whatever font the reader has.
                rows.append(
                    f'<text x="{x:.1f}" y="{y:.1f}" textLength="{width(body) * CELL:.1f}" '
                    f'lengthAdjust="spacingAndGlyphs" {attributes(look)}>{escape(body)}</text>'
                )
            column += width(text)
    wide, high = columns * CELL + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN + BAR
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 20 * i}" cy="{BAR / 2 + 3}" r="6" fill="{color}"/>'
        for i, color in enumerate(["#e06c75", "#d9b26b", "#8cc570"])
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" width="{wide:.0f}" '
            f'height="{high:.0f}" role="img" aria-label="{escape(title, quote=True)}">',
            f'<rect x="0.5" y="0.5" width="{wide - 1:.0f}" height="{high - 1:.0f}" rx="10" fill="{BACKGROUND}" stroke="{FRAME}"/>',
            dots,
            f'<text x="{wide / 2:.0f}" y="{BAR / 2 + 7}" text-anchor="middle" fill="#8b93a1" '
            f'font-family="system-ui, sans-serif" font-size="13">{escape(title)}</text>',
            f'<g font-family="{escape(FONT, quote=True)}" font-size="{SIZE}">',
            *rows,
            "</g>",
            "</svg>",
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", type=int, default=100, help="width of the terminal (default: %(default)s)")
    parser.add_argument("--title", default="vllm-bench", help="text of the title bar (default: %(default)s)")
    parser.add_argument(
        "--omit", nargs=2, action="append", default=[], metavar=("FROM", "TO"),
        help="show a `⋮` for the lines from the first with FROM up to the next with TO",
    )  # fmt: skip
    options = parser.parse_args()
    lines = sys.stdin.read().rstrip("\n").split("\n")
    for first, last in options.omit:
        begin = next(i for i, line in enumerate(lines) if first in line)
        end = next((i for i in range(begin, len(lines)) if last in lines[i]), len(lines))
        lines[begin:end] = ["\x1b[0;2m  \u22ee\x1b[0m", ""]
    while lines and not SGR.sub("", lines[-1]).strip():
        lines.pop()
    sys.stdout.write(plot(lines, options.columns, options.title))


if __name__ == "__main__":
    main()
