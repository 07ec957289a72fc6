"""`client.jobs`: submit, look, wait, read, end."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

from trellis.answers import Artifact, Event, Job, JobArray, LogLine, Metric, Series, answer
from trellis.errors import Field, Invalid
from trellis.foresight import DryRun
from trellis.nouns.artifacts import ArtifactFilters, Artifacts
from trellis.nouns.logs import Follower, read_log
from trellis.nouns.paging import pages
from trellis.submission import JobBody, as_json
from trellis.transport import Call, Transport, path


class JobFilters(TypedDict, total=False):
    """What `list` can narrow by; `sort` is a field, with `-` before it for the other direction."""

    project: str
    state: str | list[str]
    queue: str
    user: str
    name: str
    label: Mapping[str, str]
    array_id: str
    workflow_id: str
    grouped: bool
    submitted_after: datetime | str
    submitted_before: datetime | str
    started_after: datetime | str
    started_before: datetime | str
    ended_after: datetime | str
    ended_before: datetime | str
    sort: str
    limit: int


class LogFilters(TypedDict, total=False):
    """Which lines: the last `tail`, those after the time `since` (or so long ago: "10m"), of one replica, stream or attempt.

    `grep` is a regular expression (RE2) that they match; with `tail`, the last that do.
    """

    tail: int
    since: datetime | str
    replica: int
    stream: str
    attempt: int
    grep: str


class Jobs:
    """Everything about jobs. Where a job is wanted, a `Job` or its id will do."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(self, **job: Unpack[JobBody]) -> Job:
        """Submit one job: `submit(command=["python", "train.py"], resources={"gpus": 1})`.

        Raises: Invalid with the fields at fault; QuotaExceeded; NotFound for a queue or project that is not there.
        """
        if "array" in job:
            raise Invalid(Field("/array", "makes many jobs: use submit_array"))
        return answer(Job, self._post("/jobs", as_json(job)))

    def submit_array(self, **job: Unpack[JobBody]) -> JobArray:
        """Submit one job an index: `submit_array(command=[...], array={"indexes": "0-9"})`. Raises like `submit`."""
        if "array" not in job:
            raise Invalid(Field("/array", "is missing"))
        return answer(JobArray, self._post("/jobs", as_json(job)))

    def submit_batch(self, jobs: Iterable[JobBody]) -> tuple[Job, ...]:
        """Submit up to 1000 jobs in one call, all or none. Raises like `submit`."""
        answered = self._post("/jobs/batch", {"jobs": [as_json(job) for job in jobs]})
        return tuple(answer(Job, item) for item in answered["items"])

    def dry_run(self, **job: Unpack[JobBody]) -> DryRun:
        """What would happen to a job or an array, described as for `submit`: how it would be stored, whether a quota refuses
        it, where and when it would start and why there, what it would hold. Nothing is changed.

        Raises: Invalid with the fields at fault as `submit` does; RateLimited while another such question is answered.
        """
        return answer(DryRun, self._post("/jobs/dry-run", {"job": as_json(job)}))

    def dry_run_batch(self, jobs: Iterable[JobBody]) -> DryRun:
        """The same for up to 1000 jobs, beside one another. Raises likewise."""
        return answer(DryRun, self._post("/jobs/dry-run", {"jobs": [as_json(job) for job in jobs]}))

    def get(self, job: Job | str, *, verbose: bool = False) -> Job:
        """The job as it is now; `verbose` adds its spec, dependencies and attempts. Raises NotFound."""
        params = {"verbose": "true"} if verbose else {}
        return answer(Job, self._transport.json(Call("GET", path("jobs", _id(job)), params)))

    def list(self, **filters: Unpack[JobFilters]) -> Iterator[Job]:
        """Every job that matches, fetched page by page as it is used (`limit` is the size of a page)."""
        return pages(self._transport, "/jobs", Job, filters)

    def wait(self, job: Job | str, timeout: float | None = None) -> Job:
        """Wait until the job has ended, and return it as it ended.

        Raises: TimeoutError after `timeout` seconds; the job goes on.
        """
        follower = Follower(self._transport, _id(job), {"stream": "system", "tail": 1})
        if not follower.until_end(timeout):
            raise TimeoutError(f"job {_id(job)} has not ended within {timeout:g} s")
        return self.get(job)

    def logs(self, job: Job | str, *, follow: bool = False, **filters: Unpack[LogFilters]) -> Iterator[LogLine]:
        """The job's lines; with `follow` also those to come, until it ends. A broken connection is taken up again."""
        if follow:
            return Follower(self._transport, _id(job), filters).lines()
        return read_log(self._transport, _id(job), filters)

    def cancel(self, job: Job | str, *, reason: str | None = None, force: bool = False) -> Job:
        """Ask for the job's end; `force` leaves it no time to save. Raises IllegalTransition where it has ended."""
        return self._change(job, {"action": "cancel", "reason": reason, "force": force or None}, repeatable=True)

    def suspend(self, job: Job | str, *, reason: str | None = None) -> Job:
        """Hold a job back, or, where it runs, hold its processes still and give back what it held.

        Raises: IllegalTransition where it has ended.
        """
        return self._change(job, {"action": "suspend", "reason": reason}, repeatable=True)

    def resume(self, job: Job | str, *, reason: str | None = None) -> Job:
        """Let a suspended job go on: where it stood if that is still free, else in a new attempt.

        Raises: IllegalTransition where it has ended.
        """
        return self._change(job, {"action": "resume", "reason": reason}, repeatable=True)

    def migrate(self, job: Job | str, *, to: str | None = None, reason: str | None = None) -> Job:
        """Have a running checkpointable job go on elsewhere: on the node `to`, or on any but its own.

        Raises: IllegalTransition where it does not run, Conflict where it is not checkpointable, Invalid for `to`.
        """
        return self._change(job, {"action": "migrate", "to": to, "reason": reason}, repeatable=False)

    def give_up(self, job: Job | str, *, reason: str | None = None) -> Job:
        """Wait no longer for the job's silent nodes: it is tried elsewhere. Raises Conflict where none is silent."""
        return self._change(job, {"action": "give_up", "reason": reason}, repeatable=False)

    def retry(self, job: Job | str, *, reason: str | None = None) -> Job:
        """Submit an ended job again, and return the new one. Raises IllegalTransition for one that has not ended."""
        # Not repeatable: a second retry would be a second job.
        return self._change(job, {"action": "retry", "reason": reason}, repeatable=False)

    def events(self, job: Job | str, *, kind: str | None = None) -> Iterator[Event]:
        """What happened to the job, page by page."""
        return pages(self._transport, path("jobs", _id(job), "events"), Event, {"kind": kind})

    def metrics(self, job: Job | str) -> dict[str, Metric]:
        """The latest value of every metric that the job reported."""
        answered = self._transport.json(Call("GET", path("jobs", _id(job), "metrics")))
        return {name: answer(Metric, {"name": name, **point}) for name, point in answered["latest"].items()}

    def metric(self, job: Job | str, name: str, *, limit: int | None = None) -> tuple[Metric, ...]:
        """The values of one metric, oldest first; as many as the server gives at once, or `limit`."""
        answered = self._transport.json(Call("GET", path("jobs", _id(job), "metrics"), {"name": name, "limit": limit}))
        return tuple(answer(Metric, {"name": name, **point}) for point in answered["points"])

    def series(
        self, job: Job | str, names: Sequence[str] | None = None, *, start: datetime | None = None,
        end: datetime | None = None, resolution: int | None = None, agg: str = "mean", replica: int | None = None,
        each_replica: bool = False,
    ) -> tuple[Series, ...]:  # fmt: skip
        """Metrics over time, one point for each `resolution` seconds (as many as suit the time, if not said).

        `names` are all of them if not said; `trellis/...` are what the platform measured. `agg` is mean, min, max, sum
        or last. With `each_replica` there is one series a name and replica. `series.rows` are its points as dictionaries.
        Raises Invalid for a resolution that gives too many points.
        """
        wanted = {"names": names, "from": start, "to": end, "resolution": resolution, "agg": agg, "replica": replica}
        wanted |= {"each_replica": "true"} if each_replica else {}
        answered = self._transport.json(Call("GET", path("jobs", _id(job), "metrics", "series"), wanted))
        said = {"agg": answered["agg"], "resolution_s": answered["resolution_s"]}
        return tuple(answer(Series, {**said, **series}) for series in answered["items"])

    def artifacts(self, job: Job | str, **filters: Unpack[ArtifactFilters]) -> Iterator[Artifact]:
        """The files beside the job's results, by name; see `client.artifacts` for what else can be done with them."""
        return Artifacts(self._transport).list(job, **filters)

    def download(self, job: Job | str, artifact: Artifact | str, to: Path | str) -> Path:
        """Fetch one of the job's files (an `Artifact` or its id) to the path `to`; it is whole there or absent."""
        return Artifacts(self._transport).download(job, artifact, to)

    def _post(self, where: str, body: dict[str, Any]) -> Any:
        return self._transport.json(Call("POST", where, body=body))

    def _change(self, job: Job | str, body: dict[str, Any], *, repeatable: bool) -> Job:
        sent = {key: value for key, value in body.items() if value is not None}
        call = Call("PATCH", path("jobs", _id(job), "status"), body=sent, repeatable=repeatable)
        return answer(Job, self._transport.json(call))


def _id(job: Job | str) -> str:
    return job.id if isinstance(job, Job) else str(job)
