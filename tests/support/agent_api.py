"""A control plane in small, for tests of the node alone: the agent API over real HTTP, with a record of it all."""

import hashlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.code import a_manifest
from trellis.bundles.manifest import Entry
from trellis.bundles.manifest import Manifest as CodeManifest
from trellis.bundles.parcels import wrap
from trellis.stores.local import LocalStore
from trellis.stores.manifests import Manifest, sign
from trellis.vocabulary import ENDED_REPLICA_STATES, ExecutorKind, NetworkPolicy, StopReason
from trellis.wire import (
    Code,
    Heartbeat,
    HostOrders,
    HostWelcome,
    NodeDescription,
    Orders,
    Pause,
    Ready,
    Receipt,
    ReplicaSpec,
    Report,
    Restored,
    Save,
    SaveFailed,
    Shipment,
    Stop,
    Welcome,
    World,
    pack,
    unpack,
)

SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
JOIN_TOKEN = "join-me"
NODE_TOKEN = "node-secret"


def a_spec(replica_id: str, *command: str, **changes: Any) -> ReplicaSpec:
    """A replica that runs `command`, or the `script` among the changes."""
    values: dict[str, Any] = {
        "replica_id": replica_id, "job_id": f"job-of-{replica_id}", "project_id": "project", "job_name": "a job",
        "attempt": 1, "fence": 1, "index": 0, "count": 1, "command": command or None, "script": None, "script_name": "",
        "arguments": (), "environment": {}, "cpu_milli": 1000, "memory_bytes": 0, "gpus": (), "time_limit_s": None,
        "grace_s": 5, "executor": ExecutorKind.PROCESS, "network": NetworkPolicy.NONE,
    }  # fmt: skip
    return ReplicaSpec(**{**values, **changes})


def wait_until(condition: Callable[[], Any], within_s: float = 20.0) -> Any:
    """The first true answer of `condition`; fails after `within_s`."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)
    return answer


def rests(pid: int) -> bool:
    """Whether a process sleeps or is gone: of a supervisor that let its replica go, that it waits for another."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(") ")[2][0] in "SZ"


