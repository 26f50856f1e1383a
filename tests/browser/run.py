#!/usr/bin/env python3
"""Takes reports through a real headless Chromium: sorting, filters, plots, zoom, keyboard, print, hostile text, 1,000 rows.

    tests/browser/run.py [--binary PATH] [--screenshots DIR] [--only NAME]... [--keep] [--list]

Installs what it needs first (setup.sh). One line per check; the last line is `N passed, M failed`. Exit code 1 when one failed, 3
when all passed but the machine was too busy to open 1,000 rows within two seconds. See README.md.
"""

import argparse
import contextlib
import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOSTILE = ["<img src=x onerror=alert(1)>", '=HYPERLINK("http://x/")', "</script><script>alert(2)</script>"]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
#: A page of 1,000 experiments is open within so many seconds, and smaller than so many bytes.
OPEN_SECONDS, MOST_BYTES = 2.0, 2_000_000

SWEEP = """
serve:
  model: [%s]
  tensor-parallel-size: [1, 2]
  max-num-seqs: [64, 256]
bench:
  dataset-name: random
  random-input-len: 8
  random-output-len: 8
  num-prompts: 12
  max-concurrency: [1, 4, 12]
  ignore-eos: true
exclude:
- {when: {max-num-seqs: 256, tensor-parallel-size: 2}, reason: "would <b>only</b> queue & wait"}
repeats: {starts: 2}
"""


class Failed(Exception):
    """What a check found instead."""


def need(condition, told) -> None:
    if not condition:
        raise Failed(told)


class Bench:
    """The binary, the pages it made, and one browser for all checks."""

    def __init__(self, binary: Path, folder: Path, screenshots: Path, browser):
        self.binary, self.folder, self.screenshots, self.browser = binary, folder, screenshots, browser
        self.slow = False
        self.pages: dict[str, Path] = {}

    def call(self, *words, code=0) -> str:
        done = subprocess.run([self.binary, *map(str, words)], cwd=self.folder, capture_output=True, text=True, timeout=600,
                              env={**os.environ, "NO_COLOR": "1"})
        if code is not None:
            need(done.returncode == code, f"`{' '.join(map(str, words))}` ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def hostile(self) -> Path:
        """The page of a simulated sweep with failures, skips, repeats and hostile names."""
        if "hostile" not in self.pages:
            sweep = self.folder / "sweep.yaml"
            sweep.write_text(SWEEP % ", ".join(json.dumps(name) for name in HOSTILE[:2]))
            self.call("run", sweep, "--engine", "sim", "--sim-speed", "inf", "--port", "auto", "--results-dir", self.folder / "runs",
                      "--retry", "none", "--keep-foreign", "--sim-fault", "out-of-memory@tp=1,max-num-seqs=256", code=1)
            self.run_dir = next(path.parent for path in (self.folder / "runs").glob("*/manifest.json"))
            # A log line that is as hostile as a line can be.
            for path in self.run_dir.glob("*_failure.json"):
                failure = json.loads(path.read_text())
                for evidence in failure["evidence"]:
                    evidence["text"] = HOSTILE[2] + " \u202e " + HOSTILE[0]
                failure["advice"] = ["<svg onload=alert(3)> read the log"]
                path.write_text(json.dumps(failure))
            out = self.folder / "hostile.html"
            self.call("report", self.run_dir, "--output", out, "--title", "<b>bold</b> " + HOSTILE[2])
            self.pages["hostile"] = out
        return self.pages["hostile"]

    def grown(self, count: int) -> Path:
        """The page of a run of so many experiments."""
        name = f"rows-{count}"
        if name not in self.pages:
            import rows

            self.hostile()
            run = rows.grown(self.run_dir, self.folder / name, count)
            # It has no journal: the page is made, and the exit code says that something is missing.
            self.call("report", run, code=5)
            self.pages[name] = run / "report.html"
        return self.pages[name]

    @contextlib.contextmanager
    def fresh_page(self, address, allowed, ours, seconds=15, **context):
        """A page of its own; afterwards: nothing was asked of others than `ours`, no text was run, and the console says nothing but `allowed`."""
        context = self.browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **context})
        context.set_default_timeout(seconds * 1000)
        page = context.new_page()
        told, asked, dialogs = [], [], []
        page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: told.append(f"error: {error}"))
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(address, wait_until="load")
        try:
            yield page
            told = [text for text in told if not any(word in text for word in allowed)]
            need(not told, f"the console says: {told[:3]}")
            outside = [url for url in asked if not url.startswith(ours)]
            need(not outside, f"asked for {outside[:3]}")
            need(not dialogs, f"hostile text was run: {dialogs}")
        finally:
            context.close()

    def open(self, path: Path, address="", **context):
        """A fresh page from file://."""
        return self.fresh_page(path.as_uri() + address, (), (path.as_uri(), "blob:"), **context)

    def shoot(self, page, name: str, **how) -> None:
        page.screenshot(path=self.screenshots / f"{name}.png", **{"full_page": True, **how})


