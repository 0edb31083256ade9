"""A W&B server on loopback: the part of the protocol that runs and artifacts need (GraphQL, file stream, uploads), with faults on demand.

Written down from what the client of wandb 0.31 sends. A run's history is kept the way the real server keeps it: a chunk overwrites the lines from
its ``offset`` on, so a client that starts again at 0 loses nothing only if it sends everything again.
"""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OK, HANG = "ok", "hang"
ENTITY = "tester"


@dataclass
class ServerRun:
    """One run as the server knows it."""

    id: str
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    chunks: list[tuple[int, int]] = field(default_factory=list)
    """(offset, number of lines) of every chunk of history that arrived: shows repeats and gaps."""
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    complete: bool = False

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def steps(self) -> list[int]:
        return [item["_step"] for item in self.history]

    def bucket(self) -> dict[str, Any]:
        return {
            "id": f"bucket-{self.id}",
            "name": self.id,
            "displayName": self.name,
            "description": None,
            "config": json.dumps(self.config),
            "sweepName": None,
            "project": {"id": "project-1", "name": self.project, "entity": {"id": "entity-1", "name": ENTITY}},
            "historyLineCount": len(self.lines),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "summaryMetrics": json.dumps(self.summary),
            "historyTail": json.dumps(self.lines[-1:]),
            "eventsTail": json.dumps([]),
            "tags": list(self.tags),
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }


@dataclass
class ServerArtifact:
    """One artifact as the server knows it."""

    id: str
    name: str
    type: str
    run: str
    digest: str
    metadata: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    is_committed: bool = False


