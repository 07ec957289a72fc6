"""A job whose log is followed through the test client."""

import json
from collections.abc import Iterator
from typing import Any

from app.jobs.models import Replica
from tests.support.fake_node import FakeNode
from tests.support.stack import Stack
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import ReplicaState


class Running:
    """A job that runs on a node of ours and prints what we say."""

    def __init__(self, stack: Stack, world: World) -> None:
        self.stack, self.member = stack, stack.client(world.member)
        self.node = FakeNode.join(stack, world)
        self.id = self.member.post("/jobs", {"command": ["true"]}).json["id"]
        stack.run(stack.cycle)
        replica = stack.run(lambda uow: uow.session.query(Replica).one())
        (self.spec,) = self.node.specs((str(replica.id), replica.fence))
        self.node.ship(
            self.node.report(self.spec, ReplicaState.STARTING), self.node.report(self.spec, ReplicaState.RUNNING)
        )
        self._offset = self._count = 0

    def print(self, *lines: str, stream: str = "o") -> None:
        """Print lines."""
        text = "".join(f"{self._count + i} {stream} {line}\n" for i, line in enumerate(lines))
        self.node.ship(logs=(wire.LogChunk(self.spec.replica_id, self.spec.fence, self._offset, text),))
        self._offset += len(text.encode())
        self._count += len(lines)

    def end(self) -> None:
        """Succeed."""
        self.node.ship(self.node.report(self.spec, ReplicaState.SUCCEEDED, exit_code=0))

    def follow(self, query: str = "", last_event_id: str = "") -> Iterator[tuple[str, str, Any]]:
        """The messages of a stream as (event, id, data)."""
        client = self.stack.app.test_client()
        headers = {**self.member.headers, **({"Last-Event-ID": last_event_id} if last_event_id else {})}
        response = client.get(f"/api/v1/jobs/{self.id}/logs?follow=true{query}", headers=headers, buffered=False)
        assert response.mimetype == "text/event-stream"
        buffer = b""
        for part in response.response:
            buffer += part if isinstance(part, bytes) else part.encode()
            while b"\n\n" in buffer:
                block, _, buffer = buffer.partition(b"\n\n")
                fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
                if fields:
                    yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
        response.close()
