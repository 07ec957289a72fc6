"""Real jobs that save, on a real node: at each level that keeps files from a job, and against what jobs try."""

import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import trees
from agent.checkpoint_folder import CheckpointFolder
from agent.checkpointing import Checkpointer
from agent.layout import ReplicaDir, write_json
from agent.link import Link
from tests.integration.agent.conftest import Node
from tests.support.agent_api import SIGNING_KEY, ControlPlane, a_spec, wait_until
from trellis.errors import Conflict, StaleFence
from trellis.stores.local import LocalStore
from trellis.stores.manifests import FileEntry, Manifest, sign
from trellis.stores.packs import CorruptChunk, read_file
from trellis.stores.urls import SIGN
from trellis.vocabulary import ReplicaState, StopReason
from trellis.wire import CheckpointPlan, ReplicaSpec, Restored, Save, pack

PUBLIC = SIGNING_KEY.public_key().public_bytes_raw().hex()


@pytest.fixture
def store(plane: ControlPlane, home: Path) -> LocalStore:
    plane.store = LocalStore(home.parent / "store")
    plane.store.write(SIGN, [b"here"])
    return plane.store


def a_plan(home: Path, **changes: Any) -> CheckpointPlan:
    usual: dict[str, Any] = {"every_s": 3600, "settle_s": 1}
    return CheckpointPlan((home.parent / "store").as_uri(), PUBLIC, **usual | changes)


def a_saver(name: str, home: Path, script: str, plan: CheckpointPlan | None = None, **changes: Any) -> ReplicaSpec:
    text = textwrap.dedent(script)
    return a_spec(name, script=text, script_name="job.py", checkpoint=plan or a_plan(home), **changes)


def contents(store: LocalStore, manifest: Manifest) -> dict[str, bytes]:
    return {file.path: b"".join(read_file(store, file)) for file in manifest.files}


