"""A node as the API sees one: joins, asks, reports; runs nothing."""

from typing import Any

from tests.support.stack import Answer, Caller, Stack
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import Cause, ExecutorKind, Isolation, ReplicaState


def a_description(
    name: str = "node-1",
    cpus: int = 8,
    gpus: int = 0,
    devices: tuple[wire.GpuDescription, ...] | None = None,
    **values: Any,
) -> wire.NodeDescription:
    """A machine with that many CPUs and GPUs (or these devices) and 64 GiB."""
    described = tuple(wire.GpuDescription(i, f"GPU-{name}-{i}", "H100", 80 << 30) for i in range(gpus))
    defaults: dict[str, Any] = {
        "name": name, "hostname": f"{name}.test", "boot_id": "boot", "version": wire.VERSION,
        "cpu_milli": cpus * 1000, "memory_bytes": 64 << 30,
        "gpus": described if devices is None else devices,
        "isolation": Isolation.BASIC, "isolation_detail": "a test", "executors": (ExecutorKind.PROCESS,),
    }  # fmt: skip
    return wire.NodeDescription(**defaults | values)


class FakeNode:
    """Speaks the agent's protocol through the test client."""

    def __init__(self, stack: Stack, welcome: wire.Welcome) -> None:
        self._stack = stack
        self.welcome = welcome
        self.caller: Caller = stack.client(credential=welcome.token)
        self._seq: dict[str, int] = {}
        self._rounds = 0

    @classmethod
    def join(cls, stack: Stack, world: World, description: wire.NodeDescription | None = None) -> "FakeNode":
        """Let a machine join as an operator would."""
        token = stack.client(world.admin).post("/resources/join-tokens", {}).json["token"]
        caller = stack.client(credential=token)
        answer = caller.post("/agent/register", wire.pack(description or a_description()))
        assert answer.status == 201, answer.text
        return cls(stack, wire.unpack(wire.Welcome, answer.json))

    def beat(self, *held: wire.Held, **said: Any) -> wire.Orders:
        """One heartbeat with these replicas in hand; what else it is to say is in `said`."""
        heartbeat = wire.Heartbeat(held, load_percent=10, memory_used_bytes=1, disk_free_bytes=1, **said)
        answer = self.caller.post("/agent/heartbeat", wire.pack(heartbeat))
        assert answer.status == 200, answer.text
        return wire.unpack(wire.Orders, answer.json)

    def check_up(self, *findings: wire.Finding, **said: Any) -> None:
        """A heartbeat after another round of health checks, with what that found."""
        self._rounds += 1
        self.beat(checkup=wire.Checkup(self._rounds, findings), **said)

    def specs(self, *pairs: tuple[str, int]) -> list[wire.ReplicaSpec]:
        """What it was told to launch."""
        answer = self.caller.post("/agent/specs", {"replicas": [list(pair) for pair in pairs]})
        return [wire.unpack(wire.ReplicaSpec, spec) for spec in answer.json["specs"]]

    def report(self, spec: wire.ReplicaSpec, state: ReplicaState, **values: Any) -> wire.Report:
        """The next report of a replica, not sent yet."""
        self._seq[spec.replica_id] = self._seq.get(spec.replica_id, 0) + 1
        seq = self._seq[spec.replica_id]
        return wire.Report(spec.replica_id, spec.fence, seq, state, "2026-01-01T00:00:00+00:00", **values)

    def ship(self, *reports: wire.Report, logs: tuple[wire.LogChunk, ...] = (), metrics: Any = ()) -> wire.Receipt:
        """Send a shipment."""
        answer = self.send(wire.Shipment(logs, tuple(metrics), reports))
        assert answer.status == 200, answer.text
        return wire.unpack(wire.Receipt, answer.json)

    def send(self, shipment: wire.Shipment) -> Answer:
        """Send a shipment, whatever the answer."""
        return self.caller.post("/agent/shipments", wire.pack(shipment))

    def succeed(self, spec: wire.ReplicaSpec) -> wire.Receipt:
        """Run through to the end."""
        return self.ship(
            self.report(spec, ReplicaState.STARTING),
            self.report(spec, ReplicaState.RUNNING),
            self.report(spec, ReplicaState.SUCCEEDED, exit_code=0, run_s=0.5),
        )

    def succeed_running(self, spec: wire.ReplicaSpec) -> wire.Receipt:
        """End one that runs well."""
        return self.ship(self.report(spec, ReplicaState.SUCCEEDED, exit_code=0, run_s=0.5))

    def fail(self, spec: wire.ReplicaSpec, exit_code: int = 1, cause: Cause = Cause.EXIT_CODE) -> wire.Receipt:
        """Begin, then fail."""
        return self.ship(
            self.report(spec, ReplicaState.STARTING),
            self.report(spec, ReplicaState.RUNNING),
            self.report(spec, ReplicaState.FAILED, exit_code=exit_code, cause=cause, message="it failed"),
        )