def visible(page) -> list[list[str]]:
    """The rows that the table shows, as texts of their cells."""
    return page.evaluate("[...document.querySelectorAll('#rows tbody tr')].filter(r => !r.hidden).map(r => [...r.cells].map(c => c.firstChild ? c.firstChild.textContent : ''))")


def column(page, name: str) -> list[str]:
    at = page.evaluate("name => [...document.querySelectorAll('#rows thead th')].findIndex(th => th.dataset.column === name)", name)
    need(at >= 0, f"no column {name}")
    return [cells[at] for cells in visible(page)]


def numbers(texts) -> list[float]:
    return [float(text.replace(",", "")) for text in texts if text not in ("n/a", "")]


# --- checks -----------------------------------------------------------------------------------------------------------

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@check
def opens_without_console_or_network(bench):
    with bench.open(bench.hostile()) as page:
        need(page.locator("h1").inner_text().startswith("<b>bold</b>"), "the title is not text")
        need(page.locator(".banner").inner_text().startswith("SIMULATED"), "no banner")
        need(page.locator("#rows tbody tr").count() > 10, "no rows")
        bench.shoot(page, "hostile-light")


@check
def a_script_of_a_stranger_does_not_run(bench):
    with bench.browser.new_context() as context:
        page = context.new_page()
        told = []
        page.on("console", lambda message: told.append(message.text))
        page.goto(bench.hostile().as_uri())
        page.evaluate("() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s); }")
        page.evaluate("() => { const i = document.createElement('img'); i.src = 'https://example.invalid/x.png'; document.body.append(i); }")
        page.evaluate("() => { document.body.insertAdjacentHTML('beforeend', '<a id=evil onclick=\"window.ran=1\" style=\"position:fixed\">x</a>'); document.getElementById('evil').click(); }")
        page.wait_for_function("performance.now() > 0")
        need(page.evaluate("window.ran") is None, "an injected script ran")
        need(any("Content Security Policy" in text for text in told), f"the policy said nothing: {told}")


@check
def hostile_text_stays_text(bench):
    with bench.open(bench.hostile()) as page:
        need(page.locator("main img, main iframe, main object").count() == 0, "an element came out of text")
        need(page.locator("script").count() == 2, "a script came out of text")
        for name in HOSTILE[:2]:
            need(name in page.locator("#rows").inner_text(), f"{name} is not shown")
        need(HOSTILE[2] in page.locator("#failures").inner_text(), "the log line is not shown")
        need("\u202e" not in page.locator("#failures").inner_text(), "text can be reordered")
        for tab in ("scatter", "lines", "bars", "heat", "startup"):
            page.click(f"[data-tab={tab}]")
            need(page.locator("#panel svg, #panel .faint").count() > 0, f"{tab}: nothing is drawn")
            page.locator("#plots").screenshot(path=bench.screenshots / f"hostile-{tab}.png")
        page.locator("#panel .bar").first.hover()


@check
def sorting_by_click_and_keyboard(bench):
    with bench.open(bench.grown(300)) as page:
        header = "th[data-column='f:output_throughput']"
        page.click(f"{header} button")
        values = numbers(column(page, "f:output_throughput"))
        need(len(values) > 200 and values == sorted(values, reverse=True), "the better end is not first")
        need(page.get_attribute(header, "aria-sort") == "descending", "aria-sort is not set")
        page.focus(f"{header} button")
        page.keyboard.press("Enter")
        values = numbers(column(page, "f:output_throughput"))
        need(values == sorted(values), "Enter does not turn it round")
        need(column(page, "f:output_throughput")[-1] == "n/a", "what is not known is not last")
        page.keyboard.press("Enter")
        need(page.get_attribute(header, "aria-sort") is None, "the third time does not end it")
        page.click("th[data-column='s:max-concurrency'] button")
        values = numbers(column(page, "s:max-concurrency"))
        need(values == sorted(values) and 512 in values, "settings do not sort as numbers")


