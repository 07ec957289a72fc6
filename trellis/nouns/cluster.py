"""`client.nodes` and `client.queues`."""

from collections.abc import Iterator

from trellis.answers import JoinToken, Node, Queue, answer
from trellis.nouns.paging import pages
from trellis.transport import Call, Transport, path


class Nodes:
    """The machines that run jobs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, *, state: str | None = None, gpu_type: str | None = None, label: str | None = None
    ) -> Iterator[Node]:
        """Every node that matches; `label` is `key:value`."""
        return pages(self._transport, "/resources/nodes", Node, {"state": state, "gpu_type": gpu_type, "label": label})

    def get(self, node: str) -> Node:
        """One node by its id. Raises NotFound."""
        return answer(Node, self._transport.json(Call("GET", path("resources", "nodes", node))))

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

    def create(
        self, name: str, *, project_id: str | None = None, weight: int | None = None, policy: str | None = None
    ) -> Queue:
        """A new queue, for all projects or for one. Raises AlreadyExists, Forbidden."""
        sent = {"name": name, "project_id": project_id, "weight": weight, "policy": policy}
        body = {key: value for key, value in sent.items() if value is not None}
        return answer(Queue, self._transport.json(Call("POST", "/queues", body=body)))

    def pause(self, queue: str) -> Queue:
        """Start no more of the queue's jobs; those that run go on. Takes the id."""
        return answer(Queue, self._transport.json(Call("PUT", path("queues", queue, "pause"))))

    def resume(self, queue: str) -> Queue:
        """Start its jobs again. Takes the id."""
        return answer(Queue, self._transport.json(Call("PUT", path("queues", queue, "resume"))))
