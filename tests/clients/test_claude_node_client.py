"""Anthropic's SDK for JavaScript: each scenario of `node/claude.mjs` is a test."""

import os
import subprocess

import pytest

from conftest import NODE_TIMEOUT
from traffic import NODE

SCENARIOS = (
    "agents",
    "environments",
    "previews",
    "interrupt",
    "threads",
    "turn",
    "confirmation",
    "customTool",
    "runner",
    "sessions",
    "authentication",
)


def node(*arguments: str, **env: str) -> str:
    if not (NODE / "node_modules").is_dir():
        pytest.fail("the packages of tests/clients/node are not installed: npm ci --prefix tests/clients/node")
    done = subprocess.run(
        ["node", "claude.mjs", *arguments],
        cwd=NODE,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=NODE_TIMEOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_scenario_is_a_test():
    assert tuple(node().split()) == SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario, server, guarded):
    if scenario == "authentication":
        node(scenario, OMA_URL=guarded.url, OMA_TOKEN=guarded.token)
    else:
        node(scenario, OMA_URL=server.url)