@dataclass
class ControlPlane:
    """What it wants of the node, and what it heard. `down` makes every answer 503."""

    lease_s: float = 20.0
    heartbeat_s: float = 0.2
    down: bool = False
    known_token: str = NODE_TOKEN
    wanted: dict[str, ReplicaSpec] = field(default_factory=dict)
    stops: dict[str, Stop] = field(default_factory=dict)
    pauses: dict[str, Pause] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    descriptions: list[NodeDescription] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=lambda: defaultdict(str))
    metrics: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    reports: dict[str, list[Report]] = field(default_factory=lambda: defaultdict(list))
    artifacts: dict[str, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))
    said_of: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    artifacts_at_end: dict[str, list[str]] = field(default_factory=dict)
    code: dict[str, dict[str, bytes]] = field(default_factory=dict)
    manifests: dict[str, CodeManifest] = field(default_factory=dict)
    code_asked: list[list[str]] = field(default_factory=list)
    code_held_back: bool = False
    code_spoilt: int = 0
    saved: dict[str, list[Manifest]] = field(default_factory=lambda: defaultdict(list))
    save_faults: list[str] = field(default_factory=list)
    restores: dict[str, Restored] = field(default_factory=dict)
    saves: tuple[Save, ...] = ()
    worlds: tuple[World, ...] = ()
    refuse_saves: list[tuple[int, str]] = field(default_factory=list)
    store: LocalStore | None = None
    shipments: int = 0
    uploads_refused: int = 0
    full: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self) -> None:
        plane = self

        class Handler(_Handler):
            control_plane = plane

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def want(self, *specs: ReplicaSpec) -> list[tuple[str, int]]:
        """Replicas that should run; returns the pairs of a launch message."""
        with self.lock:
            self.wanted |= {spec.replica_id: spec for spec in specs}
        return [(spec.replica_id, spec.fence) for spec in specs]

    def give_code(self, replica_id: str, files: dict[str, bytes], *links: Entry) -> Code:
        """Have code ready for a replica; what its spec says of it."""
        self.code[replica_id] = files
        self.manifests[replica_id] = manifest = a_manifest(files, *links)
        return Code(manifest.digest, manifest.size_bytes, len(manifest.files))

    def let_begin(self, *replica_ids: str) -> World:
        """Wait until these are ready, and tell their node, in this order, of each other."""
        ready = [wait_until(partial(self.ready_of, name)) for name in replica_ids]
        ranks = {f"{name}.1": rank for rank, name in enumerate(replica_ids)}
        places = (0,) * len(ready)
        world = World(ranks, (ready[0].address,), places, tuple(one.port for one in ready), places)
        self.worlds = (*self.worlds, world)
        return world

    def ready_of(self, replica_id: str) -> Ready | None:
        """What a replica of a gang said when it was ready."""
        return next((report.ready for report in self.reports[replica_id] if report.ready), None)

    def wish_end(self, replica_id: str, reason: StopReason, grace_s: int = 5) -> None:
        self.stops[replica_id] = Stop(replica_id, 1, reason, grace_s)

    def wish_still(self, replica_id: str, *, paused: bool = True, checkpoint_s: int = 0) -> None:
        self.pauses[replica_id] = Pause(replica_id, 1, paused, checkpoint_s)

    def states_of(self, replica_id: str) -> list[str]:
        """Every state that was reported of a replica, in order."""
        return [str(report.state) for report in self.reports[replica_id]]

    def end_of(self, replica_id: str, within_s: float = 20.0) -> Report:
        """The replica's last report, once it has ended."""
        reports = self.reports[replica_id]
        wait_until(lambda: any(report.state in ENDED_REPLICA_STATES for report in reports), within_s)
        return reports[-1]

    def lines(self, replica_id: str, mark: str = "o") -> list[str]:
        """The log's lines of one stream, without their stamps."""
        split = [line.split(" ", 2) for line in self.logs[replica_id].splitlines()]
        return [text for _, stream, text in split if stream == mark]

    # What a node may call, and a host of several; one node is all that there is here

    def host_register(self, body: Any) -> Any:
        (node,) = body["nodes"]
        return HostWelcome((self.register(node),))

    def host_heartbeats(self, body: Any) -> Any:
        assert body["tokens"] == [self.known_token]
        return HostOrders((self.heartbeat(body["heartbeats"][0]),))

    def host_specs(self, body: Any) -> Any:
        assert body["tokens"] == [self.known_token]
        return self.specs(body)

    def host_shipments(self, body: Any) -> Any:
        assert body["tokens"] == [self.known_token]
        return self.shipments_(body["shipment"])

    def register(self, body: Any) -> Any:
        self.descriptions.append(unpack(NodeDescription, body))
        return Welcome("node-1", NODE_TOKEN, "node.node-1", "redis://nowhere", self.heartbeat_s, self.lease_s)

    def heartbeat(self, body: Any) -> Any:
        heartbeat = unpack(Heartbeat, body)
        held = {held.replica_id for held in heartbeat.replicas}
        self.heartbeats.append(heartbeat)
        launch = tuple(spec for name, spec in self.wanted.items() if name not in held and not self._ended(name))
        stop = tuple(stop for name, stop in self.stops.items() if name in held)
        pause = tuple(pause for name, pause in self.pauses.items() if name in held)
        return Orders(self.lease_s, self.heartbeat_s, launch, stop, self.saves, pause, self.worlds)

    def specs(self, body: Any) -> Any:
        asked = [name for name, _ in body["replicas"]]
        specs = [self.wanted[name] for name in asked if name in self.wanted and not self._ended(name)]
        return {"specs": pack(specs), "stale": [name for name in asked if name not in self.wanted]}

    def shipments_(self, body: Any) -> Any:
        shipment = unpack(Shipment, body)
        self.shipments += 1
        named = {item.replica_id for item in shipment.logs} | {item.replica_id for item in shipment.metrics}
        named |= {item.replica_id for item in shipment.reports}
        for chunk in shipment.logs:
            have = len(self.logs[chunk.replica_id].encode())
            assert chunk.text.endswith("\n")
            if chunk.offset <= have:
                self.logs[chunk.replica_id] += chunk.text.encode()[have - chunk.offset :].decode()
        for point in shipment.metrics:
            if point.seq == len(self.metrics[point.replica_id]) + 1:
                self.metrics[point.replica_id].append(point)
        for report in shipment.reports:
            self._apply(report)
        return Receipt(
            logs={item.replica_id: len(self.logs[item.replica_id].encode()) for item in shipment.logs},
            metrics={item.replica_id: len(self.metrics[item.replica_id]) for item in shipment.metrics},
            reports={item.replica_id: len(self.reports[item.replica_id]) for item in shipment.reports},
            stale=tuple(named & self.stale),
        )

    def _apply(self, report: Report) -> None:
        known = self.reports[report.replica_id]
        if report.seq == len(known) + 1:
            known.append(report)
            if report.state in ENDED_REPLICA_STATES:
                self.artifacts_at_end[report.replica_id] = sorted(self.artifacts[report.replica_id])

    def take_checkpoint(self, replica_id: str, block: bytes) -> tuple[int, Any]:
        """As the real one does: sign it, keep it in the store, and say where."""
        if self.refuse_saves:
            status, code = self.refuse_saves.pop(0)
            return status, {"code": code, "detail": code}
        assert self.store is not None
        manifest = Manifest.decode(block)
        assert all(self.store.head(pack) for pack in manifest.packs)
        self.saved[replica_id].append(manifest)
        key = f"manifests/project/{replica_id}-{len(self.saved[replica_id])}"
        self.store.write(key, [sign(manifest, SIGNING_KEY)])
        return 200, {"id": "checkpoint", "key": key}

    def told_of(self, replica_id: str, word: str, body: Any) -> None:
        """What else a node says of a replica's checkpoints."""
        if word == "restored":
            self.restores[replica_id] = unpack(Restored, body)
        else:
            self.save_faults.append(unpack(SaveFailed, body).message)

    def _ended(self, name: str) -> bool:
        return any(report.state in ENDED_REPLICA_STATES for report in self.reports[name])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    control_plane: ControlPlane
    wbufsize = -1

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        plane = self.control_plane
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.removeprefix("/api/v1/agent/")
        if "/code/blobs?" in name:
            return self._code(name.split("/")[1], json.loads(body)["digests"])
        token = JOIN_TOKEN if name.endswith("register") else plane.known_token
        if plane.down:
            return self._answer(503, {"code": "unavailable"})
        if self.headers["Authorization"] not in (f"Bearer {token}", f"Bearer {plane.known_token}"):
            return self._answer(401, {"code": "unauthenticated", "detail": "who are you?"})
        if name == "shipments" and any(refused in body.decode() for refused in plane.refused):
            return self._answer(422, {"code": "invalid", "errors": []})
        if name.startswith("replicas/"):
            _, replica_id, word = name.split("/")
            plane.told_of(replica_id, word, json.loads(body))
            return self._answer(200, {})
        with plane.lock:
            method = getattr(plane, {"shipments": "shipments_"}.get(name, name.replace("/", "_")))
            return self._answer(200, pack(method(json.loads(body))))

    def do_GET(self) -> None:
        plane, name = self.control_plane, self.path.removeprefix("/api/v1/agent/")
        replica_id = name.split("/")[1]
        if plane.down or plane.code_held_back:
            return self._answer(503, {"code": "unavailable"})
        if replica_id not in plane.manifests:
            return self._answer(404, {"code": "not_found", "detail": "there is no such code"})
        return self._answer(200, pack(plane.manifests[replica_id]))

    def _code(self, replica_id: str, digests: list[str]) -> None:
        plane = self.control_plane
        plane.code_asked.append(digests)
        known = {hashlib.sha256(content).hexdigest(): content for content in plane.code[replica_id].values()}
        if plane.code_spoilt:
            plane.code_spoilt -= 1
            known = {digest: content[:-1] + b"!" for digest, content in known.items()}
        block = b"".join(b"".join(wrap(digest, len(known[digest]), [known[digest]])) for digest in digests)
        self.send_response(200)
        self.send_header("Content-Length", str(len(block)))
        self.end_headers()
        self.wfile.write(block)
        self.wfile.flush()

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.control_plane.down:
            return self._answer(503, {})
        if self.headers["Authorization"] != f"Bearer {self.control_plane.known_token}":
            self.control_plane.uploads_refused += 1
            return self._answer(401, {"code": "unauthenticated", "detail": "who are you?"})
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        replica_id = parts.path.split("/")[5]
        if parts.path.endswith("/checkpoints"):
            return self._answer(*self.control_plane.take_checkpoint(replica_id, body))
        assert self.headers["Digest"] == f"sha-256={hashlib.sha256(body).hexdigest()}"
        if self.control_plane.full:
            self.control_plane.full -= 1
            return self._answer(507, {"code": "store_full", "detail": "the store has no room"})
        if query["name"][0].startswith("forbidden"):
            return self._answer(413, {"code": "too_large", "detail": "too large"})
        self.control_plane.artifacts[replica_id][query["name"][0]] = body
        about = query.get("type", [""])[0], self.headers.get("Artifact-Metadata", "")
        self.control_plane.said_of[replica_id, query["name"][0]] = about
        return self._answer(201, {"id": "artifact"})

    def _answer(self, status: int, body: Any) -> None:
        block = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(block)))
        self.end_headers()
        self.wfile.write(block)
        self.wfile.flush()