@check
def filters_by_text_setting_and_status(bench):
    with bench.open(bench.grown(300)) as page:
        page.fill("#search", "seqs-64_ eager-true")
        shown = visible(page)
        need(0 < len(shown) < 100, f"{len(shown)} rows pass")
        need(str(len(shown)) in page.locator("#count").inner_text(), "the count is another one")
        page.select_option("[data-filter='tensor-parallel-size']", "4")
        need(set(column(page, "s:tensor-parallel-size")) == {"4"}, "the setting is not filtered")
        page.click("#reset-filters")
        page.select_option("#status-filter", "not-run")
        need(set(column(page, "status")) == {"not run"}, "the status is not filtered")
        page.select_option("#status-filter", "")
        page.click("#columns summary")
        page.check("#columns input[data-column='f:p99_ttft_ms']")
        need(len(numbers(column(page, "f:p99_ttft_ms"))) > 100, "the column has no metrics")
        page.keyboard.press("Escape")


@check
def rows_by_keyboard(bench):
    with bench.open(bench.hostile()) as page:
        page.focus("#rows tbody tr[tabindex='0']")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        need(page.locator("#rows tr.selected").count() == 1, "no row is selected")
        text = page.locator("#detail").inner_text()
        need("Selected" not in text and len(text) > 50, "no detail")


@check
def the_link_holds_the_state(bench):
    with bench.open(bench.grown(300)) as page:
        page.fill("#search", "tp4")
        page.click("th[data-column='f:mean_ttft_ms'] button")
        page.click("[data-tab=bars]")
        page.click("#rows tbody tr:not([hidden]) >> nth=3")
        before, address = visible(page), page.evaluate("location.hash")
        name = page.locator("#detail h3").inner_text()
    with bench.open(bench.grown(300), address) as page:
        need(visible(page) == before, "the table is another one")
        need(page.get_attribute("[data-tab=bars]", "aria-selected") == "true", "the plot is another one")
        need(page.locator("#detail h3").inner_text() == name, "another row is selected")
        page.click("nav a[href='#experiments']")
        need(page.evaluate("location.hash") == address, "a link within the page loses the state")


@check
def csv_holds_the_shown_rows(bench):
    with bench.open(bench.hostile()) as page:
        page.select_option("#status-filter", "valid")
        with page.expect_download() as waiting:
            page.click("#csv")
        rows = list(csv.reader(Path(waiting.value.path()).read_text().splitlines()))
        need(len(rows) - 1 == len(visible(page)), f"{len(rows) - 1} rows, {len(visible(page))} are shown")
        need(rows[0][-1] == "simulated" and rows[1][-1] == "true", "the metrics are not marked")
        models = {row[0] for row in rows[1:]}
        need("'" + HOSTILE[1] in models and HOSTILE[0] in models, f"models: {models}")


@check
def axes_tooltip_and_selection(bench):
    with bench.open(bench.grown(300)) as page:
        dots = page.locator("#scatter .dot")
        need(dots.count() == 280, f"{dots.count()} points of 280 valid rows")
        page.select_option("[data-plot=x]", "s:max-concurrency")
        page.select_option("[data-plot=y]", "f:p99_tpot_ms")
        page.select_option("[data-plot=color]", "s:tensor-parallel-size")
        need("P99 TPOT" in page.locator("#scatter svg").text_content(), "the axis keeps its name")
        need("plot.y=" in page.evaluate("location.hash"), "the choice is not in the link")
        # The last one drawn lies on top.
        dots.last.hover()
        tip = page.locator("#tip").inner_text()
        need("P99 TPOT" in tip and "max-num-seqs" in tip, f"the tooltip says {tip!r}")
        page.locator("#plots").screenshot(path=bench.screenshots / "scatter-tooltip.png")
        dots.last.click()
        need(page.locator("#rows tr.selected").count() == 1, "the click selects no row")
        need(page.locator("#scatter .dot.selected").count() == 1, "the point is not marked")
        page.locator("#scatter .dot[tabindex='0']").focus()
        first = page.evaluate("document.activeElement.dataset.row")
        page.keyboard.press("ArrowRight")
        need(page.evaluate("document.activeElement.dataset.row") != first, "the arrow keys do not move")
        need(page.locator("#tip").is_visible(), "no tooltip for the keyboard")
        page.keyboard.press("Enter")
        need(page.locator("#detail h3").count() == 1, "Enter selects nothing")


