"""Starts the real binary for the published clients. Nothing here sleeps: every wait is for an event."""

import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile

import httpx
import pytest

import canary
import claude_types
import traffic
from provider import Provider

ROOT = pathlib.Path(__file__).resolve().parents[2]
# How long a server may take to listen, in seconds.
START_TIMEOUT = 30
# How long a scenario in Node may take, in seconds. Whoever waits for something that does not come has failed.
NODE_TIMEOUT = 60
# US dollars per million tokens. A model behind another address than its provider's has no price otherwise.
PRICES = '["anthropic/claude-priced"]\ninput = 3\noutput = 15\ncache_read = 3\ncache_write = 3\n'
OMA = pathlib.Path(os.environ.get("OMA_BIN", ROOT / "target" / "debug" / "oma"))


class Server:
    """One `oma serve` over a data folder of its own."""

    def __init__(self, **env: str) -> None:
        self.data = pathlib.Path(tempfile.mkdtemp(prefix="oma-clients-"))
        self.data.chmod(0o700)
        self.url = ""
        self.env = env
        self.token = env.get("OPENCLAW_API_TOKEN", "")
        self.process: subprocess.Popen | None = None
        # Every place where it has listened.
        self.origins: list[str] = []

    def start(self) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY") and not k.startswith("OPENCLAW_")}
        self.log = open(self.data.with_suffix(".log"), "ab")
        self.process = subprocess.Popen(
            [OMA, "serve", "--json", "--listen", "127.0.0.1:0", "--data-dir", self.data],
            env=clean | {"OPENCLAW_RATE_LIMIT_RPM": "0", "OPENCLAW_LOG_LEVEL": "debug"} | canary.PLANTED | self.env,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        # It says where it listens in one line, once it does.
        ready, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.process.kill()
            raise RuntimeError(f"oma serve did not start: {self.data.with_suffix('.log').read_text()}")
        self.url = json.loads(line)["url"]
        self.origins.append(self.url.removeprefix("http://"))
        if self not in RUNNING:
            RUNNING.append(self)
        assert httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30) == 0
        self.log.close()

    def remove(self) -> None:
        """Removes the data folder and the log of a server that has ended, after a search for secrets."""
        look_at_traffic()
        canary.SEARCH.below(self.data, self.origins)
        canary.SEARCH.file(self.data.with_suffix(".log"), canary.SEARCH.learned_at(self.origins))
        found = canary.SEARCH.take()
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.with_suffix(".log").unlink(missing_ok=True)
        assert not found, "\n".join(found[:20])


# The servers that have been started.
RUNNING: list[Server] = []


def script(*turns: list) -> str:
    """Instructions for `scripted/script`: for each user turn the list of replies, each a list of steps."""
    return json.dumps({"turns": list(turns)})


def pytest_configure(config):
    # Every Node process that a test starts inherits this.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="oma-traffic-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ.update(traffic.node_environment(folder / "node.jsonl"))


CHECKED = claude_types.Count()
WRONG: list[str] = []


def look_at_traffic() -> None:
    """Checks what was received since the last call: the types of the Claude dialect, and whether secrets are in it."""
    canary.SEARCH.answers_that_were_open()
    for exchange in traffic.take():
        canary.SEARCH.answer(exchange)
        WRONG.extend(claude_types.problems(exchange, CHECKED))


def check_traffic() -> list[str]:
    """What is wrong with what was received, and which secrets got out, since the last call."""
    look_at_traffic()
    RUNNING[:] = [server for server in RUNNING if server.process.poll() is None]
    for server in RUNNING:
        canary.SEARCH.sandboxes(server.process.pid, server.data)
    found = WRONG + canary.SEARCH.take()
    WRONG.clear()
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Whatever a test received in the Claude dialect is of the types that the SDK declares, and no secret has got out, or
    the test has failed."""
    try:
        result = yield
    except BaseException as error:
        for problem in check_traffic():
            error.add_note(problem)
        raise
    if wrong := check_traffic():
        pytest.fail("answers that the SDK does not declare, or secrets:\n" + "\n".join(wrong[:20]), pytrace=False)
    return result


def pytest_sessionfinish(session):
    if wrong := check_traffic():
        print("\nanswers that the SDK does not declare, or secrets:", *wrong[:20], sep="\n")
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    if CHECKED.answers:
        terminalreporter.write_line(
            f"Claude dialect: {CHECKED.answers} answers of {len(CHECKED.routes)} routes, {CHECKED.errors} errors and "
            f"{CHECKED.events} streamed events of {len(CHECKED.kinds)} types are as the SDK declares or reported above"
        )
    if (search := canary.SEARCH).answers:
        made = sum(len(secrets) for secrets in search.learned.values())
        terminalreporter.write_line(
            f"Secrets: none of those that were planted, nor of {made} that servers made, is in {search.answers} answers, "
            f"{search.messages} messages of servers, {search.files} files or {search.processes} processes, or it is "
            "reported above"
        )


@pytest.fixture(scope="session")
def server():
    server = Server()
    server.start()
    yield server
    server.stop()
    server.remove()


@pytest.fixture(scope="session")
def guarded():
    """A server that asks for a token."""
    server = Server(OPENCLAW_API_TOKEN=canary.API_TOKEN)
    server.start()
    yield server
    server.stop()
    server.remove()


@pytest.fixture(scope="session")
def priced(tmp_path_factory):
    """A server that may dial this machine, with a provider there (`provider.py`) whose model has a price."""
    prices = tmp_path_factory.mktemp("prices") / "prices.toml"
    prices.write_text(PRICES)
    provider = Provider(canary.SEARCH.message)
    address = f"http://{provider.address}"
    server = Server(OPENCLAW_DIAL_ALLOW="127.0.0.1", OPENCLAW_PRICE_FILE=str(prices), ANTHROPIC_BASE_URL=address)
    server.start()
    yield server
    server.stop()
    server.remove()
    provider.close()
