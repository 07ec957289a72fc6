"""Who the nodes of a host are to the control plane, kept from one process to the next."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.layout import read_json, write_json
from agent.link import Link
from agent.simulation.nodes import SimulatedNode
from trellis.wire import Welcome

DEVICES_AT_ONCE = 1600
"""Devices of the nodes that join in one request: a request has a largest size."""


class Roster:
    """The nodes by their queues, once they have joined. They come back as they were, without a join token."""

    def __init__(self, path: Path, nodes: Mapping[str, SimulatedNode], link: Link, join_token: str) -> None:
        self._path, self._nodes, self._link, self._join_token = path, nodes, link, join_token
        largest = max((node.profile.gpus for node in nodes.values()), default=0)
        self._at_once = max(1, DEVICES_AT_ONCE // max(8, largest))
        self.by_queue: dict[str, str] = {}
        self.broker_url = ""
        self.heartbeat_s = 1.0

    def join(self, told: Callable[[int, int], None]) -> None:
        """Let all join that are not known from before; `told` hears how many of how many have.

        Raises: what `Link.register_all` raises.
        """
        self._restore()
        names = list(self._nodes)
        for start in range(0, len(names), self._at_once):
            some = names[start : start + self._at_once]
            if new := [name for name in some if not self._nodes[name].token]:
                self._register(new)
            told(start + len(some), len(names))
        self._keep()

    def join_again(self, names: Sequence[str]) -> None:
        """The control plane does not know these any more. Raises what `Link.register_all` raises."""
        for start in range(0, len(names), self._at_once):
            self._register(names[start : start + self._at_once])
        self._keep()

    def _register(self, names: Sequence[str]) -> None:
        nodes = [self._nodes[name] for name in names]
        welcomes = self._link.register_all([node.describe() for node in nodes], self._join_token)
        for node, welcome in zip(nodes, welcomes, strict=True):
            self._welcome(node, welcome)

    def _welcome(self, node: SimulatedNode, welcome: Welcome) -> None:
        node.token = welcome.token
        self.by_queue[welcome.queue] = node.name
        self.broker_url, self.heartbeat_s = welcome.broker_url, welcome.heartbeat_s
        self._link.use_token(welcome.token)  # any of them opens the door; what is asked is signed by each

    def _keep(self) -> None:
        known = {
            name: [self._digest(name), self._nodes[name].token, queue_name]
            for queue_name, name in self.by_queue.items()
        }
        write_json(self._path, {"nodes": known, "broker": self.broker_url, "heartbeat_s": self.heartbeat_s})

    def _restore(self) -> None:
        kept = read_json(self._path)
        if kept is None:
            return
        for name, (digest, token, queue_name) in kept["nodes"].items():
            if name in self._nodes and digest == self._digest(name):
                welcome = Welcome("", token, queue_name, kept["broker"], kept["heartbeat_s"], 0.0)
                self._welcome(self._nodes[name], welcome)

    def _digest(self, name: str) -> str:
        """What the control plane was told of a node, in short: who is another machine now registers anew."""
        node = self._nodes[name]
        return hashlib.sha256(json.dumps([self._link.url, name, node.claims]).encode()).hexdigest()[:16]
