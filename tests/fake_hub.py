"""A hub on localhost: repositories, commits and LFS uploads as huggingface_hub asks for them, kept in memory.

Files are taken by commit, those with `.safetensors` by LFS in one part. Xet's protocol is not spoken: clients must have
HF_HUB_DISABLE_XET set.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_tests"


@dataclass
class Hub:
    """What the hub holds and was asked; its address is `endpoint`."""

    endpoint: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    forbidden: bool = False
    stores: bool = True

    def commit(self, name: str) -> str:
        """Return the id of a repository's newest commit, which follows from what it holds."""
        held = sorted((path, content.hex()) for path, content in self.repositories[name].items())
        return hashlib.sha1(json.dumps(held).encode()).hexdigest()


@contextmanager
def fake_hub() -> Iterator[Hub]:
    """Serve an empty hub for as long as the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._serve(b"")

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if not hub.stores:
                self._answer(403, {"error": "The store is closed."})
                return
            hub.objects[self.path.rsplit("/", 1)[1]] = content
            self._answer(200, {})

        def _serve(self, body: bytes) -> None:
            path = self.path.partition("?")[0]
            hub.requests.append(f"{self.command} {path}")
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer(401, {"error": "Invalid username or password."})
            elif hub.forbidden:
                self._answer(403, {"error": "You don't have the rights."})
            elif path == "/api/repos/create":
                self._create(json.loads(body))
            elif path == "/api/validate-yaml":
                self._answer(200, {"errors": [], "warnings": []})
            elif "/preupload/" in path:
                self._preupload(json.loads(body))
            elif path.endswith("/info/lfs/objects/batch"):
                self._batch(json.loads(body))
            elif "/commit/" in path:
                self._commit(path.split("/api/models/")[1].split("/commit/")[0], body)
            elif path.startswith("/api/models/") and (name := path.removeprefix("/api/models/")) in hub.repositories:
                siblings = [{"rfilename": path} for path in hub.repositories[name]]
                described = {"id": name, "modelId": name, "sha": hub.commit(name), "siblings": siblings}
                self._answer(200, {**described, "private": name not in hub.public})
            else:
                self._answer(404, {"error": f"no {path} here"}, code="RepoNotFound")

        def _create(self, asked: dict[str, Any]) -> None:
            hub.created.append(asked)
            name = f"{asked['organization']}/{asked['name']}"
            if name in hub.repositories:
                self._answer(409, {"error": "You already created this model repo", "url": f"{hub.endpoint}/{name}"})
                return
            hub.repositories[name] = {}
            if asked.get("visibility") != "private" and not asked.get("private"):
                hub.public.add(name)
            self._answer(200, {"url": f"{hub.endpoint}/{name}", "name": name})

        def _preupload(self, asked: dict[str, Any]) -> None:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in asked["files"]
            ]
            self._answer(200, {"files": files})

        def _batch(self, asked: dict[str, Any]) -> None:
            objects = [
                {
                    "oid": one["oid"],
                    "size": one["size"],
                    "actions": {"upload": {"href": f"{hub.endpoint}/objects/{one['oid']}"}},
                }
                for one in asked["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})

        def _commit(self, name: str, body: bytes) -> None:
            lines = [json.loads(line) for line in body.splitlines()]
            if lines[0]["value"].get("parentCommit") not in {None, hub.commit(name)}:
                self._answer(412, {"error": "A commit has happened since. Please refresh and try again."})
                return
            for line in lines:
                value = line["value"]
                if line["key"] == "deletedFile":
                    del hub.repositories[name][value["path"]]
                elif line["key"] == "file":
                    hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    content = hub.objects[value["oid"]]
                    assert hashlib.sha256(content).hexdigest() == value["oid"]
                    hub.repositories[name][value["path"]] = content
            url = f"{hub.endpoint}/{name}/commit/{hub.commit(name)}"
            self._answer(200, {"success": True, "commitOid": hub.commit(name), "commitUrl": url})

        def _answer(self, status: int, content: dict[str, Any], code: str | None = None) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if code is not None:
                self.send_header("X-Error-Code", code)
            self.end_headers()
            self.wfile.write(body)

    return Handler
