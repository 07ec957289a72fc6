"""Pipelines in tests: applied over HTTP, advanced as the control worker would, their jobs ended by a fake node."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.jobs.models import Job, Replica
from app.pipelines import advance, outputs
from app.pipelines.models import PipelineRun
from app.pipelines.outputs import Told
from tests.support.fake_node import FakeNode
from tests.support.stack import Answer, Caller, Stack
from trellis.vocabulary import ReplicaState


def a_stage(name: str, *after: str, **values: Any) -> dict[str, Any]:
    """A stage that does nothing, after those."""
    small = {"cpus": 0.1, "memory": "16MiB"}
    return {"name": name, "after": list(after), "with": {"command": ["true"]}, "resources": small} | values


def a_pipeline(*stages: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """A definition."""
    return {"name": "nightly", "stages": list(stages)} | values


def apply(caller: Caller, *stages: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """Apply one that is good."""
    answer = caller.post("/pipelines", a_pipeline(*stages, **values))
    assert answer.status in (200, 201), answer.text
    found: dict[str, Any] = answer.json
    return found


def faults_of(answer: Answer) -> dict[str, str]:
    """Pointers and messages of a refusal."""
    assert answer.status == 422, answer.text
    return {error["pointer"]: error["message"] for error in answer.json["errors"]}


class Runner:
    """A run that is driven by hand."""

    def __init__(self, stack: Stack, caller: Caller, node: FakeNode, pipeline: Mapping[str, Any], **body: Any) -> None:
        self.stack, self.caller, self.node = stack, caller, node
        answer = caller.post(f"/pipelines/{pipeline['id']}/runs", body)
        assert answer.status == 201, answer.text
        self.id = answer.json["id"]
        self.advance()

    @classmethod
    def of(cls, stack: Stack, caller: Caller, node: FakeNode, run_id: str) -> "Runner":
        """One that is there already."""
        found = cls.__new__(cls)
        found.stack, found.caller, found.node, found.id = stack, caller, node, run_id
        found.advance()
        return found

    def advance(self) -> None:
        """What the task does."""
        advance_run(self.stack, UUID(self.id))

    def shown(self) -> dict[str, Any]:
        """The run as the API shows it."""
        answer = self.caller.get(f"/pipelines/runs/{self.id}")
        assert answer.status == 200, answer.text
        found: dict[str, Any] = answer.json
        return found

    @property
    def state(self) -> str:
        """Of the run."""
        return str(self.shown()["state"])

    @property
    def states(self) -> dict[str, str]:
        """Of its stages."""
        return {stage["name"]: stage["state"] for stage in self.shown()["stages"]}

    def end(self, *names: str, exit_code: int = 0, tell: object = None) -> None:
        """Have the jobs of these names run and end, then advance; `tell` is what they save as their result."""
        self.stack.run(self.stack.cycle)
        for spec in self.node.specs(*self._live(names)):
            states = [ReplicaState.STARTING, ReplicaState.RUNNING]
            last = ReplicaState.FAILED if exit_code else ReplicaState.SUCCEEDED
            if tell is not None:
                save_result(self.node, spec, tell)
            reports = [self.node.report(spec, state) for state in states]
            self.node.ship(*reports, self.node.report(spec, last, exit_code=exit_code))
        self.advance()

    def _live(self, names: tuple[str, ...]) -> list[tuple[str, int]]:
        rows = (
            select(Replica.id, Replica.fence, Job.name)
            .join(Job, Job.id == Replica.job_id)
            .where(Job.workflow_id == UUID(self.id), Replica.ended_at.is_(None))
        )
        found = self.stack.run(lambda uow: uow.session.execute(rows).all())
        missing = set(names) - {name for _, _, name in found}
        assert not missing, f"no job of {missing} runs: {self.shown()}"
        return [(str(replica_id), fence) for replica_id, fence, name in found if name in names]


def save_result(node: FakeNode, spec: Any, value: object) -> None:
    """Have a replica save its result."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    path = f"/agent/replicas/{spec.replica_id}/artifacts?fence={spec.fence}&name=result.json"
    answer = node.caller.call(
        "PUT", path, data=content, headers={"Digest": f"sha-256={hashlib.sha256(content).hexdigest()}"}
    )
    assert answer.status in (200, 201), answer.text


def advance_run(stack: Stack, run_id: UUID) -> None:
    """As `tasks.pipelines.advance_runs` does."""
    results: dict[UUID, Told] = {}
    store = stack.app.extensions["store"]
    while wanted := stack.run(partial(advance.advance, run_id=run_id, results=results)):
        keys = stack.run(partial(outputs.result_keys, job_ids=wanted))
        results |= {job_id: outputs.read_result(store, keys.get(job_id)) for job_id in wanted}


def runs_of(stack: Stack, **columns: Any) -> list[PipelineRun]:
    """Runs by their columns, the first fire time first."""
    found = select(PipelineRun).filter_by(**columns).order_by(PipelineRun.fire_at, PipelineRun.id)
    return stack.run(lambda uow: list(uow.session.execute(found).scalars()))
