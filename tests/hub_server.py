"""A server on loopback that speaks the part of the Hugging Face Hub's protocol that an upload of a model uses."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_secret"


class Hub:
    """What a server has received."""

    def __init__(self) -> None:
        self.created: list[dict] = []
        self.files: dict[str, bytes] = {}
        self.commits: list[dict] = []
        self.objects: dict[str, bytes] = {}
        self.paths: list[str] = []
        self.endpoint = ""


@contextmanager
def hub() -> Iterator[Hub]:
    """A running server."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def answer(self, code: int, content: object = None) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_PUT(self) -> None:
            body, name = self.body(), self.path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == name
            state.objects[name] = body
            self.answer(200)

        def do_GET(self) -> None:
            state.paths.append(self.path)
            self.answer(404, {"error": "Repository not found"})

        def do_POST(self) -> None:
            body = self.body()
            state.paths.append(self.path)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.answer(401, {"error": "Invalid username or password."})
            elif self.path == "/api/repos/create":
                state.created.append(json.loads(body))
                name = f"{state.created[-1].get('organization', 'me')}/{state.created[-1]['name']}"
                known = len(state.created) > 1
                self.answer(409 if known else 200, {"url": f"{state.endpoint}/{name}", "name": name})
            elif self.path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                files = [file["path"] for file in json.loads(body)["files"]]
                modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in files}
                answer = [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]
                self.answer(200, {"files": answer})
            elif self.path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**item, "actions": {"upload": {"href": f"{state.endpoint}/objects/{item['oid']}"}}}
                    for item in json.loads(body)["objects"]
                ]
                self.answer(200, {"transfer": "basic", "objects": objects})
            elif "/commit/" in self.path:
                header, *files = (json.loads(line) for line in body.splitlines())
                for file in files:
                    value = file["value"]
                    large = file["key"] == "lfsFile"
                    content = state.objects[value["oid"]] if large else base64.b64decode(value["content"])
                    state.files[value["path"]] = content
                state.commits.append(header["value"])
                oid = hashlib.sha1(body).hexdigest()
                url = f"{state.endpoint}/{self.path.split('/commit/')[0].removeprefix('/api/models/')}/commit/{oid}"
                self.answer(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})
            else:
                self.answer(404, {"error": f"no {self.path}"})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
