#!/usr/bin/env python3
"""Makes crates/models/data/prices.json from the PyPI package genai-prices (MIT).

    scripts/update-prices.py [VERSION]

Only what the price catalogue needs is kept: per model its id, name, context window, the patterns that match
its id, and its prices in dollars per million tokens, with prompt-size tiers, start dates and daily hours.
The package's data module is read as a syntax tree and never run, so nothing else has to be installed.
A construct that this script does not know is an error: a price must not be guessed.
"""

import ast
import datetime
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "crates/models/data/prices.json"
MAX_BYTES = 200_000

# The providers of the catalogue that we can reach; their names here are genai-prices'.
PROVIDERS = [
    "anthropic", "aws", "cerebras", "deepseek", "fireworks", "google", "groq", "mistral", "moonshotai", "openai",
    "openrouter", "together", "x-ai",
]  # fmt: skip

PRICE_KEYS = ["input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok"]
NOT_CHAT = re.compile(r"embed|whisper|tts|dall-e|imagen|veo|rerank|moderation|transcribe|realtime|audio|guard|ocr", re.I)


class Node:
    """A constructor call of the data module: its class name and keyword arguments."""

    def __init__(self, kind, args):
        self.kind = kind
        self.args = args

    def __getattr__(self, name):
        return self.args.get(name)


def evaluate(tree):
    """The value of a literal, or the Node of a constructor call."""
    match tree:
        case ast.Call(func=ast.Name(id="Decimal"), args=[ast.Constant(value=text)]):
            return float(text)
        case ast.Call(func=ast.Attribute(attr="date")):
            return datetime.date(*[evaluate(arg) for arg in tree.args])
        case ast.Call(func=ast.Attribute(attr="time")):
            return datetime.time(*[evaluate(arg) for arg in tree.args])
        case ast.Call(func=ast.Name(id=kind), args=[]):
            return Node(kind, {keyword.arg: evaluate(keyword.value) for keyword in tree.keywords})
        case ast.List():
            return [evaluate(item) for item in tree.elts]
        case ast.Dict():
            return {evaluate(key): evaluate(value) for key, value in zip(tree.keys, tree.values)}
        case ast.Constant():
            return tree.value
    raise ValueError(f"unknown construct: {ast.unparse(tree)[:200]}")


def number(value):
    return int(value) if value == int(value) else value


def pattern(match):
    """A match rule as text: `=id`, `^start`, `$end`, `*part`, `!not a part`; `#` stands for one digit.

    A list is satisfied by any of its items, `{"all": [...]}` by all of them.
    """
    match match.kind:
        case "ClauseEquals":
            return "=" + match.equals
        case "ClauseStartsWith":
            return "^" + match.starts_with
        case "ClauseEndsWith":
            return "$" + match.ends_with
        case "ClauseContains":
            return "*" + match.contains
        case "ClauseOr":
            flat = []
            for item in match.or_:
                item = pattern(item)
                flat.extend(item) if isinstance(item, list) else flat.append(item)
            return flat
        case "ClauseAnd":
            return {"all": [pattern(item) for item in match.and_]}
        case "ClauseRegex":
            return from_regex(match.regex)
    raise ValueError(f"unknown match rule: {match.kind}")


def from_regex(regex):
    """The few forms of regular expressions in use; an unknown one is an error."""
    if regex == "^(?!.*-[tT][tT][sS](?:$|-))":
        return "!-tts"
    if "[-@]" in regex:
        return [from_regex(regex.replace("[-@]", mark)) for mark in "-@"]
    body = re.sub(r"\\d\{(\d)\}", lambda found: "#" * int(found[1]), regex.removeprefix("^").removesuffix("$"))
    body = body.replace(r"\d", "#").replace(r"\.", ".")
    if not regex.startswith("^") or not re.fullmatch(r"[\w./@#-]+", body):
        raise ValueError(f"unknown regular expression: {regex}")
    return ("=" if regex.endswith("$") else "^") + body


