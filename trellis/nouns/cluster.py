"""`client.nodes` and `client.queues`."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from trellis.answers import Event, JoinToken, Kind, Node, Queue, answer
from trellis.holdings import Applied, QueueOrder
from trellis.nouns.paging import pages
from trellis.transport import Call, Transport, path


class Nodes:
    """The machines that run jobs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        name: str | None = None,
        state: str | None = None,
        gpu_type: str | None = None,
        label: str | None = None,
        pool: str | None = None,
        healthy: bool | None = None,
    ) -> Iterator[Node]:
        """Every node that matches; `label` is `key:value`, of a label or of a domain such as `zone:north`."""
        wanted = {"name": name, "state": state, "gpu_type": gpu_type, "label": label, "pool": pool}
        wanted["healthy"] = None if healthy is None else str(healthy).lower()
        return pages(self._transport, "/resources/nodes", Node, wanted)

    def kinds(self) -> Sequence[Kind]:
        """The nodes summed up by their hardware: a few lines, however many there are."""
        return [answer(Kind, item) for item in self._transport.json(Call("GET", "/resources/kinds"))["items"]]

    def get(self, node: str) -> Node:
        """One node by its id. Raises NotFound."""
        return answer(Node, self._transport.json(Call("GET", path("resources", "nodes", node))))

    def update(self, node: Node, **traits: Any) -> Node:
        """Say something new of what was read as `node`: `labels`, `taints`, `domains`, `pool` (a name), `spot`,
        `usd_per_hour`, `caches`. Raises StaleVersion if somebody changed it since.
        """
        headers = {"If-Match": f'"{node.version}"'}
        call = Call("PATCH", path("resources", "nodes", node.id), body=traits, headers=headers)
        return answer(Node, self._transport.json(call))

    def cordon(self, node: str, reason: str = "") -> Node:
        """Place nothing more on it; what runs there goes on. Takes the id."""
        call = Call("PUT", path("resources", "nodes", node, "cordon"), body={"reason": reason})
        return answer(Node, self._transport.json(call))

    def uncordon(self, node: str, reason: str = "") -> Node:
        """Place work on it again. Takes the id."""
        call = Call("PUT", path("resources", "nodes", node, "uncordon"), body={"reason": reason})
        return answer(Node, self._transport.json(call))

    def drain(self, node: str, reason: str = "", *, deadline: str | int | None = None, migrate: bool = True) -> Node:
        """Have its jobs leave it: those that can go on elsewhere at once, the rest by the `deadline` ("30m"; None: as
        long as they take); without `migrate` all of them only then. Once `jobs_left` is 0 its state is `drained`.
        Takes the id. Raises Forbidden.
        """
        body = {"reason": reason, "deadline": deadline, "migrate": migrate}
        return answer(Node, self._transport.json(Call("PUT", path("resources", "nodes", node, "drain"), body=body)))

    def undrain(self, node: str, reason: str = "") -> Node:
        """Place work on it again. Takes the id."""
        call = Call("PUT", path("resources", "nodes", node, "undrain"), body={"reason": reason})
        return answer(Node, self._transport.json(call))

    def quarantine(self, node: str, reason: str = "", *, device: int | None = None) -> Node:
        """Place nothing more on it, or on its device of that index, until it is released. Takes the id."""
        return self._trust("quarantine", node, reason, device)

    def release(self, node: str, reason: str = "", *, device: int | None = None) -> Node:
        """End a quarantine, whoever ordered it. Takes the id."""
        return self._trust("release", node, reason, device)

    def _trust(self, verb: str, node: str, reason: str, device: int | None) -> Node:
        body = {"reason": reason, "device": device}
        return answer(Node, self._transport.json(Call("PUT", path("resources", "nodes", node, verb), body=body)))

    def events(self, node: str) -> Iterator[Event]:
        """What happened to it, the newest first. Takes the id. Raises Forbidden for all but administrators."""
        return pages(self._transport, path("resources", "nodes", node, "events"), Event)

    def levels(self) -> tuple[str, ...]:
        """The levels of the topology, widest first."""
        return tuple(self._transport.json(Call("GET", "/resources/topology"))["levels"])

    def set_levels(self, levels: Sequence[str]) -> tuple[str, ...]:
        """Name the levels of the topology anew, widest first. Raises Forbidden."""
        call = Call("PUT", "/resources/topology", body={"levels": list(levels)})
        return tuple(self._transport.json(call)["levels"])

    def apply_cluster(self, cluster: Mapping[str, Any]) -> Applied:
        """Make topology, pools and nodes as a cluster.yaml (read as JSON) says, all or nothing.

        Raises: Invalid with pointers into it, Forbidden, Conflict.
        """
        return answer(Applied, self._transport.json(Call("PUT", "/resources/cluster", body=_json(cluster))))

    def create_join_token(self, name: str | None = None, expires_in_s: int | None = None) -> JoinToken:
        """A token with which machines may join; shown this once. Raises Forbidden for all but administrators."""
        sent = {"name": name, "expires_in_s": expires_in_s}
        body = {key: value for key, value in sent.items() if value is not None}
        return answer(JoinToken, self._transport.json(Call("POST", "/resources/join-tokens", body=body)))


class Queues:
    """Where jobs wait."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Queue]:
        """Every queue that the caller may see."""
        return pages(self._transport, "/queues", Queue)

    def get(self, queue: str) -> Queue:
        """One queue by its id. Raises NotFound."""
        return answer(Queue, self._transport.json(Call("GET", path("queues", queue))))

    def create(self, name: str, *, project_id: str | None = None, **limits: Any) -> Queue:
        """A new queue, for all projects or for one: `weight`, `policy`, `second_policy`, `pool` (a name), `most`
        (amounts), `most_running`. Raises AlreadyExists, Forbidden.
        """
        sent = {"name": name, "project_id": project_id, **limits}
        body = {key: value for key, value in sent.items() if value is not None}
        return answer(Queue, self._transport.json(Call("POST", "/queues", body=body)))

    def update(self, queue: Queue, **changes: Any) -> Queue:
        """Change what was read as `queue`; words as for `create`. Raises StaleVersion if somebody changed it since."""
        headers = {"If-Match": f'"{queue.version}"'}
        call = Call("PATCH", path("queues", queue.id), body=changes, headers=headers)
        return answer(Queue, self._transport.json(call))

    def explain(self, queue: str, job: str | None = None) -> QueueOrder:
        """In which order its jobs wait, and why each kind of them does; or what waits before one job. Takes ids.

        Raises: NotFound, also for a job that does not wait there.
        """
        return answer(QueueOrder, self._transport.json(Call("GET", path("queues", queue, "explain"), {"job": job})))

    def pause(self, queue: str) -> Queue:
        """Start no more of the queue's jobs; those that run go on. Takes the id."""
        return answer(Queue, self._transport.json(Call("PUT", path("queues", queue, "pause"))))

    def resume(self, queue: str) -> Queue:
        """Start its jobs again. Takes the id."""
        return answer(Queue, self._transport.json(Call("PUT", path("queues", queue, "resume"))))


def _json(value: Any) -> Any:
    """What a YAML file holds, whose times were read as such, and JSON has none."""
    if isinstance(value, Mapping):
        return {key: _json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_json(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value
