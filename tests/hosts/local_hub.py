"""A Hugging Face Hub on loopback, with as much of it as its client needs for models."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Hub:
    """What it holds: {name of a model: {path: content}}; every model has one commit."""

    def __init__(self) -> None:
        """Start without uploads."""
        self.models: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}

    def commit(self, name: str) -> str:
        """Return the name of a model's commit: 40 hexadecimal digits."""
        held = repr(sorted(self.models[name].items())).encode()
        return hashlib.sha1(held, usedforsecurity=False).hexdigest()


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Serve a hub and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            path = urlsplit(self.path).path.strip("/").split("/")
            content = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if path == ["api", "repos", "create"]:
                asked = json.loads(content)
                name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
                if name in hub.models:
                    return self.answer(409, {"error": "it is there", "url": f"{url}/{name}"})
                hub.models[name] = {}
                hub.private[name] = asked.get("visibility") == "private"
                return self.answer(200, {"url": f"{url}/{name}", "name": name})
            if path == ["api", "validate-yaml"]:
                return self.answer(200, {"errors": [], "warnings": []})
            name, what = "/".join(path[2:4]), path[4]
            if what == "preupload":
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(content)["files"]
                ]
                return self.answer(200, {"files": files})
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    file = line["value"]
                    hub.models[name][file["path"]] = base64.b64decode(file["content"])
            commit = hub.commit(name)
            return self.answer(
                200, {"commitUrl": f"{url}/{name}/commit/{commit}", "commitOid": commit}
            )

        def do_GET(self) -> None:
            path = urlsplit(self.path).path.strip("/").split("/")
            if path[:2] == ["api", "whoami-v2"]:
                return self.answer(200, {"name": "user", "type": "user", "orgs": []})
            is_api = path[:2] == ["api", "models"]
            name = "/".join(path[2:4] if is_api else path[:2])
            if name not in hub.models:
                return self.answer(404, {"error": "Repository not found"}, code="RepoNotFound")
            files, commit = hub.models[name], hub.commit(name)
            if is_api and path[4:5] == ["tree"]:
                rows = [
                    {"type": "file", "path": each, "size": len(held), "oid": _oid(held)}
                    for each, held in files.items()
                ]
                return self.answer(200, rows)
            if is_api:
                siblings = [{"rfilename": each} for each in files]
                return self.answer(
                    200, {"id": name, "sha": commit, "siblings": siblings, "private": False}
                )
            content = files["/".join(path[4:])]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{_oid(content)}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)
            return None

        def do_HEAD(self) -> None:
            self.do_GET()

        def answer(self, status: int, content: Any, code: str = "") -> None:
            encoded = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            if code:
                self.send_header("X-Error-Code", code)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(encoded)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
