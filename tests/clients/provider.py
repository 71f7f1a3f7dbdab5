"""A provider of models on this machine, which speaks Anthropic's Messages API as far as the server uses it."""

import http.server
import json
import threading

# What each answer says it has consumed, in tokens.
INPUT, OUTPUT = 5_000, 1_000


class Provider:
    """Uses the tool `bash` once in each turn and then says `after`. A message that says `fail` is refused with the key
    that came with it in the error's words, as a provider might that means well."""

    def __init__(self, look=lambda place, content: None):
        provider = self
        self.look = look

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                content = self.rfile.read(int(self.headers["content-length"]))
                provider.look("a request to a model", content)
                if self.path != "/v1/messages":
                    self.answer(404, "application/json", b"{}")
                    return
                last = json.loads(content)["messages"][-1]["content"]
                blocks = last if isinstance(last, list) else [{"type": "text", "text": last}]
                if any(block.get("text") == "fail" for block in blocks):
                    error = {"type": "invalid_request_error", "message": f"not with {self.headers['x-api-key']}"}
                    self.answer(400, "application/json", json.dumps({"type": "error", "error": error}).encode())
                    return
                over = any(block["type"] == "tool_result" for block in blocks)
                frames = "".join(
                    f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _answer(over)
                )
                self.answer(200, "text/event-stream", frames.encode())

            def answer(self, status, kind, body):
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def _answer(over):
    """The events of an answer: the last one of a turn, or one that uses the tool."""
    usage = {"input_tokens": INPUT, "output_tokens": 1}
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    yield {"type": "message_start", "message": start | {"stop_reason": None, "stop_sequence": None}}
    text = "after" if over else "before"
    blocks = [({"type": "text", "text": ""}, {"type": "text_delta", "text": text})]
    if not over:
        use = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {}}
        blocks.append((use, {"type": "input_json_delta", "partial_json": '{"command": "true"}'}))
    for index, (block, delta) in enumerate(blocks):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {"stop_reason": "end_turn" if over else "tool_use", "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": OUTPUT}}
    yield {"type": "message_stop"}