def price(prices):
    """Base prices, and the prices of each prompt size from which others hold."""
    base, tiers = [], {}
    for at, key in enumerate(PRICE_KEYS):
        value = prices.args.get(key)
        if isinstance(value, Node):
            if value.kind != "TieredPrices":
                raise ValueError(f"unknown price: {value.kind}")
            for tier in value.tiers:
                tiers.setdefault(tier.start, {})[at] = tier.price
            value = value.base
        base.append(value)
    if base[0] is None or base[1] is None:
        return None
    result = {"p": [None if value is None else number(value) for value in base]}
    steps, current = [], base
    for start in sorted(tiers):
        current = [tiers[start].get(at, value) for at, value in enumerate(current)]
        steps.append([start, *[None if value is None else number(value) for value in current]])
    if steps:
        result["t"] = steps
    return result


def schedule(prices, today):
    """The prices of now and later; of those in the past only the newest. The last that applies holds."""
    entries = prices if isinstance(prices, list) else [Node("ConditionalPrice", {"prices": prices})]
    begun, rest = None, []
    for entry in entries:
        rates = price(entry.prices)
        constraint = entry.constraint
        if constraint is None or constraint.kind == "StartDateConstraint":
            if constraint is None or constraint.start_date <= today:
                begun = rates
            elif rates is not None:
                rest.append({"from": constraint.start_date.isoformat(), **rates})
        elif constraint.kind == "TimeOfDateConstraint":
            if rates is not None:
                times = (constraint.start_time, constraint.end_time)
                rest.append({"utc": [it.hour * 60 + it.minute for it in times], **rates})
        else:
            raise ValueError(f"unknown constraint: {constraint.kind}")
    return [begun, *rest] if begun is not None else []


def model(info, today):
    if NOT_CHAT.search(info.id):
        return None
    prices = schedule(info.prices or [], today)
    if not prices and info.context_window is None:
        return None
    entry = {"id": info.id}
    if info.name and info.name != info.id:
        entry["name"] = info.name
    if info.context_window:
        entry["window"] = info.context_window
    if info.deprecated:
        entry["old"] = True
    rule = pattern(info.match)
    if rule not in ("=" + info.id, ["=" + info.id]):
        entry["match"] = rule
    if prices:
        entry["prices"] = prices
    return entry


def fetch(version):
    """The package's version and the source of its data module."""
    wanted = "genai-prices" + (f"=={version}" if version else "")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, wanted]
        subprocess.run(command, check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return wheel.name.split("-")[1], archive.read("genai_prices/data.py").decode()


def main():
    today = datetime.datetime.now(datetime.timezone.utc).date()
    version, source = fetch(sys.argv[1] if len(sys.argv) > 1 else None)
    (listing,) = [
        node.value for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and node.target.id == "providers"
    ]  # fmt: skip
    known = {provider.id: provider for provider in evaluate(listing)}
    lines = []
    for name in PROVIDERS:
        entries = [model(info, today) for info in known[name].models]
        rows = [json.dumps(entry, separators=(",", ":"), ensure_ascii=False) for entry in entries if entry]
        lines.append(f"{json.dumps(name)}:[\n" + ",\n".join(rows) + "\n]")
    head = f'"source":"genai-prices {version}",\n"retrieved":"{today.isoformat()}"'
    text = "{\n" + head + ',\n"providers":{\n' + ",\n".join(lines) + "\n}}\n"
    json.loads(text)
    if len(text.encode()) > MAX_BYTES:
        raise SystemExit(f"the catalogue has grown to {len(text.encode())} bytes; the limit is {MAX_BYTES}")
    OUTPUT.write_text(text)
    count = sum(line.count('"id":') for line in lines)
    print(f"{OUTPUT}: genai-prices {version}, {count} models, {len(text)} bytes")


if __name__ == "__main__":
    main()
