"""`client.pools`, `client.allocations` and `client.reservations`."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from trellis.answers import answer
from trellis.holdings import Allocation, Pool, Reservation
from trellis.nouns.paging import pages
from trellis.transport import Call, Transport, path


class Pools:
    """Nodes under one quota, nested."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Pool]:
        """All of them, with what they have and what is held of it."""
        return pages(self._transport, "/resources/pools", Pool)

    def get(self, pool: str) -> Pool:
        """One by its id. Raises NotFound."""
        return answer(Pool, self._transport.json(Call("GET", path("resources", "pools", pool))))

    def create(self, name: str, **said: Any) -> Pool:
        """A new one: `parent` (a name), `weight`, `nominal`, `lends`, `borrows`, `overcommit`. Raises AlreadyExists."""
        body = {"name": name, **said}
        return answer(Pool, self._transport.json(Call("POST", "/resources/pools", body=body)))

    def update(self, pool: Pool, **changes: Any) -> Pool:
        """Change what was read as `pool`. Raises StaleVersion if somebody changed it since."""
        headers = {"If-Match": f'"{pool.version}"'}
        call = Call("PATCH", path("resources", "pools", pool.id), body=changes, headers=headers)
        return answer(Pool, self._transport.json(call))

    def delete(self, pool: str) -> None:
        """Remove one that nothing belongs to. Raises Conflict."""
        self._transport.json(Call("DELETE", path("resources", "pools", pool)))


class Allocations:
    """What is held now: by jobs, and without."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, *, project_id: str | None = None, node_id: str | None = None, job_id: str | None = None
    ) -> Iterator[Allocation]:
        """What is held now that matches."""
        wanted = {"project_id": project_id, "node_id": node_id, "job_id": job_id}
        return pages(self._transport, "/resources/allocations", Allocation, wanted)

    def get(self, allocation: str) -> Allocation:
        """One by its id. Raises NotFound."""
        return answer(Allocation, self._transport.json(Call("GET", path("resources", "allocations", allocation))))

    def create(self, **wish: Any) -> Allocation:
        """Hold a part of a node: `create(gpus=1, gpu_type="H100", ttl="2h", labels={"zone": "north"})`.

        Raises: CapacityTaken that says how much is free, QuotaExceeded.
        """
        return answer(Allocation, self._transport.json(Call("POST", "/resources/allocate", body=_plain(wish))))

    def release(self, allocation: str, *, force: bool = False) -> None:
        """Give back what is held without a job; with `force` somebody else's. Raises Forbidden, Conflict."""
        params = {"force": "true"} if force else {}
        self._transport.json(Call("DELETE", path("resources", "allocations", allocation), params))


class Reservations:
    """Claims on future windows."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, project_id: str | None = None, ended: bool = False) -> Iterator[Reservation]:
        """Those of one's projects, and maintenance; with `ended` those that are over too."""
        wanted = {"project_id": project_id, "ended": "true" if ended else None}
        return pages(self._transport, "/resources/reservations", Reservation, wanted)

    def get(self, reservation: str) -> Reservation:
        """One by its id. Raises NotFound."""
        return answer(Reservation, self._transport.json(Call("GET", path("resources", "reservations", reservation))))

    def create(self, **wish: Any) -> Reservation:
        """Claim parts of nodes: `create(starts_at=..., ends_at=..., count=2, gpus=8)`.

        Raises: CapacityTaken that says how much is free then, QuotaExceeded.
        """
        return answer(Reservation, self._transport.json(Call("POST", "/resources/reserve", body=_plain(wish))))

    def plan_maintenance(self, nodes: Sequence[str], **window: Any) -> Reservation:
        """Claim whole nodes, by name, for work on them: `starts_at` (now), `ends_at`, `name`, `drain_within` ("10m").

        They are drained when it begins, and back when it ends. Raises Forbidden.
        """
        body = _plain({"nodes": [*nodes], **window})
        return answer(Reservation, self._transport.json(Call("POST", "/resources/maintenance", body=body)))

    def cancel(self, reservation: str) -> None:
        """Give one up. Raises Conflict for one that is over."""
        self._transport.json(Call("DELETE", path("resources", "reservations", reservation)))


def _plain(wish: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _json(value) for name, value in wish.items() if value is not None}


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone().isoformat()  # a naive time is meant in the zone of whoever wrote it
    return int(value.total_seconds()) if isinstance(value, timedelta) else value
