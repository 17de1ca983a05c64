"""A local stand-in for W&B's server: it answers the requests of W&B's client and keeps the data that it receives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Behaviour = Literal["answers", "denies", "hangs", "hangs later"]  # "hangs later": after a run has started


class WandbServer:
    """The server with the run that it received."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour, self.release = behaviour, threading.Event()
        self.bodies: list[str] = []  # the body of every request
        self.run: dict[str, Any] = {}  # variables of UpsertBucket: name, group, tags ...; `config` is the latest
        self.files: dict[str, dict[int, Any]] = {}  # lines of wandb-history.jsonl and other streams
        self.exit_code: int | None = None
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        server.daemon_threads, server.block_on_close = True, False
        self._server, self.url = server, f"http://127.0.0.1:{server.server_port}"

    def history(self) -> list[dict[str, Any]]:
        lines = self.files.get("wandb-history.jsonl", {})
        return [lines[number] for number in sorted(lines)]

    def summary(self) -> dict[str, Any]:
        return self.files["wandb-summary.json"][0]  # type: ignore[no-any-return]

    def config(self) -> dict[str, Any]:
        return {key: item["value"] for key, item in json.loads(self.run["config"]).items()}

    @contextmanager
    def running(self) -> Iterator[WandbServer]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.release.set()
            self._server.shutdown()
            self._server.server_close()

    def answer(self, path: str, body: str) -> tuple[int, dict[str, Any]]:
        """Status and content of the answer to one request; a hanging server answers only when it is shut down."""
        self.bodies.append(body)
        if self.behaviour == "hangs" or (self.behaviour == "hangs later" and self.run):
            self.release.wait()
            return 503, {}
        if self.behaviour == "denies":
            return 401, {"errors": [{"message": "user is not logged in"}]}
        if path == "/graphql":
            question = json.loads(body)
            return 200, {"data": self._data(question["operationName"], question.get("variables", {}))}
        if path.endswith("/file_stream"):
            self._stream(json.loads(body))
        return 200, {}

    def _data(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        entity = {"id": "ZQ==", "name": "somebody"}
        if operation == "Viewer":
            return {"viewer": {"id": "dQ==", "entity": "somebody", "username": "somebody", "flags": "{}"}}
        if operation == "RunResumeStatus":
            return {"model": self._resumed(entity) if self.run else None}
        if operation == "UpsertBucket":
            self.run |= {key: value for key, value in variables.items() if value is not None}
            project = {"id": "cA==", "name": self.run["project"], "entity": entity}
            bucket = {"id": "cg==", "name": self.run["name"], "historyLineCount": len(self.history())}
            return {"upsertBucket": {"bucket": {**bucket, "config": "{}", "project": project}, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "cg==", "uploadHeaders": [], "files": files}}
        return {}

    def _resumed(self, entity: dict[str, str]) -> dict[str, Any]:
        """The answer to a client that continues the run."""
        bucket = {
            "id": "cg==", "name": self.run["name"], "config": self.run["config"], "tags": self.run["tags"],
            "summaryMetrics": json.dumps(self.summary()), "historyLineCount": len(self.history()),
            "historyTail": json.dumps([json.dumps(self.history()[-1])]), "eventsLineCount": 0, "eventsTail": "[]",
            "logLineCount": 0, "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip
        return {"id": "cA==", "name": self.run["project"], "entity": entity, "bucket": bucket}

    def _stream(self, received: dict[str, Any]) -> None:
        for name, part in (received.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]]
            self.files.setdefault(name, {}).update(enumerate(lines, part["offset"]))
        if received.get("complete"):
            self.exit_code = received["exitcode"]


def _handler_of(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
            status, content = server.answer(self.path, body)
            data = json.dumps(content).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client has closed the connection
                self.close_connection = True

        do_GET = do_POST = do_PUT = _answer

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # a client may end without closing the connection
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    return Handler