@check
def fronts_and_ticks_are_those_of_the_data(bench):
    with bench.open(bench.grown(300)) as page:
        data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
        at = {metric["key"]: index for index, metric in enumerate(data["metrics"])}
        pair = sorted([at[data["latency"]], at[data["rank_by"]]])
        expected = next(fronts for *axes, fronts in data["fronts"] if axes == pair)
        drawn = lambda: page.locator("#scatter .front").evaluate_all("all => all.map(n => n.getAttribute('d').split('L').length)")
        need(sorted(drawn()) == sorted(map(len, expected)), f"{drawn()} points on the fronts, {[len(front) for front in expected]} in the data")
        # Of one model and load one front is left.
        page.select_option("[data-filter='max-concurrency']", "4")
        need(0 < len(drawn()) < len(expected), f"{len(drawn())} fronts of {len(expected)} after a filter")
        page.select_option("[data-filter='max-concurrency']", "")
        page.select_option("[data-plot=y]", "f:p99_ttft_ms")
        need(not drawn(), "a front of two latencies")
        texts = page.locator("#scatter text.tick").evaluate_all("all => all.map(n => Number(n.textContent.replaceAll(',', '')))")
        need(len(texts) > 5, f"ticks: {texts}")
        # 1, 2 or 5 times a power of ten lies between neighbours.
        for one, two in zip(texts, texts[1:]):
            step = two - one
            if step > 0:
                need(any(abs(step - size) < 1e-9 * size for size, _ in data["round"]["steps"]), f"a step of {step}: {texts}")


@check
def zoom_by_drag_wheel_and_reset(bench):
    with bench.open(bench.grown(300)) as page:
        count = lambda: page.locator("#scatter .dot").count()
        everything = count()
        page.locator("#scatter").scroll_into_view_if_needed()
        box = page.locator("#scatter .hot").bounding_box()

        def drag():
            page.mouse.move(box["x"] + 5, box["y"] + 5)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.3, steps=4)
            page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.6, steps=4)
            page.mouse.up()

        drag()
        zoomed = count()
        need(0 < zoomed < everything, f"{zoomed} of {everything} points after a drag")
        page.locator("#plots").screenshot(path=bench.screenshots / "scatter-zoomed.png")
        page.click("[data-reset]")
        need(count() == everything, "reset does not bring all back")
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
        page.keyboard.down("Control")
        for _ in range(4):
            page.mouse.wheel(0, -100)
        page.keyboard.up("Control")
        page.wait_for_function("n => document.querySelectorAll('#scatter .dot').length < n", arg=everything)
        page.locator("#scatter svg").dblclick(position={"x": 200, "y": 60})
        need(count() == everything, "a double click does not bring all back")
        # A wheel alone scrolls the page, until somebody clicks into the plot.
        page.mouse.move(5, 5)
        page.mouse.move(box["x"] + 50, box["y"] + 50)
        page.mouse.wheel(0, -100)
        need(count() == everything, "the wheel zooms where it should scroll")


@check
def the_legend_switches(bench):
    with bench.open(bench.grown(300)) as page:
        entry = page.locator("#panel .legend button").first
        before = page.locator("#scatter .dot").count()
        entry.click()
        need(0 < page.locator("#scatter .dot").count() < before, "nothing is hidden")
        need(page.locator("#panel .legend button").first.get_attribute("aria-pressed") == "false", "the entry does not say so")
        page.locator("#panel .legend button").first.press("Enter")
        need(page.locator("#scatter .dot").count() == before, "it does not come back")
        page.click("[data-tab=lines]")
        need(page.locator("#panel .series").count() >= 4, "no lines")
        page.click("[data-tab=heat]")
        need(page.locator("#panel .cell").count() >= 20, "no cells")
        page.click("[data-tab=startup]")
        need(page.locator("#panel .bar").count() == 30, "no bars")


