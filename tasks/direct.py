"""What a client beside the broker may call: the same requests as over HTTP, as Celery tasks.

Each is handed to the very application that serves HTTP, in this process: the same token, schemas, rules,
transaction and problem bodies, with no second way in. These are the only tasks that return a result.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from flask.testing import FlaskClient

from app.factory import PREFIX, create_app
from tasks import queues
from tasks.base import control

KEPT_S = 60
VERBS: Mapping[str, tuple[str, str]] = {
    "trellis.jobs.submit": ("POST", "/jobs"),
    "trellis.jobs.get": ("GET", "/jobs/{id}"),
    "trellis.jobs.list": ("GET", "/jobs"),
    "trellis.jobs.cancel": ("PATCH", "/jobs/{id}/status"),
    "trellis.jobs.suspend": ("PATCH", "/jobs/{id}/status"),
    "trellis.jobs.resume": ("PATCH", "/jobs/{id}/status"),
    "trellis.jobs.retry": ("PATCH", "/jobs/{id}/status"),
    "trellis.queues.list": ("GET", "/queues"),
    "trellis.nodes.list": ("GET", "/resources/nodes"),
}
_UNSAFE = frozenset("/?#%\\")


@functools.cache
def _client() -> FlaskClient:
    return create_app(control().settings).test_client(use_cookies=False)


def answer(
    verb: str,
    token: str,
    body: Any = None,
    id: str = "",  # noqa: A002  # the word on the wire
    query: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Carry out one request: `{"status": ..., "body": ...}`, where the body of a fault is a problem (RFC 9457)."""
    method, path = VERBS[verb]
    address = PREFIX + path.format(id="".join("_" if letter in _UNSAFE else letter for letter in str(id)))
    response = _client().open(
        address,
        method=method,
        json=body if method != "GET" else None,
        query_string=dict(query or {}),
        headers={"Authorization": f"Bearer {token}"},
    )
    return {"status": response.status_code, "body": response.get_json(silent=True)}


def _register(verb: str) -> Callable[..., dict[str, Any]]:
    @control().celery.task(name=verb, queue=queues.DIRECT, ignore_result=False, expires=KEPT_S)
    def call(**arguments: Any) -> dict[str, Any]:
        return answer(verb, **arguments)

    made: Callable[..., dict[str, Any]] = call
    return made


TASKS = {verb: _register(verb) for verb in VERBS}