class FakeServer:
    """Serves on ``url`` between ``start`` and ``stop``; a later ``start`` takes the same port and still knows the runs.

    ``mode`` is "ok", "hang" (accepts and never answers) or an HTTP status that answers every request; ``stream_mode`` does the same for the file
    stream alone, and the run named ``refused`` never gets its history in. ``die_after`` history lines every request is answered with 503, until it
    is None again.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServerRun] = {}
        self.artifacts: list[ServerArtifact] = []
        self.files: dict[str, bytes] = {}
        """Uploaded files of runs, by "RUN/NAME"."""
        self.mode: str | int = OK
        self.stream_mode: str | int = OK
        self.refused: str | None = None
        self.die_after: int | None = None
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def lines(self) -> int:
        with self._lock:
            return sum(len(run.lines) for run in self.runs.values())

    def start(self) -> FakeServer:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                fake._answer(self)

            def do_PUT(self) -> None:
                fake._answer(self)

            def do_GET(self) -> None:
                fake._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on the terminal."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hung up is part of the game."""

        self._released.clear()
        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._released.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def __enter__(self) -> FakeServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = _body(handler)
        path = handler.path
        with self._lock:
            self.bodies.append(body)
            self.requests.append(f"{handler.command} {path}")
            mode = self.mode
            if mode == OK and path.endswith("/file_stream"):
                mode = 403 if self.runs[path.split("/")[-2]].name == self.refused else self.stream_mode
            if self.die_after is not None and sum(len(run.lines) for run in self.runs.values()) >= self.die_after:
                mode = 503
        if mode == HANG:
            self._released.wait()
            handler.close_connection = True
            return
        if mode != OK:
            _send(handler, int(mode), {"errors": [{"message": f"status {mode}"}]})
            return
        with self._lock:
            if path == "/graphql":
                answer = self._graphql(json.loads(body))
            elif path.endswith("/file_stream"):
                answer = self._stream(path.split("/")[-2], json.loads(body))
            else:
                answer = {}
                if handler.command == "PUT":
                    self._keep(path, body)
        _send(handler, 200, answer)

    def _graphql(self, request: dict[str, Any]) -> dict[str, Any]:
        query, values = request["query"], request.get("variables") or {}
        self.requests[-1] += " " + query.split("(")[0].split("{")[0].strip()
        if "upsertBucket" in query:
            return {"data": {"upsertBucket": self._upsert(values)}}
        if "RunResumeStatus" in query:
            run = self.runs.get(values["name"])
            bucket = run.bucket() if run else None
            project = {"id": "project-1", "name": values["project"], "entity": {"id": "entity-1", "name": ENTITY}, "bucket": bucket}
            return {"data": {"model": project}}
        if "CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{values['run']}/{name}"} for name in values["files"]]
            return {"data": {"createRunFiles": {"runID": f"bucket-{values['run']}", "uploadHeaders": [], "files": files}}}
        if "Artifact" in query:
            return {"data": self._artifact(query, values.get("input") or values)}
        if "ServerFeaturesQuery" in query:
            return {"data": {"serverInfo": {"features": []}}}
        if "query Viewer" in query:
            viewer = {"id": "viewer-1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": {"edges": []}}
            return {"data": {"viewer": viewer}}
        return {"data": {}}

    def _artifact(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        if "createArtifactManifest" in query:
            where = f"{self.url}/manifest/{values['artifactID']}/{values['name']}"
            file = {"id": "file-1", "uploadUrl": where, "uploadHeaders": []}
            return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{values['artifactID']}", "file": file}}}
        if "createArtifactFiles" in query:
            nodes = [
                {
                    "storagePath": None,
                    "uploadUrl": f"{self.url}/artifact/{file['artifactID']}/{file['name']}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": file["artifactID"]},
                }
                for file in values["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if "commitArtifact" in query:
            (found,) = (artifact for artifact in self.artifacts if artifact.id == values["artifactID"])
            found.is_committed = True
            return {"commitArtifact": {"artifact": {"id": found.id, "digest": found.digest}}}
        if "createArtifact" in query:
            known = next((a for a in self.artifacts if (a.name, a.digest) == (values["artifactCollectionName"], values["digest"])), None)
            if known is None:
                identity = f"artifact-{len(self.artifacts)}"
                facts = (values["artifactCollectionName"], values["artifactTypeName"], values["runName"], values["digest"])
                known = ServerArtifact(identity, *facts, metadata=json.loads(values["metadata"] or "{}"))
                self.artifacts.append(known)
            state = "COMMITTED" if known.is_committed else "PENDING"
            return {"createArtifact": {"artifact": {"id": known.id, "state": state, "artifactSequence": {"latestArtifact": None}}}}
        return {"project": {"artifact": None}}

    def _keep(self, path: str, body: bytes) -> None:
        _, kind, owner, name = path.split("/", 3)
        if kind == "upload":
            self.files[f"{owner}/{name}"] = body
        elif kind == "artifact":
            (found,) = (artifact for artifact in self.artifacts if artifact.id == owner)
            found.files[name] = body

    def _upsert(self, values: dict[str, Any]) -> dict[str, Any]:
        name = values.get("name") or str(values.get("id", "")).removeprefix("bucket-")
        inserted = name not in self.runs
        run = self.runs.setdefault(name, ServerRun(id=name))
        run.project = values.get("project") or run.project
        run.name = values.get("displayName") or run.name
        run.group = values.get("groupName") or run.group
        run.job_type = values.get("jobType") or run.job_type
        run.tags = tuple(values.get("tags") or run.tags)
        if values.get("config"):
            run.config = json.loads(values["config"])
        if values.get("summaryMetrics"):
            run.summary = json.loads(values["summaryMetrics"])
        return {"bucket": run.bucket(), "inserted": inserted}

    def _stream(self, name: str, chunk: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[name]
        files = chunk.get("files") or {}
        history = files.get("wandb-history.jsonl")
        if history:
            offset, content = history["offset"], history["content"]
            run.chunks.append((offset, len(content)))
            run.lines[offset : offset + len(content)] = content
        summary = files.get("wandb-summary.json")
        if summary and summary["content"]:
            run.summary = json.loads(summary["content"][-1])
        if chunk.get("complete") is not None:
            run.complete = bool(chunk["complete"])
            run.exit_code = chunk.get("exitcode")
        return {"exitcode": None, "limits": {}}


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding", "").lower() == "chunked":
        parts = []
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            parts.append(handler.rfile.read(size))
            handler.rfile.readline()
        handler.rfile.readline()
        body = b"".join(parts)
    else:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    # Some telemetry bodies are compressed without a Content-Encoding that says so.
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


def _send(handler: BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
