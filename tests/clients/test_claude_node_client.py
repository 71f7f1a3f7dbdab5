"""Anthropic's SDK for JavaScript: each scenario of each topic in `node/claude/` is a test."""

import json
import os
import subprocess

import pytest

from canary import API_TOKEN
from conftest import NODE_TIMEOUT, Server
from traffic import NODE

SCENARIOS = {
    "agents": ("life", "environments"),
    "deployments": ("life", "runs", "failures", "bad"),
    "errors": ("authentication", "fields", "whatIsNotThere", "connection"),
    "files": ("life", "pages", "largeFile", "resources", "badResources", "repositories", "messages"),
    "memory": ("stores", "memories", "versions", "session"),
    "outcomes": ("revised", "lastIteration", "interrupted", "bad", "systemMessage"),
    "sessions": (
        "life",
        "pages",
        "events",
        "resumedStream",
        "initialEvents",
        "overrides",
        "ownTools",
        "budgetsNeedAPrice",
        "budgets",
    ),
    "skills": ("life", "archives", "session"),
    "threads": ("alone", "askedAgain", "ownStream", "questions", "interrupted", "sideBySide", "advised", "runner"),
    "turns": (
        "tool",
        "previews",
        "interrupt",
        "confirmation",
        "customTool",
        "customToolFails",
        "runner",
        "runnersShareTheWork",
        "errorsOfTheModel",
    ),
    "vaults": ("life", "credentials", "validation", "session"),
    "webhooks": ("verified", "endpoints", "triedAgain"),
    "workflows": ("run", "fails", "definedOnTheFly"),
    "work": ("worker", "workerAsks", "workerHasSkillsAndMemories", "poller", "item", "keys", "environments"),
}
# Topics and scenarios that need another server than the usual one: its fixture.
SERVERS = {
    ("errors", None): "hosted",
    ("work", None): "hosted",
    ("webhooks", None): "priced",
    ("vaults", "validation"): "priced",
    ("vaults", "session"): "priced",
    ("sessions", "budgets"): "priced",
}


@pytest.fixture(scope="module")
def hosted():
    """A server that asks for a token, so that keys mean something."""
    server = Server(OPENCLAW_API_TOKEN=API_TOKEN)
    server.start()
    yield server
    server.stop()
    server.remove()


def node(*arguments: str, program: str = "claude.mjs", **env: str) -> str:
    if not (NODE / "node_modules").is_dir():
        pytest.fail("the packages of tests/clients/node are not installed: npm ci --prefix tests/clients/node")
    done = subprocess.run(
        ["node", program, *arguments],
        cwd=NODE,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=NODE_TIMEOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def passed(output: str) -> int:
    """How many checks a scenario says it has passed; at least one, or it has shown nothing."""
    checks = json.loads(output.splitlines()[-1])["checks"]
    assert checks > 0, "the scenario checks nothing"
    return checks


def test_every_scenario_is_a_test():
    assert {topic: tuple(names) for topic, names in json.loads(node()).items()} == SCENARIOS


@pytest.mark.parametrize(
    ("topic", "scenario"), [(topic, scenario) for topic, names in SCENARIOS.items() for scenario in names]
)
def test_scenario(topic, scenario, request):
    fixture = SERVERS.get((topic, scenario)) or SERVERS.get((topic, None)) or "server"
    server = request.getfixturevalue(fixture)
    known = {"OMA_TOKEN": server.token} if server.token else {}
    passed(node(topic, scenario, OMA_URL=server.url, **known))


@pytest.mark.parametrize(
    "output", ["", "no JSON", '{"checks": 0}', '{"checks": 3}\nand then something else'], ids=str
)
def test_silence_is_no_success(output):
    with pytest.raises((AssertionError, ValueError, IndexError)):
        passed(output)


@pytest.mark.parametrize("scenario", ["nobody", ""])
def test_a_crash_is_a_failure(scenario):
    with pytest.raises(AssertionError):
        node("agents", scenario)
