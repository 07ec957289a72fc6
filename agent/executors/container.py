"""Replicas as containers of an engine. They outlive their supervisor: the next one takes them up where they are."""

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import clock, processes
from agent.cgroups import Limits
from agent.containers import body
from agent.containers.enclosure import Enclosure, folder
from agent.containers.engine import Engine, EngineError, EngineGone
from agent.containers.following import PATIENCE_S, Follower, Outcome
from agent.executors.base import DEADLY, Exit, Running, Start, StartFailed, Usage
from agent.layout import ReplicaDir, read_json, write_json
from agent.reading import read_small
from agent.sampling import consumed_by

_LOST = "its container can't be seen from here: the agent must share its host's processes with the container engine"

_AGAIN_S = 0.5
_SEEN_WITHIN_S, _LOOK_S = 5.0, 0.05


@dataclass(slots=True)
class Contained(Running):
    """`pid` is the container's first process as the host sees it, which only waits for the job; 0 if it had none left.

    `born` tells it from a later process of that number. `seen_cpu_s` is the most CPU that its living were seen to have taken.
    `kept` is the file that the next supervisor would look into.
    """

    engine: Engine = field(default_factory=lambda: Engine(""))
    container: str = ""
    born: int | None = None
    enclosure: Enclosure | None = None
    follower: Follower | None = None
    seen_cpu_s: float = 0.0
    kept: Path = field(default_factory=Path)

    def alive(self) -> bool:
        """Whether it runs, as the host sees it."""
        return self.born is not None and processes.started_at(self.pid) == self.born


class ContainerExecutor:
    """Needs `Ground.site`."""

    def start(self, start: Start) -> Running:
        """See Executor.start."""
        enclosure = _enclosure(start)
        engine = Engine(start.ground.site.socket)
        container = ""
        try:
            if enclosure:
                enclosure.make(Limits(start.spec.memory_bytes, start.spec.cpu_milli))
            container = _create(engine, start, enclosure)
            _write_down(start, container, enclosure)
            engine.start(container)
            return _attached(engine, start, container, enclosure)
        except (EngineError, EngineGone, OSError) as error:
            _abandon(engine, container, enclosure)
            raise StartFailed(f"its container can't be started: {error}") from error
        except StartFailed:
            _abandon(engine, container, enclosure)
            raise

    def poll(self, running: Running) -> Exit | None:
        """See Executor.poll."""
        contained = _own(running)
        if contained.follower is None or contained.follower.outcome is None:
            return None
        contained.follower.join()
        return _exit_of(contained.follower.outcome, contained.enclosure)

    def signal(self, running: Running, signum: int) -> None:
        """See Executor.signal. With its first process go all the others: the kernel sees to that."""
        contained = _own(running)
        if not contained.ours:
            _abandon(contained.engine, contained.container, contained.enclosure)
        elif signum == signal.SIGKILL:
            processes.send([contained.pid] if contained.alive() else [], signum)
        else:
            processes.send(self.members(running), signum)

    def freeze(self, running: Running) -> bool:
        """See Executor.freeze."""
        processes.send(self.members(running), signal.SIGSTOP)
        there = self.members(running)
        return bool(there) and all(map(processes.is_still, there))

    def warn(self, running: Running, signum: int) -> bool:
        """See Executor.warn."""
        targets = [pid for pid in self.members(running) if processes.catches(pid, signum)]
        processes.send(targets, signum)
        return bool(targets)

    def members(self, running: Running) -> list[int]:
        """See Executor.members."""
        contained = _own(running)
        return processes.descendants(contained.pid) if contained.alive() else []

    def usage(self, running: Running) -> Usage:
        """See Executor.usage. Without a group of ours it is what was seen of its processes while they lived."""
        contained = _own(running)
        there = self.members(running)
        memory_bytes = processes.memory_bytes(there)
        if contained.enclosure:
            over = bool(there) and contained.enclosure.out_of_memory
            return Usage(contained.enclosure.cpu_s, contained.enclosure.peak_bytes, memory_bytes, over)
        contained.seen_cpu_s = max(contained.seen_cpu_s, consumed_by(there, 0.0).cpu_s)
        contained.peak_memory_bytes = max(contained.peak_memory_bytes, memory_bytes)
        return Usage(contained.seen_cpu_s, contained.peak_memory_bytes, memory_bytes)

    def adopt(self, replica: ReplicaDir) -> Running | None:
        """See Executor.adopt."""
        kept = read_json(replica.container)
        if kept is None:
            return None
        engine = Engine(kept["socket"])
        try:
            found = engine.inspect(kept["id"])
        except (EngineError, EngineGone):  # if there is something, nobody can say so
            return None
        enclosure = _kept_enclosure(kept)
        return Contained(0, ours=False, engine=engine, container=kept["id"], enclosure=enclosure) if found else None

    def resume(self, start: Start) -> Running | None:
        """See Executor.resume."""
        kept = read_json(start.replica.container)
        if kept is None or kept["boot_id"] != clock.boot_id():
            return None
        engine = Engine(kept["socket"])
        try:
            found = _inspect_patiently(engine, kept["id"])
            if found is None or found["State"]["Status"] in ("created", "configured", "initialized"):
                return None
            return _attached(engine, start, kept["id"], _kept_enclosure(kept))
        except (EngineError, EngineGone, StartFailed):
            return None

    def release(self, running: Running) -> None:
        """See Executor.release."""
        contained = _own(running)
        if _abandon(contained.engine, contained.container, contained.enclosure):
            contained.kept.unlink(missing_ok=True)


