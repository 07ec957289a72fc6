"""One transaction a request: who calls, the view, the check that a right was checked, the commit.

A request that checked no right and is not marked public is rolled back and refused. An Idempotency-Key may
answer at once. A deadlock re-runs the whole request.
"""

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Flask, Response, current_app, g, json, request
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from app.core import idempotency
from app.core.access import NOBODY
from app.core.crypto import Keyring
from app.core.tables import Entity
from app.core.uow import UnitOfWork, run
from app.http.auth import Door, credential_of
from trellis.errors import Field, Forbidden, Invalid, TrellisError

V = TypeVar("V", bound=Callable[..., Any])
E = TypeVar("E", bound=Entity)
R = TypeVar("R")
_MARKS = "_trellis_marks"


def _mark(word: str) -> Callable[[V], V]:
    def decorate(view: V) -> V:
        setattr(view, _MARKS, getattr(view, _MARKS, frozenset()) | {word})
        return view

    return decorate


public = _mark("public")  # anybody may call it, signed in or not
answers_secret = _mark("secret")  # its answer holds a secret: never kept for an Idempotency-Key
outside = _mark("outside")  # opens its own units: streams, which must not hold a transaction


def current_uow() -> UnitOfWork:
    """The unit of work of this request."""
    uow: UnitOfWork = g.uow
    return uow


def sessions() -> sessionmaker[Session]:
    """For views marked `outside`."""
    made: sessionmaker[Session] = current_app.extensions["sessions"]
    return made


def keyring() -> Keyring:
    """The keys that the application's one secret stands for."""
    made: Keyring = current_app.extensions["keyring"]
    return made


def door() -> Door:
    """The application's one door."""
    made: Door = current_app.extensions["door"]
    return made


def signed_in(view: V) -> V:
    """Refuse who is not signed in before a body is read, as every view does that is not `outside`. Goes right below that mark."""

    @wraps(view)
    def at_the_door(*arguments: Any, **named: Any) -> Any:
        credential, at_door = credential_of(request), door()
        run(sessions(), NOBODY, lambda uow: at_door.actor(uow, credential))
        return view(*arguments, **named)

    return cast("V", at_the_door)


def reading(act: Callable[[UnitOfWork], R]) -> R:
    """Act, as who calls, in a unit that sees one moment of the database and can change nothing. For `outside` views.

    Raises: Forbidden where no right was checked.
    """
    credential, at_door = credential_of(request), door()

    def read(uow: UnitOfWork) -> R:
        uow.session.connection(execution_options=_ONE_MOMENT)
        uow.actor = at_door.actor(uow, credential)
        found = act(uow)
        _require_checked(uow)
        return found

    return run(sessions(), NOBODY, read)


def acting(act: Callable[[UnitOfWork], R]) -> R:
    """Act, as who calls, in a unit of its own. For `outside` views, which may take a while between two of them.

    Raises: Forbidden where no right was checked.
    """
    credential, at_door = credential_of(request), door()

    def act_as_caller(uow: UnitOfWork) -> R:
        uow.actor = at_door.actor(uow, credential)
        done = act(uow)
        _require_checked(uow)
        return done

    return run(sessions(), NOBODY, act_as_caller)


_ONE_MOMENT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


class TransactionalFlask(Flask):
    """A Flask whose views run inside a unit of work."""

    def dispatch_request(self) -> ResponseReturnValue:
        """Run the view of this request in its transaction."""
        marks = self.marks_of(request.endpoint, request.method)
        if request.url_rule is None or request.method == "OPTIONS" or "outside" in marks:
            return super().dispatch_request()
        key = _idempotency_key() if "public" not in marks else None
        try:
            # Most threads hold streams open. Requests beyond what there are connections for wait here, not for those.
            with current_app.extensions["turnstile"]:
                return run(sessions(), NOBODY, lambda uow: self._in_unit(uow, marks, key))
        except (TrellisError, IntegrityError):
            # Carried out before, it may well fail now, as by a name that it has taken itself.
            if key is None or (known := run(sessions(), NOBODY, lambda uow: _known_answer(uow, key))) is None:
                raise
            return _replay(known)

    def marks_of(self, endpoint: str | None, method: str) -> frozenset[str]:
        """What the view of an endpoint is marked as; MethodViews carry marks on their methods."""
        view = self.view_functions.get(endpoint or "")
        view_class = getattr(view, "view_class", None)
        target = getattr(view_class, ("get" if method == "HEAD" else method).lower(), None) if view_class else view
        marks: frozenset[str] = getattr(target, _MARKS, frozenset())
        return marks

    def _in_unit(self, uow: UnitOfWork, marks: frozenset[str], key: str | None) -> ResponseReturnValue:
        g.uow = uow
        if "public" in marks:
            uow.checked = True
            return self.make_response(super().dispatch_request())
        uow.actor = door().actor(uow, credential_of(request))
        response = self._checked(uow)
        if key is not None:
            answer = idempotency.Answer(response.status_code, response.get_json(silent=True))
            idempotency.keep(uow, key, _digest_of_request(), answer, secret="secret" in marks)
        return response

    def _checked(self, uow: UnitOfWork) -> Response:
        response = self.make_response(super().dispatch_request())
        _require_checked(uow)
        return response


def _require_checked(uow: UnitOfWork) -> None:
    if not uow.checked:
        raise Forbidden("this endpoint declares no permission, so nobody may use it")


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
    if key is not None and not (1 <= len(key) <= 200 and key.isprintable()):
        raise Invalid(Field("/idempotency-key", "must be 1 to 200 printable characters"))
    return key


def _known_answer(uow: UnitOfWork, key: str) -> idempotency.Answer | None:
    uow.actor = door().actor(uow, credential_of(request))
    uow.checked = True
    return idempotency.find_answer(uow, key, _digest_of_request())


def _digest_of_request() -> str:
    material = b"\0".join([request.method.encode(), request.full_path.encode(), request.get_data()])
    return hashlib.sha256(material).hexdigest()


def _replay(known: idempotency.Answer) -> Response:
    response = Response(json.dumps(known.body), status=known.status, mimetype="application/json")
    response.headers["Idempotency-Replayed"] = "true"
    return response


def if_match() -> int | None:
    """The version the caller read, from `If-Match: "7"`. Raises Invalid for anything else."""
    value = request.headers.get("If-Match")
    if value is None or value == "*":
        return None
    text = value.removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Invalid(Field("/if-match", 'must be the ETag that you were given, such as "7"'))
    return int(text)


def versioned(row: E) -> tuple[E, dict[str, str]]:
    """A view's answer with the ETag that a later If-Match may name."""
    return row, etag(row)


def etag(row: Entity) -> dict[str, str]:
    """The header that names this version of a row."""
    return {"ETag": f'"{row.version}"'}
