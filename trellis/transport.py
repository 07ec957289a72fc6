"""One HTTP call to the platform: who asks, what is repeated and for how long, and errors as exceptions.

A call is repeated when nothing was sent, when the server said it did nothing (429, 503), or when repeating is
harmless: GET, PUT, DELETE, and POST, which carries one Idempotency-Key over all its tries.
"""

import random
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

import trellis
from trellis.credentials import Credential, Key
from trellis.errors import Field, Invalid, NotFound, RateLimited, TrellisError, Unavailable, from_problem

_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_NOTHING_DONE = frozenset({429, 503})
_GATEWAY_GAVE_UP = frozenset({502, 504})
_REPEATABLE = frozenset({"GET", "PUT", "DELETE", "POST"})
_CONNECT_S, _ANSWER_S = 5.0, 30.0
_JSON = "application/json, application/problem+json"


@dataclass(frozen=True, slots=True)
class Retry:
    """How stubborn a call is: at most `attempts` tries, at most `total_s` of waiting between them."""

    attempts: int = 5
    base_s: float = 0.2
    longest_s: float = 5.0
    total_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `body` is sent as JSON unless None; `repeatable` overrides what the verb says.

    `content` makes, anew at each try, the bytes of a body that is no JSON; `headers` then say its Content-Length.

    `read_timeout_s` is for calls that wait on purpose: when it is over the call ends, and is not repeated.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool | None = None
    read_timeout_s: float | None = None
    content: Callable[[], Iterable[bytes]] | None = None

    @property
    def may_repeat(self) -> bool:
        """Whether doing it twice is no worse than once."""
        return self.method in _REPEATABLE if self.repeatable is None else self.repeatable


class _Patience:
    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._tries = 0
        self._waited_s = 0.0

    def next_pause_s(self, asked_s: float = 0.0) -> float | None:
        """How long to wait before the next try, or None when it is enough; `asked_s` is the server's wish."""
        self._tries += 1
        grown = min(self._retry.longest_s, self._retry.base_s * 2.0 ** (self._tries - 1))
        # Jitter: clients that failed together must not come back together.
        pause = max(asked_s, grown * random.uniform(0.5, 1.0))  # noqa: S311  # nothing secret
        if self._tries >= self._retry.attempts or self._waited_s + pause > self._retry.total_s:
            return None
        self._waited_s += pause
        return pause


