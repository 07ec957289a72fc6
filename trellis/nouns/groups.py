"""`client.arrays` and `client.workflows`: many jobs as one."""

from collections.abc import Sequence
from typing import Any

from trellis.answers import JobGroup, Workflow, answer
from trellis.foresight import DryRun
from trellis.submission import StepBody, as_json
from trellis.transport import Call, Transport, path


class Groups:
    """What arrays and workflows have in common. Where one is wanted, a `JobGroup` or its id will do."""

    def __init__(self, transport: Transport, noun: str) -> None:
        self._transport = transport
        self._noun = noun

    def get(self, group: JobGroup | str) -> JobGroup:
        """How many of its jobs are in which state. Raises NotFound."""
        return answer(JobGroup, self._transport.json(Call("GET", path("jobs", self._noun, _id(group)))))

    def cancel(self, group: JobGroup | str, *, reason: str | None = None, force: bool = False) -> JobGroup:
        """Ask for the end of all of it that has not ended; `force` leaves it no time to save."""
        return self._change(group, {"action": "cancel", "reason": reason, "force": force or None})

    def suspend(self, group: JobGroup | str, *, reason: str | None = None) -> JobGroup:
        """Have all of it stand still."""
        return self._change(group, {"action": "suspend", "reason": reason})

    def resume(self, group: JobGroup | str, *, reason: str | None = None) -> JobGroup:
        """Let all of it that is suspended go on."""
        return self._change(group, {"action": "resume", "reason": reason})

    def _change(self, group: JobGroup | str, body: dict[str, Any], *, repeatable: bool = True) -> JobGroup:
        sent = {key: value for key, value in body.items() if value is not None}
        call = Call("PATCH", path("jobs", self._noun, _id(group), "status"), body=sent, repeatable=repeatable)
        return answer(JobGroup, self._transport.json(call))


class Arrays(Groups):
    """Everything about arrays as one; `elements` such as `"0-9,12"` are those that a change concerns, if not all."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "arrays")

    def cancel(
        self, group: JobGroup | str, *, reason: str | None = None, force: bool = False, elements: str | None = None
    ) -> JobGroup:
        """Ask for the end of those that have not ended; `force` leaves them no time to save."""
        return self._change(group, {"action": "cancel", "reason": reason, "force": force or None, "elements": elements})

    def suspend(self, group: JobGroup | str, *, reason: str | None = None, elements: str | None = None) -> JobGroup:
        """Have them stand still."""
        return self._change(group, {"action": "suspend", "reason": reason, "elements": elements})

    def resume(self, group: JobGroup | str, *, reason: str | None = None, elements: str | None = None) -> JobGroup:
        """Let those that are suspended go on."""
        return self._change(group, {"action": "resume", "reason": reason, "elements": elements})

    def retry(self, group: JobGroup | str, *, elements: str | None = None) -> JobGroup:
        """Submit those again that ended without success."""
        # Not repeatable: a second retry would be a second job each.
        return self._change(group, {"action": "retry", "elements": elements}, repeatable=False)


class Workflows(Groups):
    """Everything about workflows."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "workflows")

    def dry_run(self, name: str, jobs: Sequence[StepBody]) -> DryRun:
        """What would happen to a workflow, described as for `submit`. Nothing is changed. Raises as `jobs.dry_run` does."""
        body = {"workflow": {"name": name, "jobs": [as_json(job) for job in jobs]}}
        return answer(DryRun, self._transport.json(Call("POST", "/jobs/dry-run", body=body)))

    def submit(self, name: str, jobs: Sequence[StepBody], *, dry_run: bool = False) -> Workflow:
        """Submit jobs that wait for one another by name: all or none.

            submit("nightly", [{"name": "a", "command": [...]}, {"name": "b", "command": [...], "after": ["a"]}])

        Raises: Invalid that names the cycle, or the job at fault.
        """
        body = {"name": name, "jobs": [as_json(job) for job in jobs], **({"dry_run": True} if dry_run else {})}
        return answer(Workflow, self._transport.json(Call("POST", "/jobs/workflows", body=body)))


def _id(group: JobGroup | str) -> str:
    return group.id if isinstance(group, JobGroup) else group
