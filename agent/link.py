"""The node's calls to the control plane."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from trellis.bundles.manifest import Manifest
from trellis.bundles.parcels import Parcel, reader, unwrap
from trellis.errors import StoreFull, TrellisError, Unavailable, from_problem
from trellis.wire import (
    Heartbeat,
    HostHeartbeat,
    HostOrders,
    HostRegistration,
    HostShipment,
    HostWelcome,
    NodeDescription,
    Orders,
    Receipt,
    ReplicaSpec,
    Restored,
    SaveFailed,
    Shipment,
    Welcome,
    pack,
    unpack,
)

_TIMEOUT = httpx.Timeout(10.0, connect=3.0)
_UPLOAD_TIMEOUT = httpx.Timeout(60.0, connect=3.0)
_PIECE_BYTES = 1 << 20
_PATHS = (
    "register", "heartbeat", "specs", "shipments",
    "host/register", "host/heartbeats", "host/specs", "host/shipments",
)  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Specs:
    """What became of a question for specs: those that are still to run, and the ids of those that are not."""

    specs: tuple[ReplicaSpec, ...]
    stale: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to store as an artifact of a replica: an open descriptor, its length, and its SHA-256 in hex.

    `kind` and `metadata` (JSON, in ASCII) are what the job says of it.
    """

    replica_id: str
    fence: int
    name: str
    file: int
    length: int
    digest: str
    kind: str = ""
    metadata: str = "{}"


