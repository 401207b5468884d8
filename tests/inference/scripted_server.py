"""A server that answers chat completions as a test's script says, and notes what it was asked.

with serving(script) as server: ...
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server says.

    Args:
        body: A JSON value, or the bytes of something else.
        status: The HTTP status.
        headers: Further headers.
        after: Seconds to wait before; a server that hangs waits until the test is over.
    """

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0


@dataclass
class Asked:
    """A request: its path, its JSON body, its headers in lower case, and when it came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


@dataclass
class ScriptedServer:
    """What the test sees of the server: its URL, the requests so far, and how many there were at once."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0


Script = Callable[[int, Asked], Reply]


def written(text: Any, finish_reason: str = "stop", **more: Any) -> Reply:
    """Return a reply that is a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return Reply({**body, "usage": {"completion_tokens": 7, "prompt_tokens": 1, "total_tokens": 8}, **more})


def refused(status: int, message: str, **headers: str) -> Reply:
    """Return an error as OpenAI's API puts it."""
    return Reply({"error": {"message": message, "type": "t", "code": "c"}}, status, headers)


@contextmanager
def serving(script: Script) -> Iterator[ScriptedServer]:
    """Serve until the end of the block; the script gets the number of the request, from 0, and the request."""
    lock, over = threading.Lock(), threading.Event()
    busy = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal busy
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                asked = Asked(self.path, body, headers, time.monotonic())
                number = len(server.asked)
                server.asked.append(asked)
                busy += 1
                server.most_at_once = max(server.most_at_once, busy)
            reply = script(number, asked)
            over.wait(reply.after)
            with lock:
                busy -= 1
            self._send(reply)

        def do_GET(self) -> None:
            self._send(Reply({"object": "list", "data": [{"id": "served-model", "object": "model"}]}))

        def _send(self, reply: Reply) -> None:
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):  # who asked has given up
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = ScriptedServer(f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        over.set()
        http.shutdown()
        thread.join()
        http.server_close()
