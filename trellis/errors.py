"""One tree of errors, the same in the server, the client and the tasks; told apart by `code`.

TrellisError
  Invalid                  input that can't be accepted; carries the fields
  Unauthenticated          who are you?
  Forbidden                you may not
  NotFound                 no such thing, or not yours
  Conflict                 it is not in a state for that
    IllegalTransition, StaleVersion, StaleFence, CapacityTaken, AlreadyExists, IdempotencyKeyReused
  QuotaExceeded            your share is used up
  StoreFull                there is no room on the disk
  RateLimited              too fast
  Unavailable              a part is down; try again
"""

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Field:
    """One fault in the input: a JSON pointer (RFC 6901) to it, and what to do about it."""

    pointer: str
    message: str


class TrellisError(Exception):
    """Base of all; `code` is stable and is what programs compare."""

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong inside Trellis"

    def __init__(self, detail: str = "", *fields: Field) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.fields = fields
        self.trace_id = ""


class Invalid(TrellisError):
    """The input can't be accepted; `fields` says where and why."""

    code = "invalid"
    title = "The input is not valid"

    def __init__(self, *fields: Field, detail: str = "") -> None:
        named = "; ".join(f"{field.pointer or '/'} {field.message}" for field in fields)
        super().__init__(detail or named, *fields)


class Unauthenticated(TrellisError):
    """No credential, or one that does not hold."""

    code = "unauthenticated"
    title = "Sign in first"


class Forbidden(TrellisError):
    """The actor is known and lacks the right."""

    code = "forbidden"
    title = "You may not do that"


class NotFound(TrellisError):
    """There is no such thing, or it is not yours to see."""

    code = "not_found"
    title = "Not found"


class Conflict(TrellisError):
    """The thing is not in a state in which this can be done."""

    code = "conflict"
    title = "That can't be done in the present state"


class IllegalTransition(Conflict):
    """The state table has no such move."""

    code = "illegal_transition"


class StaleVersion(Conflict):
    """Somebody changed the row since it was read."""

    code = "stale_version"
    title = "It was changed since you read it: read it again"


class StaleFence(Conflict):
    """A later attempt has begun; whoever holds the old fence must stop."""

    code = "stale_fence"


class CapacityTaken(Conflict):
    """Somebody else holds it now."""

    code = "capacity_taken"


class AlreadyExists(Conflict):
    """That name is in use."""

    code = "already_exists"


class IdempotencyKeyReused(Conflict):
    """The same Idempotency-Key came with another request."""

    code = "idempotency_key_reused"
    title = "This Idempotency-Key belongs to another request"


class TooLarge(Invalid):
    """The body is over the limit."""

    code = "too_large"
    title = "The request is too large"


class QuotaExceeded(TrellisError):
    """The project's or the user's share is used up."""

    code = "quota_exceeded"
    title = "Quota exceeded"


class StoreFull(TrellisError):
    """The store takes no more bytes; what it has is safe. Its operator must make room."""

    code = "store_full"
    title = "The store is full"


class RateLimited(TrellisError):
    """Too many requests; `retry_after_s` says how long to wait."""

    code = "rate_limited"
    title = "Too many requests"

    def __init__(self, detail: str = "", *fields: Field, retry_after_s: float = 1.0) -> None:
        super().__init__(detail, *fields)
        self.retry_after_s = retry_after_s


class Unavailable(TrellisError):
    """A part of the platform is down; trying again later helps."""

    code = "unavailable"
    title = "Temporarily unavailable"

    def __init__(self, detail: str = "", *fields: Field, retry_after_s: float = 1.0) -> None:
        super().__init__(detail, *fields)
        self.retry_after_s = retry_after_s


def _tree(base: type[TrellisError]) -> dict[str, type[TrellisError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found |= _tree(child)
    return found


BY_CODE = _tree(TrellisError)


def from_problem(problem: dict[str, Any], status: int) -> TrellisError:
    """Rebuild the error that a problem+json body (RFC 9457) stands for; `status` helps with foreign bodies."""
    by_status = {401: Unauthenticated, 403: Forbidden, 404: NotFound, 409: Conflict, 429: RateLimited, 503: Unavailable}
    kind = BY_CODE.get(str(problem.get("code", ""))) or by_status.get(status, TrellisError)
    fields = [Field(str(e.get("pointer", "")), str(e.get("message", ""))) for e in problem.get("errors") or ()]
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    error = kind(*fields, detail=detail) if issubclass(kind, Invalid) else kind(detail, *fields)
    error.trace_id = str(problem.get("trace_id", ""))
    return error
