"""Who waits for whom where several jobs of a node save and restore at once."""

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.checkpointing import Checkpointer
from agent.layout import ReplicaDir, write_json
from agent.link import Link
from tests.integration.agent.conftest import Node
from tests.support.agent_api import SIGNING_KEY, ControlPlane, a_spec, wait_until
from trellis.stores.base import Written
from trellis.stores.local import LocalStore
from trellis.stores.manifests import FileEntry, Manifest, sign
from trellis.stores.packs import read_file
from trellis.stores.urls import SIGN
from trellis.vocabulary import ReplicaState
from trellis.wire import CheckpointPlan, pack

PUBLIC = SIGNING_KEY.public_key().public_bytes_raw().hex()


class Slow:
    """Writes of the replicas `held` wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: set[str] = set()
        self.waiting: set[str] = set()
        self._write = LocalStore.write
        slow = self

        def write(store: LocalStore, key: str, parts: Iterable[bytes]) -> Written:
            return slow.write(store, key, parts)

        monkeypatch.setattr(LocalStore, "write", write)

    def write(self, store: LocalStore, key: str, parts: Iterable[bytes]) -> Written:
        who = key.rsplit("/", 1)[-1].split("-", maxsplit=1)[0]
        self.waiting.add(who)
        wait_until(lambda: who not in self.held)
        return self._write(store, key, parts)


class Told(Link):
    """Takes every checkpoint."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.saved: dict[str, list[Manifest]] = defaultdict(list)

    def save_checkpoint(self, replica_id: str, fence: int, manifest: bytes) -> str:
        self.saved[replica_id].append(Manifest.decode(manifest))
        return "manifests/project/none"


@pytest.fixture
def store(home: Path) -> LocalStore:
    found = LocalStore(home.parent / "store")
    found.write(SIGN, [b"here"])
    return found


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def finished() -> list[str]:
    return []


@pytest.fixture
def saving(told: Told, finished: list[str]) -> Iterator[Checkpointer]:
    made = Checkpointer(told, lambda: None, lambda replica: finished.append(replica.replica_id))
    made.start()
    yield made
    made.stop()


def a_replica(home: Path, name: str, content: bytes = b"state") -> ReplicaDir:
    replica = ReplicaDir(home / f"{name}.1", name, 1)
    replica.checkpoints.mkdir(parents=True)
    plan = CheckpointPlan((home.parent / "store").as_uri(), PUBLIC, 3600, 1)
    said = {"plan": pack(plan), "project": "project", "job": "job", "restored": "", "marker": "", "fingerprint": ""}
    write_json(replica.plan, said)
    mark(replica, content)
    return replica


def mark(replica: ReplicaDir, content: bytes) -> None:
    (replica.checkpoints / "state").write_bytes(content)
    half = replica.checkpoints / ".half"
    half.write_text("{}")
    half.rename(replica.checkpoints / ".complete")


def test_what_an_evicted_job_left_waits_for_no_large_save_of_another(
    saving: Checkpointer, told: Told, finished: list[str], store: LocalStore, home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    slow = Slow(monkeypatch)
    slow.held = {"large"}
    saving.watch(a_replica(home, "large"))
    wait_until(lambda: "large" in slow.waiting)
    saving.finish(a_replica(home, "evicted"))
    wait_until(lambda: finished)
    assert (finished, list(told.saved)) == (["evicted"], ["evicted"])
    slow.held = set()
    wait_until(lambda: "large" in told.saved)


def test_a_replica_that_ends_while_it_is_saved_is_left_to_who_saves_it(
    saving: Checkpointer, told: Told, finished: list[str], store: LocalStore, home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    slow = Slow(monkeypatch)
    slow.held = {"one"}
    replica = a_replica(home, "one")
    saving.watch(replica)
    wait_until(lambda: "one" in slow.waiting)
    saving.finish(replica)
    saving.finish(a_replica(home, "other"))
    wait_until(lambda: finished)  # the thread for who ends has been by
    assert finished == ["other"]
    slow.held = set()
    wait_until(lambda: len(finished) == 2)
    assert len(told.saved["one"]) == 1


def test_many_that_save_and_end_at_once_are_each_saved_and_told_once(
    saving: Checkpointer, told: Told, finished: list[str], store: LocalStore, home: Path
) -> None:
    names = [f"r{n}" for n in range(30)]
    replicas = [a_replica(home, name) for name in names]

    def end(some: list[ReplicaDir]) -> None:
        for replica in some:
            saving.watch(replica)
            saving.finish(replica)

    threads = [threading.Thread(target=end, args=(replicas[turn::3],)) for turn in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(finished) == 30)
    assert sorted(finished) == sorted(names)
    assert [len(told.saved[name]) for name in names] == [1] * 30


def test_a_node_does_without_worn_packs_from_the_next_save_on(
    saving: Checkpointer, told: Told, store: LocalStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trellis.stores.packs.WRITERS", 1)
    kept, saves = os.urandom(200_000), told.saved["one"]
    replica = a_replica(home, "one", kept + os.urandom(2_000_000))
    saving.watch(replica)
    for turn in range(1, 3):
        wait_until(lambda turn=turn: len(saves) == turn)  # type: ignore[misc]
        mark(replica, kept + os.urandom(2_000_000))
    wait_until(lambda: len(saves) == 3)
    first, second, third = saves
    assert set(first.packs) & set(second.packs)
    assert not set(first.packs) & set(third.packs)
    for gone in first.packs:
        store.delete(gone)
    assert b"".join(read_file(store, third.files[0])) == (replica.checkpoints / "state").read_bytes()


def test_a_small_restore_does_not_wait_for_a_large_one(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("large", "small"):
        about = {"marked": True, "step": 1, "metrics": {}}
        store.write(f"manifests/project/{name}", [sign(Manifest((FileEntry(name, ()),), about), SIGNING_KEY)])
    held, real = threading.Event(), LocalStore.read

    def read(self: LocalStore, key: str) -> Any:
        if key.endswith("large"):
            assert held.wait(30)
        return real(self, key)

    monkeypatch.setattr(LocalStore, "read", read)
    url = (home.parent / "store").as_uri()
    for name in ("large", "small"):
        plan = CheckpointPlan(url, PUBLIC, 3600, 1, restore=(f"manifests/project/{name}",), must_restore=True)
        node.run(a_spec(name, script="print('ran')", script_name="job.py", checkpoint=plan))
    assert plane.end_of("small").state is ReplicaState.SUCCEEDED
    assert "large" not in plane.restores
    held.set()
    assert plane.end_of("large").state is ReplicaState.SUCCEEDED
