"""A chat server on this machine that does what a test tells it: replies, fails, hangs, breaks off."""

import json
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Each request takes the next of ``actions``; where there is none left, ``default``."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.actions: deque[Action] = deque()
        self.default: Action = reply("fine")
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.in_flight = self.most_in_flight = self.tokens_paid = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def asked(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the client went away, as it should


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    body: dict[str, Any]

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(self.body)
            self.server.keys.append(self.headers["Authorization"])
            self.server.in_flight += 1
            self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
            action = self.server.actions.popleft() if self.server.actions else self.server.default
        try:
            action(self)
        finally:
            with self.server.lock:
                self.server.in_flight -= 1

    def send(self, status: int, text: str, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        self.send_bytes(status, text.encode(), headers, length)

    def send_bytes(self, status: int, data: bytes, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


Action = Callable[[Handler], None]


def completion(
    content: str | list[Any] | None,
    finish: str = "stop",
    tokens: tuple[int, int] | None = (10, 5),
    refusal: str | None = None,
    **fields: str,
) -> str:
    message = {"role": "assistant", "content": content, "refusal": refusal} | fields
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)} if tokens else None
    choice = {"index": 0, "finish_reason": finish, "message": message}
    return json.dumps({"id": "x", "object": "chat.completion", "created": 0, "choices": [choice], "usage": usage})


def reply(content: str | list[Any] | None, seconds: float = 0.0, **parts: Any) -> Action:
    def act(handler: Handler) -> None:
        handler.server.closing.wait(seconds)
        text = completion(content, **parts)
        with handler.server.lock:
            handler.server.tokens_paid += sum(parts.get("tokens", (10, 5)) or (0, 0))
        handler.send(200, text)

    return act


def status(code: int, text: str = '{"error": {"message": "no"}}', **headers: str) -> Action:
    return lambda handler: handler.send(code, text, {k.replace("_", "-"): v for k, v in headers.items()})


def body(text: str, content_type: str = "application/json") -> Action:
    return lambda handler: handler.send(200, text, {"Content-Type": content_type})


def hang(handler: Handler) -> None:
    handler.server.closing.wait(30)


def break_off(handler: Handler) -> None:
    handler.send(200, completion("fine")[:40], length=500)
    handler.close_connection = True


def drip(handler: Handler) -> None:
    handler.send(200, "", length=1000)
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def compressed(text: str, code: int = 200, times: int = 1) -> Action:
    """The text as gzip; ``times`` that much of it, which costs the server next to nothing."""

    def act(handler: Handler) -> None:
        packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        data = b"".join([*(packer.compress(text.encode()) for _ in range(times)), packer.flush()])
        handler.send_bytes(code, data, {"Content-Encoding": "gzip"})

    return act


def endless(handler: Handler) -> None:
    handler.send(200, "", length=10**12)
    while not handler.server.closing.is_set():
        handler.wfile.write(b" " * 2**16)


def echo_key(handler: Handler) -> None:
    handler.send(200, completion(f"your header: {handler.headers['Authorization']}"))


@contextmanager
def serving() -> Iterator[Server]:
    """A running server; at the end it wakes those of its requests that still wait."""
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