class Transport:
    """Sends calls to one server under one credential; safe to share between threads."""

    def __init__(
        self,
        url: str,
        credential: Credential | None = None,
        retry: Retry | None = None,
        http: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = _checked(url)
        self._credential: Credential = credential or Key(None)
        self._retry = retry or Retry()
        self.sleep = sleep
        headers = {"User-Agent": f"trellis/{trellis.__version__}", "Accept": _JSON}
        self._http = httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, transport=http)

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def json(self, call: Call) -> Any:
        """The answer's JSON, or None for an empty answer. Raises TrellisError."""
        response = self._send(self._keyed(call))
        if response.status_code == 204 or not response.content:
            return None
        return self._parsed(response)

    @contextmanager
    def stream(self, call: Call) -> Iterator[httpx.Response]:
        """The open answer, to be read piece by piece. Raises TrellisError, also for a connection that breaks inside."""
        response = self._send(call, stream=True)
        try:
            yield response
        except httpx.RequestError as error:
            raise self._unreachable(error, call) from error
        finally:
            response.close()

    def _keyed(self, call: Call) -> Call:
        if call.method != "POST" or "Idempotency-Key" in call.headers:
            return call
        headers = {**call.headers, "Idempotency-Key": secrets.token_hex(16)}
        return Call(call.method, call.path, call.params, call.body, headers, call.repeatable, call.read_timeout_s)

    def _send(self, call: Call, *, stream: bool = False) -> httpx.Response:
        patience, renewed = _Patience(self._retry), False
        while True:
            token = self._credential.token(self._exchange)
            outcome = self._once(call, token, stream=stream)
            if isinstance(outcome, httpx.Response):
                if outcome.is_success:
                    return outcome
                if outcome.status_code == 401 and not renewed and self._credential.renew(token, self._exchange):
                    renewed = True
                    continue
            pause = patience.next_pause_s(_asked_s(outcome)) if _worth_repeating(outcome, call) else None
            if pause is None:
                raise self._error(outcome, call)
            self.sleep(pause)

    def _once(self, call: Call, token: str | None, *, stream: bool) -> httpx.Response | httpx.RequestError:
        headers = dict(call.headers)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S, read=call.read_timeout_s or _ANSWER_S)
        request = self._http.build_request(
            call.method, call.path, params=flat(call.params), json=call.body, headers=headers, timeout=timeout,
            content=call.content and call.content(),
        )  # fmt: skip
        try:
            # A redirect is followed for reading alone, and httpx drops the credential when the origin changes;
            # a body, which may hold a password, is never sent on.
            response = self._http.send(request, stream=stream, follow_redirects=call.method == "GET")
            if stream and not response.is_success:
                response.read()
        except httpx.RequestError as error:
            return error
        return response

    def _exchange(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        call, patience = Call("POST", path, body=body, repeatable=False), _Patience(self._retry)
        while True:
            outcome = self._once(call, None, stream=False)
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return dict(self._parsed(outcome))
            pause = patience.next_pause_s(_asked_s(outcome)) if _worth_repeating(outcome, call) else None
            if pause is None:
                raise self._error(outcome, call)
            self.sleep(pause)

    def _parsed(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise TrellisError(f"{self.url} did not answer with JSON: is a Trellis server there?") from error

    def _error(self, outcome: httpx.Response | httpx.RequestError, call: Call) -> TrellisError:
        if isinstance(outcome, httpx.RequestError):
            return self._unreachable(outcome, call)
        if outcome.is_redirect:
            return TrellisError(f"{self.url} sends callers on to {outcome.headers['Location']}: use that address")
        try:
            problem = outcome.json()
        except ValueError:
            problem = {}
        error = from_problem(problem if isinstance(problem, dict) else {}, outcome.status_code)
        if isinstance(error, RateLimited | Unavailable):
            error.retry_after_s = _asked_s(outcome) or error.retry_after_s
        return error

    def _unreachable(self, error: httpx.RequestError, call: Call) -> Unavailable:
        reason = str(error) or type(error).__name__
        if isinstance(error, _NOTHING_SENT):
            return Unavailable(f"nothing answers at {self.url} ({reason}): is the server running?")
        lost = "" if call.may_repeat else "; whether the request was carried out is not known"
        return Unavailable(f"the connection to {self.url} broke ({reason}){lost}")


def path(*parts: str) -> str:
    """A path of quoted parts. Raises NotFound for a part that can name nothing."""
    for part in parts:
        if part in ("", ".", ".."):
            raise NotFound(f"there is nothing called {part!r}")
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _checked(url: str) -> str:
    url = url.rstrip("/").removesuffix("/api/v1").removesuffix("/v1").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(Field("/url", f"must be an http:// or https:// address, not {url!r}"))
    return url


def flat(params: Mapping[str, Any]) -> dict[str, Any]:
    """Filters as a query: times as ISO 8601, labels as `key:value`, what is None left out."""
    return {name: _text(value) for name, value in params.items() if value is not None}


def _text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [f"{key}:{text}" for key, text in value.items()]
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    # A naive time is meant in the zone of whoever wrote it.
    return value.astimezone().isoformat() if isinstance(value, datetime) else value


def _worth_repeating(outcome: httpx.Response | httpx.RequestError, call: Call) -> bool:
    if isinstance(outcome, httpx.Response):
        status = outcome.status_code
        return status in _NOTHING_DONE or (status in _GATEWAY_GAVE_UP and call.may_repeat)
    if isinstance(outcome, httpx.ReadTimeout) and call.read_timeout_s is not None:
        return False  # the caller set its own patience, and that is over
    if isinstance(outcome, httpx.TransportError):
        return isinstance(outcome, _NOTHING_SENT) or call.may_repeat
    return False


def _asked_s(outcome: httpx.Response | httpx.RequestError) -> float:
    if not isinstance(outcome, httpx.Response):
        return 0.0
    text = outcome.headers.get("Retry-After", "")
    # The other form that HTTP allows, a date, would need this machine's clock to be right.
    return float(text) if text.isascii() and text.isdigit() else 0.0