@check
def sizes_of_runs(bench):
    for count in (3, 30, 300, 1000):
        with bench.open(bench.grown(count)) as page:
            for tab in ("scatter", "lines", "bars", "heat", "startup"):
                page.click(f"[data-tab={tab}]")
                page.locator("#plots").screenshot(path=bench.screenshots / f"rows-{count}-{tab}.png")
                outside = page.evaluate("""() => [...document.querySelectorAll('#panel svg text')].filter(text => {
                    const [a, b] = [text.getBoundingClientRect(), text.closest('svg').getBoundingClientRect()];
                    return a.width && (a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1);
                }).map(text => text.textContent)""")
                need(not outside, f"{count} rows, {tab}: clipped: {outside[:3]}")
                crossing = page.evaluate("""() => {
                    const found = [];
                    for (const svg of document.querySelectorAll('#panel svg[role=group]')) {
                        const boxes = [...svg.querySelectorAll('text.tick:not([transform])')].map(t => [t.getBoundingClientRect(), t.textContent]).filter(([b]) => b.width);
                        boxes.forEach(([a, x], i) => boxes.slice(i + 1).forEach(([b, y]) => {
                            const across = Math.min(a.right, b.right) - Math.max(a.left, b.left), down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                            if (across > 1 && down > 4) found.push(x + ' / ' + y);
                        }));
                    }
                    return found;
                }""")
                need(not crossing, f"{count} rows, {tab}: ticks overlap: {crossing[:3]}")
            page.click("[data-tab=scatter]")
            if count <= 30:
                bench.shoot(page, f"rows-{count}-page")


@check
def a_narrow_window(bench):
    for name, path in (("hostile", bench.hostile()), ("rows-30", bench.grown(30))):
        with bench.open(path, viewport={"width": 800, "height": 900}) as page:
            wide = page.evaluate("document.documentElement.scrollWidth")
            need(wide <= 800, f"{name}: the page is {wide} wide")
            bench.shoot(page, f"{name}-narrow")
    with bench.open(bench.grown(30), viewport={"width": 390, "height": 800}) as page:
        wide = page.evaluate("document.documentElement.scrollWidth")
        need(wide <= 390, f"on a phone the page is {wide} wide")
        bench.shoot(page, "rows-30-phone")


@check
def dark_by_system_and_by_choice(bench):
    color = "getComputedStyle(document.body).backgroundColor"
    with bench.open(bench.hostile()) as page:
        light = page.evaluate(color)
        page.click("#theme button")
        need(page.evaluate(color) != light, "the button changes nothing")
        page.click("#theme button")
        need(page.evaluate(color) == light, "the button does not change back")
    with bench.open(bench.grown(30), color_scheme="dark") as page:
        need(page.evaluate(color) != light, "the system's choice is not taken")
        bench.shoot(page, "rows-30-dark")
        page.click("#theme button")
        need(page.evaluate(color) == light, "dark cannot be left")


@check
def prints(bench):
    for name, path in (("hostile", bench.hostile()), ("rows-30", bench.grown(30))):
        with bench.open(path, color_scheme="dark") as page:
            pdf = bench.screenshots / f"{name}.pdf"
            page.pdf(path=pdf, format="A4")
            need(pdf.stat().st_size > 20_000, "the PDF is empty")
            page.emulate_media(media="print")
            need(not page.locator("#filters .controls").is_visible(), "controls are printed")
            need(page.locator("#scatter svg").is_visible(), "the plot is not printed")
            need(page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "print is dark")


@check
def without_javascript(bench):
    with bench.open(bench.hostile(), java_script_enabled=False) as page:
        text = page.locator("body").inner_text()
        for told in ("Recommendation", "sim-vllm serve", HOSTILE[0], "out of memory" if "out of memory" in text else "out-of-memory", "would <b>only</b> queue & wait"):
            need(told in text, f"{told!r} is not there")
        need(not page.locator("#plots").is_visible(), "there is an empty section of plots")
        need(page.locator("#rows tbody tr").count() > 10, "no rows")
        bench.shoot(page, "hostile-no-script")


