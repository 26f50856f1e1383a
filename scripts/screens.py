#!/usr/bin/env python3
"""What a terminal shows of vllm-bench, and that it keeps its promises.

    python scripts/screens.py [--binary target/release/vllm-bench] [--columns 60,100,160] [--out DIR] [--only WORDS]

Runs the program on the simulated vLLM in a pseudo-terminal with an emulator of what it uses of one (cursor up, clear below, home,
colours, folding at the margin), and looks at the screen while a run starts, measures and ends, at its end, after Ctrl-C, with failures,
at `status --watch` on 34 rows, while the terminal becomes narrower, and at what reaches a pipe, with NO_COLOR and with CI=true.
Checked: no line is wider than the terminal, the end of a run is 30 lines at most, nothing of the live lines stays behind, no colour where
none is wanted, nothing moves the cursor where no terminal reads. `--out` keeps every screen as a file. Exit 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unicodedata
from pathlib import Path

import harness

ROWS = 34
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
CSI = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


def wide(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


class Screen:
    """As much of a terminal as the program uses. `history`: rows that scrolled away."""

    def __init__(self, columns: int, rows: int = ROWS) -> None:
        self.columns, self.height = columns, rows
        self.rows, self.history = [""], []
        self.x = self.y = 0
        self.folded: list[str] = []
        self.pending = ""

    def feed(self, text: str) -> None:
        text, self.pending = self.pending + text, ""
        at = 0
        while at < len(text):
            c = text[at]
            if c == "\x1b":
                found = CSI.match(text, at)
                if not found:
                    if len(text) - at < 16:
                        self.pending = text[at:]
                        return
                    raise AssertionError(f"a sequence that no run should send: {text[at:at + 16]!r}")
                self.sequence(found[1], found[2])
                at = found.end()
                continue
            at += 1
            if c == "\n":
                self.down()
            elif c == "\r":
                self.x = 0
            elif c >= " ":
                self.put(c)

    def sequence(self, numbers: str, which: str) -> None:
        if which == "A":
            self.y = max(0, self.y - int(numbers or 1))
        elif which == "H":
            self.x = self.y = 0
        elif which == "J":
            if numbers == "2":
                self.rows = [""] * len(self.rows)
            else:
                self.rows[self.y] = self.rows[self.y][: self.x]
                del self.rows[self.y + 1 :]
        elif which != "m":
            raise AssertionError(f"a sequence that no run should send: {numbers}{which}")

    def put(self, c: str) -> None:
        if self.x + wide(c) > self.columns:
            self.folded.append(self.rows[self.y])
            self.x = 0
            self.down(False)
        row = self.rows[self.y].ljust(self.x)
        self.rows[self.y] = row[: self.x] + c + row[self.x + 1 :]
        self.x += wide(c)

    def down(self, home: bool = True) -> None:
        # The line discipline turns a line break into both.
        if home:
            self.x = 0
        self.y += 1
        while self.y >= len(self.rows):
            self.rows.append("")
        while len(self.rows) > self.height:
            self.history.append(self.rows.pop(0))
            self.y -= 1

    def resize(self, columns: int) -> None:
        """Folds what is wider, as terminals that reflow do; the cursor stays behind the same character."""
        rows, y = [], 0
        for number, row in enumerate(self.rows):
            parts = [row[i : i + columns] for i in range(0, max(len(row), 1), columns)]
            if number == self.y:
                part, rest = divmod(self.x, columns)
                if rest == 0 and part > 0 and part >= len(parts):
                    part, rest = part - 1, columns
                y, self.x = len(rows) + part, rest
            rows.extend(parts)
        self.rows, self.y, self.columns = rows, y, columns
        while len(self.rows) > self.height:
            self.history.append(self.rows.pop(0))
            self.y -= 1

    def text(self) -> str:
        return "\n".join(row.rstrip() for row in self.rows).rstrip()

    def all(self) -> list[str]:
        return [row.rstrip() for row in self.history + self.rows]


class Terminal:
    """A call in a pseudo-terminal."""

    def __init__(self, command: list[str], folder: Path, columns: int, env: dict[str, str]) -> None:
        self.screen = Screen(columns)
        self.raw = ""
        self.master, slave = pty.openpty()
        self.size(columns)
        # A session of its own, whose terminal this is: Ctrl-C reaches it as from a keyboard.
        self.child = subprocess.Popen(command, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                      preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.open = True

    def size(self, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))

    def resize(self, columns: int) -> None:
        self.read(0.0)
        self.screen.resize(columns)
        self.size(columns)

    def read(self, seconds: float) -> None:
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            try:
                data = os.read(self.master, 1 << 16)
            except OSError:
                data = b""
            if not data:
                self.open = False
                return
            text = data.decode("utf-8", "replace")
            self.raw += text
            self.screen.feed(text)

    def until(self, seen, limit: float = 60) -> bool:
        end = time.monotonic() + limit
        while time.monotonic() < end and self.open:
            self.read(0.05)
            if seen(self.screen.text()):
                return True
        return False

    def ends(self, limit: float = 120) -> int:
        end = time.monotonic() + limit
        while self.open and time.monotonic() < end:
            self.read(0.2)
        return self.child.wait(max(1, end - time.monotonic()))

    def keys(self, text: str) -> None:
        os.write(self.master, text.encode())


class Check:
    def __init__(self, binary: Path, out: Path | None) -> None:
        self.binary, self.out = binary, out
        self.broken: list[str] = []
        self.done = 0

    def that(self, holds: bool, what: str, seen: str = "") -> None:
        self.done += 1
        if not holds:
            self.broken.append(what)
            print(f"BROKEN: {what}\n{seen}\n", flush=True)

    def keep(self, name: str, text: str) -> None:
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / f"{name}.txt").write_text(text + "\n")

    def narrow(self, name: str, lines: list[str], columns: int) -> None:
        # Paths and commands stay whole, to be copied.
        bad = [line for line in lines if wide(line) > columns]
        self.that(not bad, f"{name}: lines wider than {columns}", "\n".join(bad))


class Sweep:
    """A sweep of six experiments whose steps take long enough to be seen."""

    def __init__(self, check: Check, name: str) -> None:
        self.check, self.name = check, name
        self.folder = harness.work_folder(f"screens-{name}")
        self.marker = f"screens-{os.getpid()}-{name}"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("VLLM_BENCH_") and k not in ("CI", "NO_COLOR", "COLUMNS")}
        self.env |= {
            harness.MARKER: self.marker, "TERM": "xterm-256color", "HOME": str(self.folder),
            "VLLM_BENCH_DEVICE_LOCKS": str(self.folder / "devices"),
        }

    def command(self, *more: str, speed: str = "40") -> list[str]:
        base = [str(self.check.binary), "run", "--engine", "sim", "--keep-foreign", "--port", "auto", "--results-dir", "results", "--models", "org/tiny-8B",
                "--tp", "1", "2", "4", "--quantization", "none", "--enforce-eager", "true", "false", "--num-prompts", "60",
                "--sim-speed", speed, "--env", f"{harness.MARKER}={self.marker}"]
        return base + list(more)

    def terminal(self, columns: int, *more: str, speed: str = "40", **env: str) -> Terminal:
        return Terminal(self.command(*more, speed=speed), self.folder, columns, self.env | env)

    def end(self) -> None:
        harness.kill_tree(self.marker, self.folder)
        harness.discard(self.folder)


def live(text: str) -> bool:
    return any(c in text for c in SPINNER)


def after(lines: list[str], begin: str) -> list[str]:
    at = max((i for i, line in enumerate(lines) if line.startswith(begin)), default=0)
    rest = lines[at:]
    while rest and not rest[-1]:
        rest.pop()
    return rest


def a_run(check: Check, columns: int) -> None:
    sweep = Sweep(check, f"run-{columns}")
    try:
        terminal = sweep.terminal(columns)
        for phase, words in [("starting", "loading"), ("measuring", "/60 requests"), ("going", "to go")]:
            seen = terminal.until(lambda text: live(text) and words in text)
            text = terminal.screen.text()
            check.that(seen, f"{columns} columns: the live lines never said `{words}`", text)
            check.keep(f"live-{phase}-{columns}", text)
        check.narrow(f"live lines at {columns}", terminal.screen.all(), columns)
        code = terminal.ends()
        lines = terminal.screen.all()
        check.that(code == 0, f"{columns} columns: exit {code}", "\n".join(lines))
        check.that(not live(terminal.screen.text()), f"{columns} columns: a live line stayed", terminal.screen.text())
        end = after(lines, "── Done")
        check.keep(f"end-{columns}", "\n".join(end))
        check.that(5 < len(end) <= 30, f"{columns} columns: the end has {len(end)} lines", "\n".join(end))
        check.that(any("serve" in line for line in end), f"{columns} columns: no command at the end", "\n".join(end))
        check.that(not terminal.screen.folded, f"{columns} columns: the terminal had to fold", "\n".join(terminal.screen.folded[:5]))
    finally:
        sweep.end()


def interrupted(check: Check, columns: int, when: str, words: str) -> None:
    sweep = Sweep(check, f"ctrl-c-{when}-{columns}")
    try:
        terminal = sweep.terminal(columns)
        terminal.until(lambda text: words in text and live(text))
        terminal.keys("\x03")
        code = terminal.ends()
        lines = [line for line in terminal.screen.all() if line]
        text = "\n".join(lines)
        check.keep(f"ctrl-c-{when}-{columns}", text)
        check.that(code == 130, f"Ctrl-C at {columns}: exit {code}", text)
        check.that(not live(text), f"Ctrl-C at {columns}: a stale line", text)
        check.that(sum("stopping: " in line for line in lines) == 1, f"Ctrl-C at {columns}: not one sentence", text)
        if when == "early":
            end = after(lines, "Interrupted")
            rows = sum(1 for line in end if not line.startswith("  "))
            check.that(len(end) <= (3 if columns >= 100 else 6) and rows >= 3, f"Ctrl-C at {columns}: {len(end)} lines", "\n".join(end))
        else:
            end = after(lines, "── Interrupted")
            check.that(len(end) <= 30, f"Ctrl-C at {columns}: {len(end)} lines", "\n".join(end))
    finally:
        sweep.end()


def failures(check: Check, columns: int) -> None:
    sweep = Sweep(check, f"failures-{columns}")
    try:
        terminal = sweep.terminal(columns, "--sim-fault", "out-of-memory@eager=false", "--retry", "none", speed="200")
        code = terminal.ends()
        lines = terminal.screen.all()
        text = "\n".join(lines)
        check.keep(f"failures-{columns}", text)
        check.that(code == 1, f"failures at {columns}: exit {code}", text)
        tail = [line for line in lines if line.startswith("        | ")]
        check.that(0 < len(tail), f"failures at {columns}: no log lines", text)
        check.that(sum("(as [" in line for line in lines) == 2 or columns < 100, f"failures at {columns}: like failures are not folded", text)
        check.that(sum("the last lines of the log" in line for line in lines) == 1, f"failures at {columns}: more than one log", text)
        end = after(lines, "── Done")
        check.that(len(end) <= 30, f"failures at {columns}: the end has {len(end)} lines", "\n".join(end))
        check.that(any("Failures (3)" in line for line in end), f"failures at {columns}: not grouped", "\n".join(end))
        for line in end:
            if line.strip().startswith("logs/"):
                run = next((sweep.folder / "results").glob("2*"))
                check.that((run / line.strip()).exists(), f"failures at {columns}: a log that is not there", line)
    finally:
        sweep.end()


def watched(check: Check, columns: int) -> None:
    sweep = Sweep(check, f"watch-{columns}")
    try:
        run = sweep.terminal(columns, "--sim-fault", "out-of-memory@eager=false", "--retry", "none")
        run.until(lambda text: "/60 requests" in text and live(text))
        status = Terminal([str(check.binary), "status", "--watch", "--results-dir", "results"], sweep.folder, columns, sweep.env)
        seen = status.until(lambda text: "Progress" in text)
        for _ in range(30):
            status.read(0.1)
            run.read(0.0)
        text = status.screen.text()
        check.keep(f"status-watch-{columns}", text)
        check.that(seen and "State" in text.splitlines()[1:4].__str__(), f"status --watch at {columns}: its beginning is gone", text)
        check.that(not status.screen.history, f"status --watch at {columns}: it scrolls", text)
        check.narrow(f"status --watch at {columns}", text.splitlines(), columns)
        status.keys("\x03")
        check.that(status.ends(20) == 0, f"status --watch at {columns}: Ctrl-C is no normal end")
        run.keys("\x03")
        run.ends()
    finally:
        sweep.end()


def lanes(check: Check, columns: int) -> None:
    sweep = Sweep(check, f"lanes-{columns}")
    try:
        terminal = sweep.terminal(columns, "--parallel", "auto", speed="10")
        for phase, words in [("check", "neighbour check: alone"), ("measuring", "lane 2")]:
            seen = terminal.until(lambda text: live(text) and words in text and " requests, " in text)
            text = terminal.screen.text()
            check.keep(f"lanes-{phase}-{columns}", text)
            check.that(seen, f"lanes at {columns}: the live lines never said `{words}`", text)
            check.that("neighbour-check" not in text, f"lanes at {columns}: a file's name on the screen", text)
        check.narrow(f"lanes at {columns}", terminal.screen.all(), columns)
        terminal.keys("\x03")
        terminal.ends()
        check.that(not live(terminal.screen.text()), f"lanes at {columns}: a stale line", terminal.screen.text())
    finally:
        sweep.end()


def resized(check: Check) -> None:
    sweep = Sweep(check, "resize")
    try:
        terminal = sweep.terminal(160)
        terminal.until(lambda text: live(text) and "/60 requests" in text)
        terminal.resize(60)
        terminal.until(lambda text: False, 1.5)
        text = terminal.screen.text()
        check.keep("resized", text)
        check.that(sum(c in SPINNER for c in text) == 1, "resize: live lines are there twice", text)
        terminal.keys("\x03")
        terminal.ends()
        check.that(not live(terminal.screen.text()), "resize: a stale line", terminal.screen.text())
    finally:
        sweep.end()


def plain(check: Check) -> None:
    sweep = Sweep(check, "pipe")
    try:
        for name, env in [("pipe", {}), ("ci", {"CI": "true"}), ("no-color", {"NO_COLOR": "1"})]:
            if name == "pipe":
                done = subprocess.run(sweep.command(speed="500"), cwd=sweep.folder, env=sweep.env | env, capture_output=True, timeout=120)
                raw, text = (done.stdout + done.stderr).decode(), done.stderr.decode()
            else:
                terminal = sweep.terminal(100, speed="500", **env)
                terminal.ends()
                raw = text = terminal.raw
            check.keep(name, text)
            colours = re.findall(r"\x1b\[[0-9;]*m", raw)
            moves = [found for found in CSI.findall(raw) if found[1] != "m"]
            if name != "ci":
                check.that(not colours, f"{name}: colours", raw)
            if name != "no-color":
                check.that(not moves and not live(raw), f"{name}: lines change in place", raw)
            passed = [line for line in text.splitlines() if "passed" in line and "TTFT" in line]
            check.that(len(passed) == 6, f"{name}: {len(passed)} lines for six experiments", text)
    finally:
        sweep.end()


def main() -> int:
    harness.require_python()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", help="default: target/release/vllm-bench")
    parser.add_argument("--columns", default="60,100,160", help="widths of the terminal (default 60,100,160)")
    parser.add_argument("--out", type=Path, help="a directory for every screen")
    parser.add_argument("--only", default="", help="only the checks whose name holds this")
    args = parser.parse_args()
    check = Check(harness.find_binary(args.binary), args.out)
    calls = []
    for columns in map(int, args.columns.split(",")):
        calls += [(f"run {columns}", lambda c=columns: a_run(check, c)),
                  (f"ctrl-c early {columns}", lambda c=columns: interrupted(check, c, "early", "loading")),
                  (f"ctrl-c late {columns}", lambda c=columns: interrupted(check, c, "late", "[3/6]")),
                  (f"failures {columns}", lambda c=columns: failures(check, c)),
                  (f"lanes {columns}", lambda c=columns: lanes(check, c)),
                  (f"watch {columns}", lambda c=columns: watched(check, c))]
    calls += [("resize", lambda: resized(check)), ("plain", lambda: plain(check))]
    for name, call in calls:
        if args.only in name:
            before = len(check.broken)
            call()
            print(f"{name}: {'ok' if len(check.broken) == before else 'BROKEN'}", flush=True)
    print(f"{check.done} checks, {len(check.broken)} broken")
    return 1 if check.broken else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
