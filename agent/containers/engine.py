"""A container engine, asked over its socket.

The standard library's HTTP client, as this is loaded by the process that supervisors are forked from, where each
megabyte and each tenth of a second counts. Source: Docker Engine API, version 1.41, which Podman serves too.
"""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

ANSWER_WITHIN_S = 120.0
_VERSION = "/v1.41"
_NOT_FOUND = 404
_LONGEST_LINE = 1 << 20


class EngineError(Exception):
    """The engine refused, in its own words; `missing` says that what was asked for is not there."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


class EngineGone(Exception):
    """The engine can't be reached, or hung up."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        """Connect to the socket in place of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(self._path)


class Answer:
    """An answer that is still coming. To be closed."""

    def __init__(self, connection: _Connection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def read(self, size: int) -> bytes:
        """So many bytes; fewer only at the end. Raises EngineGone."""
        try:
            return self._response.read(size)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:  # the last two: closed
            raise EngineGone(str(error)) from error

    def lines(self) -> Iterator[Any]:
        """What comes as JSON, one value a line. Raises EngineGone."""
        while True:
            try:
                line = self._response.readline(_LONGEST_LINE)
            except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
                raise EngineGone(str(error)) from error
            if not line:
                return
            if line.strip():
                yield json.loads(line)

    def close(self) -> None:
        """Let go of it."""
        self._response.close()
        self._connection.close()


class Engine:
    """What is asked of one. Every call raises EngineError and EngineGone."""

    def __init__(self, path: str) -> None:
        """`path` is where its socket lies."""
        self._path = path

    def describe(self) -> dict[str, Any]:
        """What it says of itself."""
        described: dict[str, Any] = self._ask("GET", "/info")
        return described

    def image(self, reference: str) -> dict[str, Any] | None:
        """What it knows of an image that it has; None for one that it has not."""
        try:
            found: dict[str, Any] = self._ask("GET", f"/images/{_quoted(reference)}/json")
        except EngineError as error:
            if error.missing:
                return None
            raise
        return found

    def pull(self, name: str, tag: str, connected: Callable[[socket.socket], None]) -> Answer:
        """Fetch an image; tells of its progress line by line. `tag` may be a digest.

        `connected` is given the socket before anything is asked for: who shuts that down need not wait for the answer.
        """
        connection = _Connection(self._path, None)
        asked = "/images/create?" + urlencode({"fromImage": name, "tag": tag})
        return self._request(connection, "POST", asked, None, connected)

    def create(self, name: str, body: dict[str, Any]) -> str:
        """Make a container of that name; its id."""
        made: str = self._ask("POST", "/containers/create?" + urlencode({"name": name}), body)["Id"]
        return made

    def start(self, container: str) -> None:
        """Have its program run."""
        self._ask("POST", f"/containers/{_quoted(container)}/start")

    def inspect(self, container: str) -> dict[str, Any] | None:
        """What it knows of a container; None where there is none."""
        try:
            found: dict[str, Any] = self._ask("GET", f"/containers/{_quoted(container)}/json")
        except EngineError as error:
            if error.missing:
                return None
            raise
        return found

    def logs(self, container: str) -> Answer:
        """All it has printed and will print, until it ends: frames of a stream's number and bytes."""
        asked = urlencode({"follow": 1, "stdout": 1, "stderr": 1})
        return self._open("GET", f"/containers/{_quoted(container)}/logs?{asked}", timeout_s=None)

    def wait(self, container: str) -> int:
        """Its exit code, once it has ended."""
        answer = self._open("POST", f"/containers/{_quoted(container)}/wait", timeout_s=None)
        try:
            code: int = json.loads(answer.read(_LONGEST_LINE))["StatusCode"]
        finally:
            answer.close()
        return code

    def remove(self, container: str) -> None:
        """End it, if need be, and forget it with all it wrote; one that is not there is fine."""
        try:
            self._ask("DELETE", f"/containers/{_quoted(container)}?force=1&v=1")
        except EngineError as error:
            if not error.missing:
                raise

    def list(self, label: str) -> list[dict[str, Any]]:
        """Every container, running or not, that carries `label` (`name=value`)."""
        asked = urlencode({"all": 1, "filters": json.dumps({"label": [label]})})
        found: list[dict[str, Any]] = self._ask("GET", f"/containers/json?{asked}")
        return found

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._open(method, path, body)
        try:
            block = answer.read(1 << 26)
        finally:
            answer.close()
        return json.loads(block) if block.strip() else None

    def _open(self, method: str, path: str, body: Any = None, timeout_s: float | None = ANSWER_WITHIN_S) -> Answer:
        return self._request(_Connection(self._path, timeout_s), method, path, body)

    def _request(
        self, connection: _Connection, method: str, path: str, body: Any,
        connected: Callable[[socket.socket], None] | None = None,
    ) -> Answer:  # fmt: skip
        try:
            connection.connect()
            if connected:
                connected(connection.sock)
            sent = None if body is None else json.dumps(body)
            connection.request(method, _VERSION + path, sent, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status < http.client.BAD_REQUEST:
                return Answer(connection, response)
            said = response.read(_LONGEST_LINE)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise EngineGone(str(error) or type(error).__name__) from error
        connection.close()
        raise EngineError(_words(said), missing=response.status == _NOT_FOUND)


def _quoted(name: str) -> str:
    return quote(name, safe="/:@")


def _words(block: bytes) -> str:
    try:
        said = json.loads(block)
        words = str(said["message"])
    except (ValueError, KeyError, TypeError):
        words = block.decode("utf-8", "replace")
    return " ".join(words.split())[:2000]