@check
def reads_to_a_screen_reader(bench):
    with bench.open(bench.hostile()) as page:
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
        need(levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:])), f"headings jump: {levels}")
        need(page.locator("main, nav, header, footer").count() == 4, "landmarks are missing")
        nameless = page.evaluate("[...document.querySelectorAll('button, select, input')].filter(n => !(n.textContent.trim() || n.labels?.length || n.getAttribute('aria-label'))).length")
        need(nameless == 0, f"{nameless} controls without a name")
        need(page.locator("#scatter .dot:not([aria-label])").count() == 0, "points without a name")
        twice = page.evaluate("(() => { const ids = [...document.querySelectorAll('[id]')].map(n => n.id); return ids.filter((id, at) => ids.indexOf(id) !== at); })()")
        need(not twice, f"ids are there twice: {twice}")


@check
def the_command_is_copied(bench):
    with bench.open(bench.hostile(), permissions=["clipboard-read", "clipboard-write"]) as page:
        box = page.locator(".answer .command").first
        shown = box.locator("code").inner_text()
        box.locator("button").click()
        page.wait_for_function("document.querySelector('.answer .command button').textContent === 'Copied'")
        need(page.evaluate("navigator.clipboard.readText()") == shown, "another text was copied")


@check
def a_thousand_open_at_once(bench):
    path = bench.grown(1000)
    size = path.stat().st_size
    need(size < MOST_BYTES, f"{size} bytes")
    times = []
    for _ in range(3):
        with bench.open(path) as page:
            need(page.locator("#rows tbody tr").count() == 1000, "rows are missing")
            times.append(page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now() / 1000))))"))
            begun = time.monotonic()
            page.click("th[data-column='f:mean_tpot_ms'] button")
            page.evaluate("document.body.offsetHeight")
            sorting = time.monotonic() - begun
    print(f"      1,000 experiments: {size / 1e6:.2f} MB, open after {min(times):.2f} s (of {', '.join(f'{t:.2f}' for t in times)}), sorted in {sorting:.2f} s", flush=True)
    if min(times) > OPEN_SECONDS:
        bench.slow = True
        print(f"WARN  opening took longer than {OPEN_SECONDS} s; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", flush=True)


# --- the frame --------------------------------------------------------------------------------------------------------



# --- the dashboard ----------------------------------------------------------------------------------------------------

#: What Chromium says of a server that is gone.
LOST = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")


@contextlib.contextmanager
def served(bench, *words):
    """A call that serves a dashboard, and its link; afterwards it is ended."""
    said = bench.folder / f"served-{time.monotonic_ns()}"
    with said.open("w") as out:
        call = subprocess.Popen([bench.binary, *map(str, words)], cwd=bench.folder, stdout=out, stderr=subprocess.STDOUT,
                                env={**os.environ, "NO_COLOR": "1"})
    try:
        for _ in range(600):
            link = next((word for word in said.read_text().split() if word.startswith("http://127.0.0.1:")), None)
            if link or call.poll() is not None:
                break
            time.sleep(0.1)
        need(link, f"no link: {said.read_text()[-500:]}")
        yield link, call
    finally:
        if call.poll() is None:
            call.send_signal(signal.SIGINT)
        call.wait(timeout=120)


@contextlib.contextmanager
def dashboard(bench, link, allowed=(), **context):
    """A page of a dashboard."""
    with bench.fresh_page(link, allowed, link.split("?")[0], seconds=60, **{"viewport": {"width": 1200, "height": 900}, **context}) as page:
        # The link leads on to the page.
        page.wait_for_selector("#rows thead th", state="attached")
        yield page


