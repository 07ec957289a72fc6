"""A node that saves checkpoints: real chunks in the store of the stack, and what it then tells the control plane."""

import os
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tests.support.fake_node import FakeNode
from tests.support.stack import Answer, Caller, Stack
from trellis import wire
from trellis.stores.chunks import Saver
from trellis.stores.manifests import Manifest, open_signed
from trellis.stores.packs import read_file
from trellis.vocabulary import Cause, ReplicaState, SaveReason

Files = dict[str, bytes]


def a_saving_job(stack: Stack, caller: Caller, node: FakeNode, **body: Any) -> wire.ReplicaSpec:
    """A job of the caller's that runs on the node and saves checkpoints."""
    wish = {"command": ["true"], "checkpoint": {"every": 60}, "resources": {"cpus": 1}, **body}
    answer = caller.post("/jobs", wish)
    assert answer.status == 201, answer.text
    return started(stack, node, str(answer.json["id"]))


def started(stack: Stack, node: FakeNode, job_id: str) -> wire.ReplicaSpec:
    """The spec of the job's next replica, which runs."""
    stack.run(stack.cycle)
    rows = "SELECT id, fence FROM replicas WHERE job_id = CAST(:job AS uuid) AND ended_at IS NULL"
    (row,) = stack.run(lambda uow: uow.session.execute(text(rows), {"job": job_id}).all())
    (spec,) = node.specs((str(row.id), row.fence))
    node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    return spec


def store_files(
    stack: Stack, spec: wire.ReplicaSpec, files: Files, base: Manifest | None = None, **said: Any
) -> Manifest:
    """Their chunks are in the store; the manifest is not sent yet."""
    token = os.urandom(8).hex()
    prefix = f"packs/{spec.project_id}/{spec.job_id}/{spec.replica_id}-{spec.fence}-{token}"
    saver = Saver(stack.app.extensions["store"], prefix, base)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder) / "file"
            path.write_bytes(content)
            fd = os.open(path, os.O_RDONLY)
            saver.add(name, fd)
            os.close(fd)
    manifest, packs = saver.finish()
    about = {"save": token, "reason": SaveReason.MARKED.value, "step": 1, "metrics": {}, "marked": True}
    return Manifest(manifest.files, {**about, "packs": packs, "new_bytes": saver.new_bytes, **said})


def send(node: FakeNode, spec: wire.ReplicaSpec, manifest: Manifest) -> Answer:
    """Tell the control plane of it."""
    path = f"/agent/replicas/{spec.replica_id}/checkpoints?fence={spec.fence}"
    return node.caller.call("PUT", path, data=manifest.encode())


def save(
    stack: Stack, node: FakeNode, spec: wire.ReplicaSpec, files: Files, base: Manifest | None = None, **said: Any
) -> tuple[str, Manifest]:
    """Store and tell; the checkpoint's id and its manifest."""
    manifest = store_files(stack, spec, files, base, **said)
    answer = send(node, spec, manifest)
    assert answer.status == 200, answer.text
    return answer.json["id"], manifest


def lose(node: FakeNode, spec: wire.ReplicaSpec) -> None:
    """The replica ends because its node was stopped: the job is tried again."""
    node.ship(node.report(spec, ReplicaState.LOST, cause=Cause.NODE_STOPPED))


def contents(stack: Stack, key: str, public_key: str) -> Files:
    """What a restore from that manifest would find."""
    store = stack.app.extensions["store"]
    manifest = open_signed(b"".join(store.read(key)), public_key)
    return {file.path: b"".join(read_file(store, file)) for file in manifest.files}
