"""The search for secrets that got out, in all that the published clients and their servers leave behind.

Two kinds of secrets are looked for. Those that tests give to a server (tokens of the API, keys of providers,
credentials in vaults, variables that are nobody's business) all begin alike, and nothing else does. Those that a server
makes (keys, signing secrets, tokens of work items) are learned from the one answer that may show each of them.

They are looked for in each answer, header and frame that a client got, in what webhooks and models were sent, in every
file of a server's data folder and in its log, and in what processes in its sandboxes show of themselves.
"""

import base64
import dataclasses
import json
import pathlib
import re
import urllib.parse

from traffic import Exchange

# What every planted secret begins with. No content of messages or files may.
PREFIX = "canary-"
API_TOKEN = f"{PREFIX}api-token-5d1e"
PROVIDER_KEY = f"{PREFIX}provider-key-71f0"
# In the environment of every server, besides its own settings.
PLANTED = {
    "A_SECRET_OF_SOMETHING_ELSE": f"{PREFIX}elsewhere-8a31",
    "ANTHROPIC_API_KEY": PROVIDER_KEY,
    # Nobody listens there: tests that want a provider say where theirs is.
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
}

# The answers that show a secret, once, and the field that has it.
SHOWN = [
    ("POST", re.compile(r"/v1/keys(/[^/]+/rotate)?"), "secret"),
    ("POST", re.compile(r"/v1/organizations/webhooks(/[^/]+/regenerate_signing_secret)?"), "signing_secret"),
    ("GET", re.compile(r"/v1/environments/[^/]+/work/poll"), "secret"),
]
# The key of a server's vaults is in this file and in no other.
VAULT_KEY = "vault.key"
# How much of a file is looked at, in bytes. Some tests have sandboxes write a lot.
MOST = 64 << 20
# How much of what is around a secret is told, in bytes.
BEFORE, AFTER = 200, 60


def spellings(secret: bytes) -> list[bytes]:
    """A secret as it is, and as part of a longer text in base64, wherever it begins there."""
    found = [secret]
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + secret)
        # Only the letters that are made of the secret's bits alone.
        first, last = -(-offset * 8 // 6), (offset + len(secret)) * 8 // 6
        found += [text[first:last], text[first:last].replace(b"+", b"-").replace(b"/", b"_")]
    return list(dict.fromkeys(found))


PLANTS = spellings(PREFIX.encode())


def made_by_server(exchange: Exchange) -> set[bytes]:
    """The secrets that an answer may show, because it is the one that does."""
    path = urllib.parse.urlsplit(exchange.url).path
    fields = [field for method, route, field in SHOWN if method == exchange.method and route.fullmatch(path)]
    if not fields or exchange.status >= 300 or not exchange.whole:
        return set()
    body = json.loads(exchange.content())
    # Where there is no work, there is no secret.
    secret = body.get(fields[0]) if isinstance(body, dict) else None
    if not isinstance(secret, str):
        return set()
    if secret.startswith("whsec_"):
        text = secret.removeprefix("whsec_")
        return {text.encode(), base64.b64decode(text)}
    found = {secret.encode()}
    if path.endswith("/work/poll"):
        inner = json.loads(base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4)))
        found.add(inner["sessions_token"].encode())
    return found


@dataclasses.dataclass
class Search:
    """What has been looked at, so that nobody takes silence for success, and what was found there."""

    answers: int = 0
    messages: int = 0
    files: int = 0
    processes: int = 0
    # What servers made, by the address at which they showed it.
    learned: dict[str, set[bytes]] = dataclasses.field(default_factory=dict)
    found: list[str] = dataclasses.field(default_factory=list)
    # Answers that had not come to their end, with how much of each has been looked at, in bytes.
    open: list[tuple[Exchange, int]] = dataclasses.field(default_factory=list)

    def take(self) -> list[str]:
        """What was found since the last call."""
        taken, self.found = self.found, []
        return taken

    def look(self, place: str, content: bytes, more=()) -> None:
        """Looks at what somebody gets to see."""
        for secret in [*PLANTS, *more]:
            at = content.find(secret)
            if at >= 0:
                around = content[max(0, at - BEFORE) : at + AFTER].decode(errors="replace")
                self.found.append(f"a secret is in {place}: …{around}…")
                return

    def message(self, place: str, content: bytes) -> None:
        """Looks at what a server has sent by itself: to a webhook, or to a provider of models."""
        self.messages += 1
        self.look(place, content, set().union(*self.learned.values()))

    def answer(self, exchange: Exchange) -> None:
        """Looks at an answer, after learning from it what only it may show. What has not ended is looked at again."""
        self.answers += 1
        self._answer(exchange)

    def answers_that_were_open(self) -> None:
        """Looks at what has come since."""
        before, self.open = self.open, []
        for exchange, length in before:
            if exchange.whole or len(exchange.body) > length:
                self._answer(exchange)
            else:
                self.open.append((exchange, length))

    def _answer(self, exchange: Exchange) -> None:
        url = urllib.parse.urlsplit(exchange.url)
        if not exchange.whole:
            self.open.append((exchange, len(exchange.body)))
        shown = made_by_server(exchange)
        known = self.learned.setdefault(url.netloc, set())
        body = exchange.content()
        for secret in shown - known:
            body = body.replace(secret, b"", 1)
        known |= shown
        place = f"an answer: {exchange.method} {url.path} ({exchange.status})"
        self.look(place, body, known)
        headers = "\n".join(f"{name}: {value}" for name, value in exchange.headers.items())
        self.look(f"the headers of {place}", headers.encode(), known)

    def below(self, folder: pathlib.Path, origins=()) -> None:
        """Looks at the files of a data folder whose server has ended and was to be found at these addresses."""
        known = self.learned_at(origins)
        key_file = folder / VAULT_KEY
        key = key_file.read_bytes().strip() if key_file.exists() else b""
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            more = known | {key} if key and path != key_file else known
            self.file(path, more)

    def learned_at(self, origins) -> set[bytes]:
        """The secrets that a server has made, who was to be found at these addresses."""
        return set().union(*(self.learned.get(origin, ()) for origin in origins))

    def file(self, path: pathlib.Path, more=()) -> None:
        """Looks at a file, at most at its first 64 MiB."""
        with path.open("rb") as file:
            content = file.read(MOST)
        self.files += 1
        self.look(str(path), content, more)

    def sandboxes(self, server: int, data: pathlib.Path) -> None:
        """Looks at what processes that a server over this data folder has started show of themselves. The server's own
        environment has its secrets, and shows them to its own user only; its arguments don't."""
        self.look("the server's arguments", _read(server, "cmdline"))
        for pid in started_by(server, data):
            self.processes += 1
            for name in ("environ", "cmdline", "mountinfo"):
                self.look(f"/proc/{pid}/{name}", _read(pid, name))


def _read(pid: int, name: str) -> bytes:
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        # It has just ended.
        return b""


def started_by(server: int, data: pathlib.Path) -> list[int]:
    """The processes of a server's sandboxes, which have mounted something of its data folder, and its own children."""
    folder = f"{data}/".encode()
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdecimal() or (pid := int(entry.name)) == server:
            continue
        stat = _read(pid, "stat")
        # Names are in brackets, and may have some themselves.
        parent = int(stat[stat.rindex(b")") + 1 :].split()[1]) if stat else 0
        if parent == server or folder in _read(pid, "mountinfo"):
            found.append(pid)
    return found


SEARCH = Search()