def until(page, condition: str, seconds=90) -> None:
    """Waits for a condition. Playwright's own way evaluates text inside the page, which its policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        if time.monotonic() > end:
            shown = page.evaluate("['standing', 'counts', 'connection'].map((id) => document.getElementById(id)?.innerText)")
            raise Failed(f"waited in vain for {condition}; the page says {shown}")
        time.sleep(0.1)


def states(page) -> dict:
    return page.evaluate("[...document.querySelectorAll('#rows tbody tr')].reduce((all, row) => ({...all, [row.classList[0]]: (all[row.classList[0]] ?? 0) + 1}), {})")


@check
def the_dashboard_shows_a_live_run(bench):
    sweep = bench.folder / "live.yaml"
    sweep.write_text(SWEEP % ", ".join(json.dumps(name) for name in HOSTILE[:1]))
    words = ["run", sweep, "--engine", "sim", "--sim-speed", "40", "--port", "auto", "--results-dir", bench.folder / "live", "--retry", "none",
             "--keep-foreign", "--sim-device-memory", "200", "--sim-fault", "out-of-memory@tp=2", "--dashboard", "127.0.0.1:0"]
    # Its server ends with the run: what is asked of it then gets no answer.
    with served(bench, *words) as (link, run):
        with dashboard(bench, link, allowed=LOST) as page:
            need("token" not in page.evaluate("location.href"), "the token stays in the address")
            until(page, "document.querySelectorAll('#rows tbody tr').length === 18")
            until(page, "document.querySelector('#lanes .card')")
            until(page, "document.querySelectorAll('#rows tr.passed').length >= 2")
            page.wait_for_selector("#answer .use")
            until(page, "document.getElementById('plot').naturalWidth > 100")
            need(page.locator("#simulated").is_visible(), "no banner")
            need(page.locator("#standing").inner_text() == "running", "it is not live")
            need(HOSTILE[0] in page.locator("#answer").inner_text(), "the hostile name is not shown")
            need(page.locator("main img").count() == 1 and page.locator("script").count() == 1, "an element came out of text")
            page.locator("#lanes summary").first.click()
            until(page, "(document.querySelector('#lanes pre')?.textContent ?? '').length > 100")
            bench.shoot(page, "dashboard-live")
            # By the keyboard: search, a row, its detail, and back.
            page.keyboard.press("/")
            page.keyboard.type("passed")
            need(page.evaluate("[...document.querySelectorAll('#rows tbody tr:not([hidden])')].every(r => r.className.includes('passed'))"), "the search finds others")
            page.locator("#rows tbody tr:not([hidden])").first.focus()
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Enter")
            need(page.locator("#detail h3").count() == 1, "Enter shows nothing")
            page.keyboard.press("Escape")
            need(page.locator("#detail h3").count() == 0, "Escape does not close it")
            with dashboard(bench, link, viewport={"width": 400, "height": 850}, color_scheme="dark") as phone:
                phone.wait_for_selector("#answer .use")
                wide = phone.evaluate("document.documentElement.scrollWidth")
                need(wide <= 400, f"{wide} pixels wide on a phone of 400")
                bench.shoot(phone, "dashboard-phone-dark")
                # Rows that nobody sees are not drawn.
                phone.locator("#rows tbody tr").first.scroll_into_view_if_needed()
                bench.shoot(phone, "dashboard-phone-table", full_page=False)
            run.wait(timeout=300)
            until(page, "document.getElementById('connection').textContent.includes('over')")
            need(page.locator("#standing").inner_text() == "finished", "the end was not seen")
    with served(bench, "dashboard", bench.folder / "live", "--listen", "0") as (link, _):
        with dashboard(bench, link, color_scheme="dark") as page:
            until(page, "document.querySelectorAll('#failures li').length > 0 && document.getElementById('plot').naturalWidth > 100")
            counts = states(page)
            need(counts.get("failed") and counts.get("passed") and sum(counts.values()) == 18, f"{counts}")
            bench.shoot(page, "dashboard-finished-dark")


@check
def the_dashboard_takes_a_lost_connection_up_again(bench):
    bench.hostile()
    port = free_port()
    words = ["dashboard", bench.folder / "runs", "--listen", str(port)]
    with served(bench, *words) as (link, first):
        with dashboard(bench, link, allowed=LOST) as page:
            page.wait_for_selector("#rows tbody tr")
            first.send_signal(signal.SIGINT)
            first.wait(timeout=60)
            page.wait_for_selector("#connection:not([hidden])")
            with served(bench, *words):
                page.wait_for_selector("#connection[hidden]", state="attached")
                need(page.locator("#rows tbody tr").count() > 10, "the rows are gone")


@check
def the_dashboard_shows_1000_experiments_without_a_stutter(bench):
    bench.hostile()
    import rows

    home = bench.folder / "thousand"
    run = rows.grown(bench.run_dir, home / "run", 1000)
    names = [one["name"] for one in json.loads((run / "manifest.json").read_text())["plan"]["experiments"]]
    at = "2026-02-25T14:30:00.000+02:00"
    journal = (run / "journal.jsonl").open("w")

    def tell(**event):
        journal.write(json.dumps({"v": 1, "seq": journal.tell() + 1, "at": at, **event}) + "\n")

    tell(event="run-started", process={"pid": 1, "start-time": 1}, simulated=True, resumed=False, planned=1000, pending=1000)
    journal.flush()
    with served(bench, "dashboard", home, "--listen", "0") as (link, _):
        with dashboard(bench, link) as page:
            until(page, "document.querySelectorAll('#rows tbody tr').length === 1000")
            page.click("th[data-column='output_throughput'] button")
            # The longest time between two frames while hundreds of rows change.
            page.evaluate("""() => { window.gaps = []; let last = performance.now();
                const frame = (now) => { window.gaps.push(now - last); last = now; requestAnimationFrame(frame); }; requestAnimationFrame(frame); }""")
            for index, name in enumerate(names[:900], start=1):
                tell(event="experiment-started", index=index, name=name, attempt=1)
                speed = {"request_throughput": 1.0, "output_throughput": 100.0 + index * 7919 % 1000, "mean_ttft_ms": 50.0, "mean_tpot_ms": 10.0}
                tell(event="experiment-finished", index=index, name=name, attempt=1, outcome="passed", headline=speed, timings={"total": 5.0})
                if index % 20 == 0:
                    journal.flush()
                    time.sleep(0.1)
            journal.flush()
            until(page, "document.querySelectorAll('#rows tr.passed').length === 900")
            gaps = sorted(page.evaluate("window.gaps"))
            longest, usual = gaps[-1], gaps[len(gaps) // 2]
            print(f"      frames: {usual:.0f} ms as a rule, {longest:.0f} ms at most, {len(gaps)} frames", flush=True)
            if longest > 500:
                bench.slow = True
            time.sleep(1.5)
            shown = numbers([cells[3] for cells in visible(page)])
            need(shown == sorted(shown, reverse=True), "what changes is not put in order")
            bench.shoot(page, "dashboard-1000", full_page=False)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def inside_environment() -> None:
    """Sets up, and goes on in the virtual environment."""
    subprocess.run([HERE / "setup.sh"], check=True, stdout=sys.stderr)
    where = subprocess.run([HERE / "setup.sh", "--where"], check=True, capture_output=True, text=True).stdout.strip()
    python = Path(where) / "venv" / "bin" / "python"
    os.execv(python, [str(python), "-B", str(Path(__file__).resolve()), *sys.argv[1:]])


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "vllm-bench")
    arguments.add_argument("--screenshots", type=Path, default=ROOT / "target" / "browser")
    arguments.add_argument("--only", action="append", default=[], metavar="NAME")
    arguments.add_argument("--keep", action="store_true", help="keep the runs and pages")
    arguments.add_argument("--list", action="store_true")
    given = arguments.parse_args()
    if given.list:
        print("\n".join(one.__name__ for one in CHECKS))
        return 0
    if not given.binary.exists():
        print(f"error: no binary at {given.binary}; build it, or name one with --binary", file=sys.stderr)
        return 2
    if not any(map(shutil.which, CHROMIUM)):
        inside_environment()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        inside_environment()
    unknown = [name for name in given.only if not any(name in one.__name__ for one in CHECKS)]
    if unknown:
        print(f"error: no check is called {unknown[0]}; see --list", file=sys.stderr)
        return 2
    given.screenshots.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="vllm-bench-browser-"))
    passed = failed = 0
    try:
        with sync_playwright() as playwright:
            chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
            if chromium is None:
                print("error: no chromium on the PATH; tests/browser/setup.sh installs it", file=sys.stderr)
                return 2
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            bench = Bench(given.binary.resolve(), folder, given.screenshots.resolve(), browser)
            bench.hostile()
            for one in CHECKS:
                if given.only and not any(name in one.__name__ for name in given.only):
                    continue
                title = one.__name__.replace("_", " ")
                begun = time.monotonic()
                try:
                    one(bench)
                except Exception as error:  # noqa: BLE001 - each check says what it found, and the next one goes on
                    failed += 1
                    print(f"FAIL  {title}: {error}", flush=True)
                    if not isinstance(error, Failed):
                        traceback.print_exc()
                else:
                    passed += 1
                    print(f"ok    {title} ({time.monotonic() - begun:.1f} s)", flush=True)
            browser.close()
    finally:
        if given.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"screenshots: {given.screenshots}")
    slow = ", and the machine was slow" if not failed and bench.slow else ""
    print(f"{passed} passed, {failed} failed{slow}")
    return 1 if failed else 3 if bench.slow else 0


if __name__ == "__main__":
    sys.exit(main())