def _own(running: Running) -> Contained:
    if not isinstance(running, Contained):
        raise TypeError("it is no container of ours")
    return running


def _enclosure(start: Start) -> Enclosure | None:
    hierarchies = start.ground.site.hierarchies
    return (
        Enclosure(hierarchies, f"/{folder(start.ground.home_path)}/{start.replica.path.name}") if hierarchies else None
    )


def _create(engine: Engine, start: Start, enclosure: Enclosure | None) -> str:
    wanted = start.spec.container
    if wanted is None:
        raise StartFailed("it names no image")
    parent = enclosure.path if enclosure else ""
    return engine.create(body.name_of(start), body.body(start, start.ground.site, wanted, parent))


def _write_down(start: Start, container: str, enclosure: Enclosure | None) -> None:
    """What the next supervisor needs, before there is anything that it could need to take up."""
    write_json(
        start.replica.container,
        {
            "socket": start.ground.site.socket, "id": container, "boot_id": clock.boot_id(),
            "enclosure": enclosure and [enclosure.hierarchies, enclosure.path],
        },
    )  # fmt: skip


def _kept_enclosure(kept: dict[str, Any]) -> Enclosure | None:
    return Enclosure(*kept["enclosure"]) if kept["enclosure"] else None


def _inspect_patiently(engine: Engine, container: str) -> dict[str, Any] | None:
    """An engine that is away for a moment must not cost a job that runs. Raises EngineGone, EngineError."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return engine.inspect(container)
        except EngineGone:
            if time.monotonic() > until:
                raise
        time.sleep(_AGAIN_S)


def _attached(engine: Engine, start: Start, container: str, enclosure: Enclosure | None) -> Running:
    """Follow it from its beginning. Raises StartFailed where it runs and can't be seen."""
    pid, born = _first_process(engine, container)
    contained = Contained(
        pid, engine=engine, container=container, born=born, enclosure=enclosure, kept=start.replica.container
    )
    contained.follower = Follower(engine, container, (start.stdout, start.stderr), contained.alive)
    contained.follower.start()
    return contained


def _first_process(engine: Engine, container: str) -> tuple[int, int | None]:
    """Its number and when it was born, None if it has ended. Raises StartFailed where it runs and can't be seen."""
    until = time.monotonic() + _SEEN_WITHIN_S
    while (found := engine.inspect(container)) and found["State"]["Running"]:
        pid = int(found["State"]["Pid"])
        if pid and _holds(pid, container) and (born := processes.started_at(pid)) is not None:
            return pid, born
        if time.monotonic() > until:
            raise StartFailed(_LOST)
        time.sleep(_LOOK_S)  # of one that ended at once, an engine learns a moment later than we see it
    return 0, None


def _holds(pid: int, container: str) -> bool:
    """Whether that process is one of the container's: where the engine counts processes otherwise, it is not."""
    try:
        return container.encode() in read_small(f"/proc/{pid}/cgroup")
    except (FileNotFoundError, ProcessLookupError):
        return False


def _exit_of(outcome: Outcome, enclosure: Enclosure | None) -> Exit:
    if outcome.code is None:
        return Exit(None, fault=outcome.fault)
    number = outcome.code - 128
    killed = number == signal.SIGKILL
    # Whoever ends it on purpose has a verdict of his own.
    out_of_memory = outcome.out_of_memory or (killed and enclosure is not None and enclosure.pressed)
    return Exit(outcome.code, number if number in DEADLY else None, out_of_memory=out_of_memory)


def _abandon(engine: Engine, container: str, enclosure: Enclosure | None) -> bool:
    """Keep nothing of it; False if the engine won't give it up now: the daemon sees to that."""
    try:
        if container:
            engine.remove(container)
    except (EngineError, EngineGone):
        return False
    if enclosure:
        enclosure.remove()
    return True
