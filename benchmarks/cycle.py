"""The scheduler's way through the database: rows, plan, rows, with a thousand nodes and twenty thousand jobs waiting."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from random import Random
from uuid import UUID

from sqlalchemy import insert, text
from sqlalchemy.orm import Session, sessionmaker

from app.cli.bootstrap import migrate
from app.core.access import SYSTEM
from app.core.db import make_engine, make_sessions
from app.core.ids import new_id
from app.core.settings import Settings
from app.core.uow import UnitOfWork, run
from app.jobs.models import Job
from app.queues.models import Queue
from app.resources.models import Gpu, Node
from app.scheduling.cycle import Outcome, run_cycle
from app.scheduling.mirror import Mirror
from app.tenancy.models import Organisation, Project
from benchmarks.bench import Bench
from trellis.vocabulary import ActorKind, Isolation, JobState, NodeState

SEED = 7
NODES, DEVICES, PENDING, CLASSES = 1000, 8, 20_000, 200
GIB = 2**30
DATABASE = "bench_cycle"
IDLE_CYCLES = 20


def measure(bench: Bench) -> None:
    """Cycles until the cluster is full, then cycles with nothing to do, in a database of their own."""
    with _database(bench) as sessions:
        run(sessions, SYSTEM, _fill)
        mirror = Mirror()
        started, seconds = _cycle(sessions, mirror)
        shape = {"nodes": NODES, "gpus": DEVICES, "pending": PENDING, "classes": CLASSES, "seed": SEED}
        bench.printer.line("cycle.first", seconds, "s", started=started, **shape)
        busy: list[float] = []
        while True:
            started, seconds = _cycle(sessions, mirror)
            if started < 500:
                break
            busy.append(seconds)
        bench.printer.times("cycle.places_500", busy, **shape)
        while _cycle(sessions, mirror)[0]:
            pass
        idle = [_cycle(sessions, mirror)[1] for _ in range(IDLE_CYCLES)]
        bench.printer.times("cycle.idle", idle, **shape)


def _cycle(sessions: sessionmaker[Session], mirror: Mirror) -> tuple[int, float]:
    """One cycle with its commit: how many jobs it started, and how long it took, its rest left out."""
    time.sleep(mirror.interval_s)
    began = time.perf_counter()
    outcome: Outcome = run(sessions, SYSTEM, lambda uow: run_cycle(uow, mirror))
    return outcome.started, time.perf_counter() - began


@contextmanager
def _database(bench: Bench) -> Iterator[sessionmaker[Session]]:
    """A second database on the stack's server, which no process of the stack looks at; it goes with the stack."""
    url = (bench.stack.home / "secrets" / "database_url").read_text().strip()
    ours = url.rpartition("/")[0] + f"/{DATABASE}"
    with bench.stack.database() as database:
        database.execute(f"CREATE DATABASE {DATABASE}")
    migrate(ours)
    engine = make_engine(Settings(ours, "", os.urandom(32).hex()))
    try:
        yield make_sessions(engine)
    finally:
        engine.dispose()


def _fill(uow: UnitOfWork) -> None:
    random = Random(SEED)
    organisation = Organisation(name="bench")
    uow.session.add(organisation)
    uow.session.flush()
    project = Project(organisation_id=organisation.id, name="bench")
    queue = Queue(name="bench")
    uow.session.add_all([project, queue])
    uow.session.flush()
    nodes = [_node(number, uow.clock.now()) for number in range(NODES)]
    uow.session.execute(insert(Node), nodes)
    uow.session.execute(insert(Gpu), [_gpu(node["id"], index) for node in nodes for index in range(DEVICES)])
    classes = [_class(random, number) for number in range(CLASSES)]
    jobs = [_job(random.choice(classes), project.id, queue.id, number) for number in range(PENDING)]
    uow.session.execute(insert(Job), jobs)
    uow.session.execute(text("ANALYZE"))


def _node(number: int, now: datetime) -> dict[str, object]:
    cpu_milli, memory_bytes = DEVICES * 8000, DEVICES * 64 * GIB
    return {
        "id": new_id(), "name": f"node-{number:04}", "hostname": "bench", "boot_id": "bench", "state": NodeState.READY,
        "token_digest": os.urandom(32), "cpu_milli": cpu_milli, "real_cpu_milli": cpu_milli,
        "memory_bytes": memory_bytes, "real_memory_bytes": memory_bytes, "gpu_model": "h100",
        "isolation": Isolation.BASIC, "isolation_detail": "", "executors": [], "last_seen_at": now,
    }  # fmt: skip


def _gpu(node_id: object, index: int) -> dict[str, object]:
    return {
        "id": new_id(), "node_id": node_id, "index": index, "uuid": f"GPU-{node_id}-{index}", "model": "H100",
        "memory_bytes": 80 * GIB,
    }  # fmt: skip


def _class(random: Random, number: int) -> dict[str, object]:
    gpus = random.choice((2, 4, 8))
    return {
        "class_key": f"{number:032}", "priority": random.randrange(3), "replicas": 1, "cpu_milli": gpus * 4000,
        "memory_bytes": gpus * 8 * GIB, "gpu_milli": gpus * 1000, "gpu_model": "",
        "time_limit_s": random.randrange(600, 86_400),
    }  # fmt: skip


def _job(job_class: dict[str, object], project_id: UUID, queue_id: UUID, number: int) -> dict[str, object]:
    return job_class | {
        "id": new_id(), "project_id": project_id, "queue_id": queue_id, "actor_kind": ActorKind.USER,
        "actor_name": "bench", "name": f"job {number}", "state": JobState.QUEUED, "spec": {}, "labels": {},
    }  # fmt: skip
