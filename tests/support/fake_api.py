"""A small API in the process: answers from a table, remembers what was asked."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from trellis.client import Client
from trellis.credentials import Credential
from trellis.transport import Retry, Transport

URL = "http://trellis.test"
Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]
# Keyed by verb and path below /api/v1.
Table = dict[tuple[str, str], list[Answer]]


@dataclass
class FakeApi(httpx.BaseTransport):
    """Answers each verb and path with its answers in turn, the last one for ever."""

    table: Table = field(default_factory=dict)
    asked: list[httpx.Request] = field(default_factory=list)

    def on(self, verb: str, path: str, *answers: Answer) -> "FakeApi":
        """Say what is answered; replaces what was said before."""
        self.table[verb, path] = list(answers)
        return self

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """What httpx calls instead of the network."""
        request.read()
        self.asked.append(request)
        answers = self.table.get((request.method, request.url.path.removeprefix("/api/v1")))
        if not answers:
            return problem(404, "not_found", f"no answer for {request.method} {request.url.path}")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    def bodies(self, verb: str, path: str) -> list[Any]:
        """The JSON bodies that came for one verb and path."""
        wanted = [r for r in self.asked if r.method == verb and r.url.path == f"/api/v1{path}"]
        return [json.loads(request.content) for request in wanted]


@dataclass
class Naps:
    """Instead of sleeping: how long it would have been. Moves a clock on."""

    taken: list[float] = field(default_factory=list)
    now: float = 0.0

    def sleep(self, seconds: float) -> None:
        """Take a nap."""
        self.taken.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        """Seconds so far."""
        return self.now


def reply(body: Any = None, status: int = 200, **headers: str) -> httpx.Response:
    """A JSON answer, or an empty one."""
    content = b"" if body is None else json.dumps(body).encode()
    return httpx.Response(status, content=content, headers={"Content-Type": "application/json", **headers})


def problem(status: int, code: str, detail: str = "", **more: Any) -> httpx.Response:
    """An error as the server writes it."""
    headers = {"Retry-After": str(more.pop("retry_after"))} if "retry_after" in more else {}
    body = {"type": "about:blank", "title": "Title", "status": status, "code": code, "detail": detail, **more}
    headers["Content-Type"] = "application/problem+json"
    return httpx.Response(status, content=json.dumps(body).encode(), headers=headers)


class Stream(httpx.SyncByteStream):
    """An event stream that gives its pieces and then ends, or breaks with an error."""

    def __init__(self, pieces: Iterable[bytes], then: Exception | None = None) -> None:
        self._pieces, self._then = pieces, then

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._then:
            raise self._then


def events(*pieces: bytes, then: Exception | None = None) -> Callable[[httpx.Request], httpx.Response]:
    """An answer that streams events."""
    return lambda _: httpx.Response(200, stream=Stream(pieces, then), headers={"Content-Type": "text/event-stream"})


def log_event(number: int, text: str | None = None, **more: Any) -> bytes:
    """One line of a log, whose cursor is its number."""
    line = {"at": "2026-01-31T12:00:00+00:00", "stream": "stdout", "replica": 0, "attempt": 1, **more}
    line["text"] = f"line {number}" if text is None else text
    return f"event: log\nid: {number}\ndata: {json.dumps(line, ensure_ascii=False)}\n\n".encode()


def end_event(state: str = "succeeded", exit_code: int | None = 0) -> bytes:
    """The last event of a log."""
    return f"event: end\ndata: {json.dumps({'state': state, 'exit_code': exit_code})}\n\n".encode()


def a_job_body(**changes: Any) -> dict[str, Any]:
    """A job as the server answers it."""
    return {
        "id": "0193-job",
        "name": "train",
        "project": "vision",
        "queue": "default",
        "user": "ada",
        "state": "queued",
        "priority": 0,
        "submitted_at": "2026-01-31T12:00:00+00:00",
        "resources": {"cpu_milli": 1000, "memory_bytes": 2**30, "gpu_milli": 2000, "gpu_type": "H100"},
        "replicas": 1,
        "labels": {},
        "wait_s": 1.5,
        "version": 1,
        **changes,
    }


def a_transport(
    api: httpx.BaseTransport, credential: Credential | None = None, naps: Naps | None = None, **retry: Any
) -> Transport:
    """A transport onto the fake that does not sleep."""
    return Transport(URL, credential, Retry(**retry), http=api, sleep=(naps or Naps()).sleep)


def a_client(api: httpx.BaseTransport, naps: Naps | None = None) -> Client:
    """A client onto the fake, that does not sleep and reads no file."""
    client = Client(URL, "tk_secret", http=api)
    client._attach(a_transport(api, naps=naps))
    return client