class Link:
    """One keep-alive connection pool; threads may share it.

    Every call raises the `trellis.errors` that the answer stands for, and Unavailable if there was none.
    """

    def __init__(self, url: str) -> None:
        base = f"{url.rstrip('/')}/api/v1/agent/"
        self.url = url
        self._client = httpx.Client(base_url=base, timeout=_TIMEOUT, trust_env=False)
        self._token = ""
        self._urls = {path: httpx.URL(base + path) for path in _PATHS}

    def use_token(self, token: str) -> None:
        """Sign later calls with the node's own token."""
        self._token = token

    def register(self, description: NodeDescription, token: str) -> Welcome:
        """Join with a join token, or come back with the node's own."""
        welcome = self._post("register", description, Welcome, token)
        self.use_token(welcome.token)
        return welcome

    def heartbeat(self, heartbeat: Heartbeat) -> Orders:
        """Say what is held here; hear what should be, and for how long the lease holds."""
        return self._post("heartbeat", heartbeat, Orders)

    def fetch_specs(self, pairs: Iterable[tuple[str, int]]) -> Specs:
        """What these replicas are to run."""
        return self._post("specs", {"replicas": [list(pair) for pair in pairs]}, Specs)

    def ship(self, shipment: Shipment) -> Receipt:
        """Hand over what is on disk; hear what of it may be forgotten."""
        return self._post("shipments", shipment, Receipt)

    def register_all(self, nodes: Sequence[NodeDescription], token: str) -> tuple[Welcome, ...]:
        """Let nodes join together, with a join token. Later calls are to be signed with `use_token`."""
        return self._post("host/register", HostRegistration(tuple(nodes)), HostWelcome, token).nodes

    def heartbeats(self, beats: Mapping[str, Heartbeat]) -> tuple[Orders, ...]:
        """The same as `heartbeat` for several nodes, by their tokens; the answers are in the same order."""
        return self._post("host/heartbeats", HostHeartbeat(tuple(beats), tuple(beats.values())), HostOrders).orders

    def fetch_specs_of(self, tokens: Iterable[str], pairs: Iterable[tuple[str, int]]) -> Specs:
        """What these replicas of the nodes with these tokens are to run."""
        body = {"tokens": list(tokens), "replicas": [list(pair) for pair in pairs]}
        return self._post("host/specs", body, Specs)

    def ship_of(self, tokens: Iterable[str], shipment: Shipment) -> Receipt:
        """Hand over what several nodes have to tell."""
        return self._post("host/shipments", HostShipment(tuple(tokens), shipment), Receipt)

    def upload(self, upload: Upload) -> None:
        """Store a file; storing the same one again does nothing."""
        request = self._client.build_request(
            "PUT",
            f"replicas/{upload.replica_id}/artifacts",
            params={"fence": upload.fence, "name": upload.name, "type": upload.kind},
            content=pieces(upload.file, upload.length),
            headers={
                **self._signature(),
                "Digest": f"sha-256={upload.digest}",
                "Content-Length": str(upload.length),
                "Artifact-Metadata": upload.metadata,
            },
            timeout=_UPLOAD_TIMEOUT,
        )
        self._send(request)

    def fetch_manifest(self, replica_id: str, fence: int) -> Manifest:
        """What the code of a replica is made of; not checked yet."""
        url = f"replicas/{replica_id}/code"
        answer = self._send(self._client.build_request("GET", url, params={"fence": fence}, headers=self._signature()))
        return _understood(Manifest, answer, "code")

    def fetch_code(self, replica_id: str, fence: int, digests: Sequence[str]) -> Iterator[Parcel]:
        """Contents of a replica's code, one after the other as they arrive. Raises BadParcel too."""
        request = self._client.build_request(
            "POST", f"replicas/{replica_id}/code/blobs", params={"fence": fence}, json={"digests": list(digests)},
            headers=self._signature(), timeout=_UPLOAD_TIMEOUT,
        )  # fmt: skip
        try:
            answer = self._client.send(request, stream=True)
            try:
                if not answer.is_success:
                    answer.read()
                    raise _error_of(answer)
                yield from unwrap(reader(answer.iter_bytes()))
            finally:
                answer.close()
        except httpx.RequestError as error:
            raise Unavailable(f"the control plane can't be reached: {error}") from error

    def save_checkpoint(self, replica_id: str, fence: int, manifest: bytes) -> str:
        """Have a checkpoint recorded whose chunks are safe; the key of its signed manifest. Again does nothing."""
        request = self._client.build_request(
            "PUT", f"replicas/{replica_id}/checkpoints", params={"fence": fence}, content=manifest,
            headers={**self._signature(), "Content-Type": "application/octet-stream"}, timeout=_UPLOAD_TIMEOUT,
        )  # fmt: skip
        try:
            return str(self._send(request).json()["key"])
        except (ValueError, TypeError, KeyError) as error:
            raise Unavailable(f"the control plane's answer to a checkpoint can't be understood: {error}") from error

    def checkpoint_failed(self, replica_id: str, fence: int, message: str) -> None:
        """Say that a checkpoint could not be stored."""
        self._tell(f"replicas/{replica_id}/checkpoints", SaveFailed(fence, message))

    def tell_restored(self, replica_id: str, restored: Restored) -> None:
        """Say from which checkpoint a replica goes on."""
        self._tell(f"replicas/{replica_id}/restored", restored)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _tell(self, path: str, value: Any) -> None:
        self._send(self._client.build_request("POST", path, json=pack(value), headers=self._signature()))

    def _post(self, path: str, value: Any, kind: type[T], token: str = "") -> T:
        # Put together here: the client's own way costs as much again as sending it, mostly for joining addresses.
        request = httpx.Request(
            "POST", self._urls[path], json=pack(value), headers=self._signature(token),
            extensions={"timeout": _TIMEOUT.as_dict()},
        )  # fmt: skip
        return _understood(kind, self._send(request), path)

    def _signature(self, token: str = "") -> dict[str, str]:
        return {"Authorization": f"Bearer {token or self._token}"}

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = self._client.send(request)
        except httpx.RequestError as error:  # also an answer that can't be decoded
            raise Unavailable(f"the control plane can't be reached: {error}") from error
        if answer.is_success:
            return answer
        raise _error_of(answer)


def _understood(kind: type[T], answer: httpx.Response, path: str) -> T:
    try:
        return unpack(kind, answer.json())
    except ValueError as error:
        raise Unavailable(f"the control plane's answer to {path} can't be understood: {error}") from error


def _error_of(answer: httpx.Response) -> TrellisError:
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    if answer.status_code in (408, 429) or (answer.status_code >= 500 and problem.get("code") != StoreFull.code):
        return Unavailable(f"the control plane answered {answer.status_code}")
    return from_problem(problem if isinstance(problem, dict) else {}, answer.status_code)


def pieces(file: int, length: int) -> Iterator[bytes]:
    """The first `length` bytes of an open file, read as they are taken. Raises OSError if the file got shorter."""
    offset = 0
    while offset < length:
        piece = os.pread(file, min(length - offset, _PIECE_BYTES), offset)
        if not piece:
            raise OSError("it changed while it was sent")
        offset += len(piece)
        yield piece
