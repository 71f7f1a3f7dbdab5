"""Starts the real binary for the published clients. Nothing here sleeps: every wait is for an event."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import httpx
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
OMA = pathlib.Path(os.environ.get("OMA_BIN", ROOT / "target" / "debug" / "oma"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One `oma serve` over a data folder of its own."""

    def __init__(self, **env: str) -> None:
        self.data = pathlib.Path(tempfile.mkdtemp(prefix="oma-clients-"))
        self.data.chmod(0o700)
        self.url = ""
        self.env = env
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        clean = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY") and not k.startswith("OPENCLAW_")}
        self.log = open(self.data.with_suffix(".log"), "ab")
        self.process = subprocess.Popen(
            [OMA, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", self.data],
            env=clean | self.env,
            stdout=self.log,
            stderr=self.log,
        )
        deadline = time.monotonic() + 30
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"oma serve did not start: {self.data.with_suffix('.log').read_text()}")
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
            except OSError:
                # The port is not open yet; the short wait only keeps this loop from spinning.
                time.sleep(0.02)
        assert httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30) == 0
        self.log.close()

    def remove(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.with_suffix(".log").unlink(missing_ok=True)


def script(*turns: list) -> str:
    """Instructions for `scripted/script`: for each user turn the list of replies, each a list of steps."""
    return json.dumps({"turns": list(turns)})


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
    server = Server(OPENCLAW_API_TOKEN="correct-horse-battery-staple")
    server.start()
    yield server
    server.stop()
    server.remove()
