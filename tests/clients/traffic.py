"""What the published clients receive, as it came over the wire: Python's through httpx (of any version), Node's through
`fetch`. Nothing needs to be asked for: importing this module records this process, and `node_environment` its children."""

import base64
import dataclasses
import json
import os
import pathlib
import zlib

NODE = pathlib.Path(__file__).with_name("node")


@dataclasses.dataclass
class Exchange:
    """A request and what was read of its answer."""

    method: str
    url: str
    request: dict[str, str]
    status: int
    headers: dict[str, str]
    body: bytes = b""
    # Whether the answer was read to its end.
    whole: bool = False

    def content(self) -> bytes:
        """The body without its transfer's compression."""
        encoding = self.headers.get("content-encoding", "identity")
        if encoding == "identity":
            return self.body
        if encoding != "gzip":
            raise ValueError(f"an answer is encoded as {encoding}, which is not known here")
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(self.body)


_seen: list[Exchange] = []


def take() -> list[Exchange]:
    """What was received since the last call. An answer that is still being read counts as far as it came."""
    taken = list(_seen) + _taken_from_node()
    _seen.clear()
    return taken


def _lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _begin(request, response) -> Exchange:
    exchange = Exchange(
        request.method, str(request.url), _lower(request.headers), response.status_code, _lower(response.headers)
    )
    _seen.append(exchange)
    return exchange


def _record(library) -> None:
    """Has a version of httpx hand on every answer through a recorder."""

    class Recorder(library.SyncByteStream):
        def __init__(self, inner, exchange):
            self.inner, self.exchange = inner, exchange

        def __iter__(self):
            for chunk in self.inner:
                self.exchange.body += chunk
                yield chunk
            self.exchange.whole = True

        def close(self):
            self.inner.close()

    class AsyncRecorder(library.AsyncByteStream):
        def __init__(self, inner, exchange):
            self.inner, self.exchange = inner, exchange

        async def __aiter__(self):
            async for chunk in self.inner:
                self.exchange.body += chunk
                yield chunk
            self.exchange.whole = True

        async def aclose(self):
            await self.inner.aclose()

    handle, handle_async = library.HTTPTransport.handle_request, library.AsyncHTTPTransport.handle_async_request

    def handle_request(self, request):
        response = handle(self, request)
        response.stream = Recorder(response.stream, _begin(request, response))
        return response

    async def handle_async_request(self, request):
        response = await handle_async(self, request)
        response.stream = AsyncRecorder(response.stream, _begin(request, response))
        return response

    library.HTTPTransport.handle_request = handle_request
    library.AsyncHTTPTransport.handle_async_request = handle_async_request


def _record_all() -> None:
    # The newest SDK has a successor of httpx below it; old ones, and tests that speak HTTP themselves, httpx.
    import httpx

    _record(httpx)
    try:
        import httpx2
    except ImportError:
        return
    _record(httpx2)


_record_all()

_node_log: pathlib.Path | None = None
_node_read = 0
_node_open: dict[str, Exchange] = {}


def node_environment(log: pathlib.Path) -> dict[str, str]:
    """The variables with which every Node process writes down what its `fetch` receives, in this file."""
    global _node_log
    _node_log = log
    # As an address, so that a path with spaces is one word.
    return {"NODE_OPTIONS": f"--import={(NODE / 'record.mjs').as_uri()}", "OMA_TRAFFIC": os.fspath(log)}


def _taken_from_node() -> list[Exchange]:
    global _node_read
    if _node_log is None or not _node_log.exists():
        return []
    begun: list[Exchange] = []
    with _node_log.open("rb") as file:
        file.seek(_node_read)
        for line in file:
            if not line.endswith(b"\n"):
                break
            _node_read += len(line)
            entry = json.loads(line)
            exchange = _node_open.get(entry["id"])
            if exchange is None:
                exchange = _node_open[entry["id"]] = Exchange(
                    entry["method"], entry["url"], _lower(entry["request"]), entry["status"], _lower(entry["headers"])
                )
                # `fetch` has decoded what follows.
                exchange.headers.pop("content-encoding", None)
                begun.append(exchange)
            exchange.body += base64.b64decode(entry.get("chunk", ""))
            exchange.whole |= entry.get("end", False)
    return begun
