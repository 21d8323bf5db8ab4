"""Stand-ins for wandb's server on this machine: one that answers, and those that do not."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUCKET = {
    "id": "b",
    "displayName": "d",
    "description": "",
    "config": "{}",
    "historyLineCount": 0,
    "sweepName": None,
    "project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}},
}


class Server:
    """What a server does, and what it was given.

    Attributes:
        how: ``answers``, ``hangs`` (takes connections and says nothing), ``fails`` (500) or ``refuses`` (403).
        history: The lines of history it was sent.
    """

    def __init__(self, how: str) -> None:
        self.how, self.address = how, ""
        self.history: list[dict[str, Any]] = []
        self.over = threading.Event()

    def _to_resume(self) -> dict[str, Any] | None:
        """What is known of the run that is asked for: nothing before a line of it has come."""
        if not self.history:
            return None
        tail = json.dumps([json.dumps(self.history[-1])])
        counts = {"historyLineCount": len(self.history), "eventsLineCount": 0, "logLineCount": 0}
        last = {"historyTail": tail, "eventsTail": "[]", "summaryMetrics": json.dumps(self.history[-1])}
        return {**_BUCKET, "name": "r", **counts, **last, "wandbConfig": '{"t": 1}', "tags": []}

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path.endswith("/graphql"):
            asked = json.loads(body)
            variables = asked.get("variables") or {}
            bucket = {**_BUCKET, "name": variables.get("name") or "r"}
            files = [{"name": name, "uploadUrl": f"{self.address}/upload"} for name in variables.get("files") or []]
            viewer = {"id": "v", "entity": "e", "username": "u", "flags": "{}", "teams": {"edges": []}}
            return {
                "data": {
                    "upsertBucket": {"bucket": bucket, "inserted": True},
                    "viewer": viewer,
                    "serverInfo": {"features": []},
                    "model": {"bucket": self._to_resume()},
                    "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files},
                }
            }
        if path.endswith("/file_stream"):
            files = json.loads(body).get("files", {})
            lines = files.get("wandb-history.jsonl", {}).get("content", [])
            self.history += [json.loads(line) for line in lines]
        return {}


@contextmanager
def serving(how: str) -> Iterator[tuple[str, Server]]:
    """Serve on a port of this machine; ``nothing`` is an address where nobody listens."""
    state = Server(how)
    if how == "nothing":
        with socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = unused.getsockname()[1]
        yield f"http://127.0.0.1:{address}", state
        return

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if state.how == "hangs":
                state.over.wait()
                return
            status = {"answers": 200, "fails": 500, "refuses": 403}[state.how]
            content = json.dumps(state.answer(self.path, body) if status == 200 else {}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST  # noqa: N815 - the names http.server calls

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_args: None  # type: ignore[method-assign, assignment]
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state.address, state
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