def test_a_program_saves_and_the_next_one_goes_on(
    confined_node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    script = """
        from trellis.runtime import checkpoint
        found = checkpoint.latest()
        print("found", found and (found.step, dict(found.metrics), found.state()))
        step = (found.step if found else 0) + 1
        checkpoint.save({"step": step, "nested": [(1.5, None), {"a": True, 7: "x"}]}, step=step, metrics={"loss": 0.5})
        """
    confined_node.run(a_saver("first", home, script))
    assert plane.end_of("first").state is ReplicaState.SUCCEEDED
    (manifest,) = plane.saved["first"]
    assert (manifest.about["step"], manifest.about["metrics"]) == (1, {"loss": 0.5})
    plan = a_plan(home, restore=("manifests/project/first-1",), base="manifests/project/first-1")
    confined_node.run(a_saver("second", home, script, plan))
    assert plane.end_of("second").state is ReplicaState.SUCCEEDED
    state = "{'step': 1, 'nested': [(1.5, None), {'a': True, 7: 'x'}]}"
    assert plane.lines("first") == ["found None"]
    assert plane.lines("second") == [f"found (1, {{'loss': 0.5}}, {state})"]
    assert plane.restores["second"].key == "manifests/project/first-1"
    assert [one.about["step"] for one in plane.saved["second"]] == [2]


def test_a_program_that_knows_nothing_of_us_is_saved_when_its_folder_rests(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    script = """
        import os, time
        folder = os.environ["TRELLIS_CHECKPOINT_DIR"]
        for number in range(20):
            with open(f"{folder}/model.pt", "ab") as file:
                file.write(b"part")
            time.sleep(0.1)
        print("still", flush=True)
        time.sleep(60)
        """
    node.run(a_saver("unaware", home, script, a_plan(home, every_s=1)))
    wait_until(lambda: plane.saved["unaware"])
    assert plane.lines("unaware") == ["still"]  # not while it was still writing
    assert contents(store, plane.saved["unaware"][0]) == {"model.pt": b"part" * 20}
    assert plane.saved["unaware"][0].about["reason"] == "interval"
    plane.wish_end("unaware", StopReason.CANCELLED, 0)
    plane.end_of("unaware")
    assert len(plane.saved["unaware"]) == 1


def test_what_a_killed_program_was_writing_is_not_taken_for_a_checkpoint(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    script = """
        import os, time
        with open(os.environ["TRELLIS_CHECKPOINT_DIR"] + "/half", "wb", buffering=0) as file:
            file.write(b"half of it")
            print("writing", flush=True)
            time.sleep(60)
        """
    node.run(a_saver("torn", home, script))
    wait_until(lambda: plane.lines("torn"))
    plane.wish_end("torn", StopReason.PREEMPTED, 0)
    assert plane.end_of("torn").state is ReplicaState.PREEMPTED
    assert plane.saved["torn"] == []


def test_a_program_that_must_make_room_is_asked_to_save_first_and_then_told_to_end(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    script = """
        import time
        from trellis.runtime import checkpoint
        step = 0
        while True:
            step += 1
            if checkpoint.requested():
                print("asked", flush=True)
                checkpoint.save({"step": step}, step=step)
            elif step == 1:
                print("ready", flush=True)
            time.sleep(0.02)
        """
    node.run(a_saver("evicted", home, script))
    wait_until(lambda: plane.lines("evicted"))
    plane.wish_end("evicted", StopReason.PREEMPTED, 30)
    ended = plane.end_of("evicted", within_s=20)  # long before its grace is over
    assert ended.state is ReplicaState.PREEMPTED
    assert plane.lines("evicted")[:2] == ["ready", "asked"]
    assert plane.saved["evicted"][-1].about["step"] > 1


def test_a_save_on_demand_is_marked_as_asked(node: Node, plane: ControlPlane, store: LocalStore, home: Path) -> None:
    script = """
        import time
        from trellis.runtime import checkpoint
        print("ready", checkpoint.requested(), flush=True)
        while True:
            if checkpoint.requested():
                checkpoint.save({"x": 1})
            time.sleep(0.02)
        """
    node.run(a_saver("asked", home, script))
    wait_until(lambda: plane.lines("asked"))
    plane.saves = (Save("asked", 1),)
    wait_until(lambda: plane.saved["asked"])
    plane.saves = ()
    assert plane.saved["asked"][0].about["reason"] == "asked"
    plane.wish_end("asked", StopReason.CANCELLED, 0)
    plane.end_of("asked")


def test_links_devices_and_pipes_in_the_folder_are_left_out(
    confined_node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    script = """
        import os
        folder = os.environ["TRELLIS_CHECKPOINT_DIR"]
        os.symlink("/etc/passwd", f"{folder}/passwd")
        os.symlink("/", f"{folder}/root")
        os.symlink("..", f"{folder}/up")
        os.mkfifo(f"{folder}/pipe")
        os.makedirs(f"{folder}/deep/er")
        open(f"{folder}/deep/er/good", "w").write("good")
        os.symlink("/etc/hostname", f"{folder}/.half")
        open(f"{folder}/.half2", "w").write('{"step": 3}')
        os.rename(f"{folder}/.half2", f"{folder}/.complete")
        """
    confined_node.run(a_saver("hostile", home, script))
    assert plane.end_of("hostile").state is ReplicaState.SUCCEEDED
    (manifest,) = plane.saved["hostile"]
    assert contents(store, manifest) == {"deep/er/good": b"good"}
    assert manifest.about["step"] == 3


def test_a_folder_that_the_job_replaced_by_a_link_leads_nowhere(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    secret = home.parent / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (secret / ".complete").write_text("{}")
    script = f"""
        import os
        folder = os.environ["TRELLIS_CHECKPOINT_DIR"]
        try:
            os.rename(folder, folder + "-away")
            os.symlink({str(secret)!r}, folder)
            os.symlink({str(secret / "planted")!r}, os.path.dirname(folder) + "/checkpoint.asked")
        except OSError as error:
            print("kept", error.strerror)
        """
    node.run(a_saver("linked", home, script))
    assert plane.end_of("linked").state is ReplicaState.SUCCEEDED
    assert plane.saved["linked"] == []
    assert sorted(path.name for path in secret.iterdir()) == [".complete", "key"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    script = """
        from trellis.runtime import checkpoint
        found = checkpoint.latest()
        print("found", found and found.state())
        if not found:
            import time, os
            checkpoint.save({"n": 1}, step=1)
            while not os.path.exists("/tmp/never") and not checkpoint.requested():
                time.sleep(0.02)
            checkpoint.save({"n": 2, "random": os.urandom(1000).hex()}, step=2)
        """
    node.run(a_saver("first", home, script))
    wait_until(lambda: plane.saved["first"])
    plane.saves = (Save("first", 1),)
    plane.end_of("first")
    plane.saves = ()
    good, bad = plane.saved["first"][0], plane.saved["first"][-1]
    own = next(pack for pack in bad.packs if pack not in good.packs)
    path = home.parent / "store" / own
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    keys = tuple(f"manifests/project/first-{n}" for n in (len(plane.saved["first"]), 1))
    node.run(a_saver("second", home, script, a_plan(home, restore=keys)))
    assert plane.end_of("second").state is ReplicaState.SUCCEEDED
    assert plane.lines("second") == ["found {'n': 1}"]
    told = plane.restores["second"]
    assert told.key == keys[1]
    assert told.faults[0].startswith(f"{keys[0]} ")
    assert "damaged" in told.faults[0]


def test_what_was_damaged_is_not_built_upon(node: Node, plane: ControlPlane, store: LocalStore, home: Path) -> None:
    script = """
        import os, random
        folder = os.environ["TRELLIS_CHECKPOINT_DIR"]
        step = 1 + os.path.exists(f"{folder}/1")
        open(f"{folder}/{step}", "wb").write(random.Random(step).randbytes(300_000))
        """
    node.run(a_saver("first", home, script))
    plane.end_of("first")
    node.run(a_saver("second", home, script, a_plan(home, restore=_keys("first"), base=_keys("first")[0])))
    plane.end_of("second")
    for key in set(plane.saved["second"][0].packs) - set(plane.saved["first"][0].packs):
        path = home.parent / "store" / key
        path.write_bytes(bytes(path.stat().st_size))
    plan = a_plan(home, restore=_keys("second", "first"), base=_keys("second")[0])
    node.run(a_saver("third", home, script, plan))
    plane.end_of("third")
    assert plane.restores["third"].key == _keys("first")[0]
    assert set(contents(store, plane.saved["third"][0])) == {"1", "2"}


def _keys(*names: str) -> tuple[str, ...]:
    return tuple(f"manifests/project/{name}-1" for name in names)


def test_what_is_restored_is_the_jobs_only_when_all_of_it_is_there(
    make_node: Callable[..., Node], plane: ControlPlane, store: LocalStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node()
    node.run(a_saver("first", home, "from trellis.runtime import checkpoint; checkpoint.save({'n': 1})"))
    plane.end_of("first")
    given: list[tuple[str, list[str]]] = []

    def give(path: str, *_: int, follow_symlinks: bool) -> None:
        assert not follow_symlinks
        written = sorted(name for _, _, files in os.walk(home / "restored") for name in files)
        given.append((Path(path).name, written))

    monkeypatch.setattr(node.daemon._restorer, "_uid", os.getuid())
    monkeypatch.setattr("agent.restoring.os.chown", give)
    node.run(a_saver("second", home, "print('ran')", a_plan(home, restore=_keys("first"))))
    assert plane.end_of("second").state is ReplicaState.SUCCEEDED
    assert {name for name, _ in given} == {".complete", "checkpoint.json", "state.json", "saved-1", "checkpoints"}
    assert {tuple(written) for _, written in given} == {(".complete", "checkpoint.json", "state.json")}
    assert given[-1][0] == "checkpoints"
    assert list((home / "restored").iterdir()) == []


def test_a_restore_that_fails_on_the_nodes_own_disk_leaves_nothing_there(
    make_node: Callable[..., Node], plane: ControlPlane, store: LocalStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node()
    node.run(a_saver("first", home, "from trellis.runtime import checkpoint; checkpoint.save({'n': 1})"))
    plane.end_of("first")
    tried = []

    def full(*_: object) -> None:
        tried.append(plane.wanted.pop("second"))  # asked for no second time
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("agent.restoring.read_file", full)
        node.run(a_saver("second", home, "print('ran')", a_plan(home, restore=_keys("first"))))
        wait_until(lambda: tried and not list((home / "restored").iterdir()))
    node.run(*tried)
    assert plane.end_of("second").state is ReplicaState.SUCCEEDED
    assert plane.restores["second"] == Restored(1, _keys("first")[0])


def test_a_store_that_goes_away_during_a_restore_damages_nothing(
    make_node: Callable[..., Node], plane: ControlPlane, store: LocalStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node()
    node.run(a_saver("first", home, "from trellis.runtime import checkpoint; checkpoint.save({'n': 1})"))
    plane.end_of("first")
    sign = home.parent / "store" / SIGN

    def gone(*_: object) -> None:
        sign.rename(sign.with_name("away"))
        raise CorruptChunk("a pack is missing")

    with monkeypatch.context() as patch:
        patch.setattr("agent.restoring.read_file", gone)
        node.run(a_saver("second", home, "print('ran')", a_plan(home, restore=_keys("first"))))
        wait_until(lambda: not sign.exists())
    sign.with_name("away").rename(sign)
    assert plane.end_of("second").state is ReplicaState.SUCCEEDED
    assert plane.restores["second"] == Restored(1, _keys("first")[0])


@pytest.mark.parametrize("path", [".complete", "a\nb"])
def test_a_manifest_with_odd_names_keeps_nobody_waiting(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path, path: str
) -> None:
    odd = Manifest((FileEntry(path, ()),), {"marked": True, "step": 1, "metrics": {}})
    store.write("manifests/project/odd", [sign(odd, SIGNING_KEY)])
    node.run(a_saver("odd", home, "print('ran')", a_plan(home, restore=("manifests/project/odd",))))
    assert plane.end_of("odd").state is ReplicaState.SUCCEEDED


def a_checkpointer(home: Path, told: Callable[[CheckpointFolder], None]) -> tuple[Checkpointer, ReplicaDir, list[Any]]:
    """One that was not started, a replica of its, and the manifests that it sends; `told` is called at each."""
    replica = ReplicaDir(home / "r.1", "r", 1)
    replica.checkpoints.mkdir(parents=True)
    plan = {"plan": pack(a_plan(home)), "project": "project", "job": "job", "restored": ""}
    write_json(replica.plan, {**plan, "marker": "", "fingerprint": ""})
    sent: list[Any] = []

    class Told(Link):
        def save_checkpoint(self, replica_id: str, fence: int, manifest: bytes) -> str:
            sent.append(Manifest.decode(manifest))
            told(CheckpointFolder(replica))
            return "manifests/project/none"

    saving = Checkpointer(Told("http://127.0.0.1:1"), lambda: None, lambda _: None)
    saving.watch(replica)
    return saving, replica, sent


def mark(replica: ReplicaDir, step: int) -> None:
    half = replica.checkpoints / ".half"
    half.write_text(f'{{"step": {step}}}')
    half.rename(replica.checkpoints / ".complete")


def look(saving: Checkpointer, replica: ReplicaDir) -> bool:
    return saving._look(saving._watched[replica.path.name])


def test_what_was_marked_while_an_earlier_one_was_told_is_saved_by_the_next_daemon(
    store: LocalStore, home: Path
) -> None:
    saving, replica, sent = a_checkpointer(home, lambda _: mark(replica, 2))
    (replica.checkpoints / "a").write_text("1")
    mark(replica, 1)
    look(saving, replica)
    again, _, more = a_checkpointer(home / "other", lambda _: None)
    again._watched.clear()
    again.watch(replica)
    look(again, replica)
    assert [one.about["step"] for one in (*sent, *more)] == [1, 2]


def test_what_a_program_takes_away_while_it_is_read_is_stored_whole_or_not_at_all(
    store: LocalStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving, replica, sent = a_checkpointer(home, lambda _: None)

    def save(step: int) -> None:
        folder = replica.checkpoints / f"saved-{step}"
        folder.mkdir()
        for name in "abc":
            (folder / name).write_bytes(os.urandom(100))
        mark(replica, step)
        if step > 1:
            shutil.rmtree(replica.checkpoints / f"saved-{step - 1}")

    real, steps = trees.open_files, iter((2, 3))

    def while_it_saves(*args: Any) -> Any:
        for name, file in real(*args):
            yield name, file
            if name.endswith("a") and (step := next(steps, 0)):
                save(step)

    save(1)
    monkeypatch.setattr("agent.checkpointing.trees.open_files", while_it_saves)
    wait_until(lambda: look(saving, replica) or sent)
    assert [file.path for file in sent[0].files] == [f"saved-{sent[0].about['step']}/{name}" for name in "abc"]
    assert set(contents(store, sent[0])) == {file.path for file in sent[0].files}


def test_what_is_overwritten_once_it_was_marked_is_not_what_was_marked(store: LocalStore, home: Path) -> None:
    saving, replica, sent = a_checkpointer(home, lambda _: None)
    model = replica.checkpoints / "model"
    model.write_text("1")
    mark(replica, 1)
    os.utime(replica.checkpoints / ".complete", (1, 1))
    wait_until(lambda: model.write_text("half of 2") and model.stat().st_ctime_ns > marked_at(replica))
    look(saving, replica)
    assert sent == []
    mark(replica, 2)
    wait_until(lambda: look(saving, replica) or sent)
    assert [one.about["step"] for one in sent] == [2]


def marked_at(replica: ReplicaDir) -> int:
    return (replica.checkpoints / ".complete").stat().st_ctime_ns


def test_the_last_save_of_a_program_that_was_unlucky_before_has_all_its_tries(store: LocalStore, home: Path) -> None:
    answers: list[Exception] = [Conflict("gone")]
    answers[0].code = "packs_gone"  # type: ignore[attr-defined]

    def refuse(_: CheckpointFolder) -> None:
        if answers:
            raise answers.pop()

    saving, replica, sent = a_checkpointer(home, refuse)
    saving._watched[replica.path.name].tries = 7
    (replica.checkpoints / "a").write_text("1")
    mark(replica, 1)
    saving.finish(replica)
    assert not look(saving, replica)
    assert look(saving, replica)
    assert len(sent) == 2


def test_a_save_that_comes_too_late_is_not_made_again_and_again(store: LocalStore, home: Path) -> None:
    def refuse(_: CheckpointFolder) -> None:
        raise StaleFence("it is over")

    saving, replica, sent = a_checkpointer(home, refuse)
    (replica.checkpoints / "a").write_text("1")
    mark(replica, 1)
    saving.finish(replica)
    assert look(saving, replica)
    assert len(sent) == 1
    assert list(store.find("packs")) == []


def test_a_store_that_this_node_has_no_library_for_is_said_and_holds_up_no_end(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    plan = CheckpointPlan("gs://bucket/prefix", PUBLIC, 3600, 1)
    node.run(a_saver("remote", home, "from trellis.runtime import checkpoint; checkpoint.save({'n': 1})", plan))
    assert plane.end_of("remote").state is ReplicaState.SUCCEEDED
    assert "trellis[gcs]" in plane.save_faults[0]


def test_more_folders_than_anybody_can_look_at_are_said_and_hold_up_no_end(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    script = """
        import os
        folder = os.environ["TRELLIS_CHECKPOINT_DIR"]
        for number in range(101):
            for below in range(1000):
                os.makedirs(f"{folder}/{number}/{below}")
        open(f"{folder}/z", "w").write("z")
        """
    node.run(a_saver("wide", home, script))
    assert plane.end_of("wide", within_s=60).state is ReplicaState.SUCCEEDED
    assert "files and folders" in plane.save_faults[0]
    assert plane.saved["wide"] == []


def test_a_name_that_is_no_text_is_said(node: Node, plane: ControlPlane, store: LocalStore, home: Path) -> None:
    script = """
        import os
        open(os.environ["TRELLIS_CHECKPOINT_DIR"].encode() + b"/\\xff", "w").write("z")
        """
    node.run(a_saver("odd", home, script))
    assert plane.end_of("odd").state is ReplicaState.SUCCEEDED
    assert "udcff" in plane.save_faults[0]


def test_a_forged_manifest_is_of_no_use(node: Node, plane: ControlPlane, store: LocalStore, home: Path) -> None:
    store.write("manifests/project/forged", [b'{"form": "trellis-checkpoint-1", "signature": "00"}\nnothing'])
    script = "from trellis.runtime import checkpoint; print('found', checkpoint.latest())"
    node.run(a_saver("fresh", home, script, a_plan(home, restore=("manifests/project/forged",))))
    assert plane.end_of("fresh").state is ReplicaState.SUCCEEDED
    assert plane.lines("fresh") == ["found None"]
    assert plane.restores["fresh"].key == ""
    assert "signature" in plane.restores["fresh"].faults[0]


def test_a_store_that_is_full_is_said_and_costs_the_job_nothing(
    make_node: Callable[..., Node], plane: ControlPlane, store: LocalStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    script = """
        from trellis.runtime import checkpoint
        checkpoint.save({"x": 1}, step=1)
        """
    monkeypatch.setattr(LocalStore, "write", full)
    node.run(a_saver("full", home, script))
    assert plane.end_of("full").state is ReplicaState.SUCCEEDED
    assert plane.saved["full"] == []
    said = "a checkpoint was not stored: No space left on device; the one before it stays the latest"
    assert said in plane.lines("full", "s")
    assert said in plane.save_faults


def test_what_is_built_upon_deleted_chunks_is_stored_anew(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    plane.refuse_saves = [(503, "unavailable"), (409, "packs_gone")]
    node.run(a_saver("again", home, "from trellis.runtime import checkpoint; checkpoint.save({'x': 1}, step=1)"))
    assert plane.end_of("again").state is ReplicaState.SUCCEEDED
    (manifest,) = plane.saved["again"]
    assert set(contents(store, manifest)) == {"saved-1/checkpoint.json", "saved-1/state.json"}


def test_a_job_without_checkpoints_says_how_to_have_them(node: Node, plane: ControlPlane) -> None:
    script = "from trellis.runtime import checkpoint; checkpoint.save({'x': 1})"
    node.run(a_spec("plain", script=script, script_name="job.py"))
    assert plane.end_of("plain").exit_code == 1
    assert "NotCheckpointed" in plane.lines("plain", "e")[-1]
    assert "--checkpoint" in plane.lines("plain", "e")[-1]


def test_a_store_that_is_not_mounted_is_waited_for_and_no_checkpoint_counts_as_damaged(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    script = """
        from trellis.runtime import checkpoint
        found = checkpoint.latest()
        print("found", found and found.step)
        checkpoint.save({"n": 1}, step=(found.step if found else 0) + 1)
        """
    node.run(a_saver("first", home, script))
    plane.end_of("first")
    (home.parent / "store").rename(home.parent / "unmounted")
    (home.parent / "store").mkdir()
    plan = a_plan(home, restore=("manifests/project/first-1",))
    node.run(a_saver("second", home, script, plan))
    beats = len(plane.heartbeats)
    wait_until(lambda: len(plane.heartbeats) > beats + 5)
    assert not plane.reports["second"]
    (home.parent / "store").rmdir()
    (home.parent / "unmounted").rename(home.parent / "store")
    assert plane.end_of("second").state is ReplicaState.SUCCEEDED
    assert plane.lines("second") == ["found 1"]
    assert plane.restores["second"].faults == ()


def test_a_daemon_that_is_started_again_goes_on_saving_upon_what_was_saved(
    node: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    script = """
        import os, time
        from trellis.runtime import checkpoint
        state = {"big": os.urandom(500_000).hex()}
        for step in range(1, 500):
            checkpoint.save({**state, "step": step}, step=step)
            time.sleep(0.1)
        """
    node.run(a_saver("lasting", home, script))
    wait_until(lambda: plane.saved["lasting"])
    node.daemon.stop()
    before = len(plane.saved["lasting"])
    node.start()
    wait_until(lambda: len(plane.saved["lasting"]) > before)
    later = plane.saved["lasting"][before]
    assert later.about["step"] > plane.saved["lasting"][before - 1].about["step"]
    assert later.about["new_bytes"] < 500_000  # all but the step is known
    plane.wish_end("lasting", StopReason.CANCELLED, 0)
    plane.end_of("lasting")
