"""The client's verbs as Celery tasks by name, for programs that live beside the broker.

Same bodies, same token, same rules and same errors as through HTTP; the tasks (`trellis.jobs.submit`, ...) run on the
control workers and are the only ones of the platform that return a result. Needs `pip install 'trellis[direct]'`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Unpack

from trellis.answers import A, Job, JobArray, Node, Queue, answer
from trellis.errors import Field, Invalid, Unavailable, from_problem
from trellis.nouns.jobs import JobFilters
from trellis.submission import JobBody, as_json
from trellis.transport import flat

try:
    from celery import Celery
    from celery.exceptions import TimeoutError as CeleryTimeout
    from kombu.exceptions import OperationalError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("trellis.direct needs Celery: pip install 'trellis[direct]'", name=error.name) from error

QUEUE = "direct"


class Direct:
    """Talks to the control workers through the broker: `Direct("redis://...", token).jobs.submit(command=[...])`.

    `timeout_s` is how long an answer may take; a request that nobody has taken up by then is dropped.
    """

    def __init__(self, broker_url: str, token: str, *, timeout_s: float = 30.0) -> None:
        self._broker_url, self._token, self._timeout_s = broker_url, token, timeout_s
        self._app = _application(broker_url)
        self.jobs = DirectJobs(self)
        self.queues = DirectQueues(self)
        self.nodes = DirectNodes(self)

    def call(self, task: str, **arguments: Any) -> Any:
        """Send one task and return the body of its answer. Raises TrellisError; Unavailable when none comes."""
        lost: tuple[type[Exception], ...] = (OperationalError, OSError, RuntimeError, *_broker_errors(self._app))
        try:
            return _body(task, self._result(task, {"token": self._token, **arguments}))
        except CeleryTimeout as error:
            raise Unavailable(f"no control worker answered {task} within {self._timeout_s:g} s") from error
        except lost as error:
            # Celery's listener for results does not come back by itself once it gave up: the next call has a new one.
            self._app.close()
            self._app = _application(self._broker_url)
            raise Unavailable(f"the broker can't be reached: {error.__cause__ or error}") from error

    def _result(self, task: str, arguments: dict[str, Any]) -> Any:
        sent = self._app.send_task(
            task,
            kwargs=arguments,
            queue=QUEUE,
            expires=self._timeout_s,
            retry=True,
            retry_policy={"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 1.0},
        )
        # The caller may itself be a task: what it waits for runs on other workers, so this can't lock up.
        found = sent.get(timeout=self._timeout_s, propagate=False, disable_sync_subtasks=False)
        sent.forget()
        return found

    def close(self) -> None:
        """Let go of the connections."""
        self._app.close()


class DirectJobs:
    """`direct.jobs`, in the shape of `client.jobs`."""

    def __init__(self, direct: Direct) -> None:
        self._direct = direct

    def submit(self, **job: Unpack[JobBody]) -> Job:
        """Submit one job. Raises like `client.jobs.submit`."""
        if "array" in job:
            raise Invalid(Field("/array", "makes many jobs: use submit_array"))
        return answer(Job, self._direct.call("trellis.jobs.submit", body=as_json(job)))

    def submit_array(self, **job: Unpack[JobBody]) -> JobArray:
        """Submit one job an index. Raises like `client.jobs.submit_array`."""
        if "array" not in job:
            raise Invalid(Field("/array", "is missing"))
        return answer(JobArray, self._direct.call("trellis.jobs.submit", body=as_json(job)))

    def get(self, job: Job | str, *, verbose: bool = False) -> Job:
        """The job as it is now. Raises NotFound."""
        query = {"verbose": True} if verbose else {}
        return answer(Job, self._direct.call("trellis.jobs.get", id=_id(job), query=query))

    def list(self, **filters: Unpack[JobFilters]) -> Iterator[Job]:
        """Every job that matches, a page at a time."""
        return _pages(self._direct, "trellis.jobs.list", Job, filters)

    def cancel(self, job: Job | str, *, reason: str | None = None, force: bool = False) -> Job:
        """Ask for the job's end. Raises IllegalTransition where it has ended."""
        body = {"action": "cancel", **({"reason": reason} if reason else {}), **({"force": True} if force else {})}
        return answer(Job, self._direct.call("trellis.jobs.cancel", id=_id(job), body=body))

    def suspend(self, job: Job | str, *, reason: str | None = None) -> Job:
        """Have the job stand still. Raises IllegalTransition where it has ended."""
        body = {"action": "suspend", **({"reason": reason} if reason else {})}
        return answer(Job, self._direct.call("trellis.jobs.suspend", id=_id(job), body=body))

    def resume(self, job: Job | str, *, reason: str | None = None) -> Job:
        """Let a suspended job go on. Raises IllegalTransition where it has ended."""
        body = {"action": "resume", **({"reason": reason} if reason else {})}
        return answer(Job, self._direct.call("trellis.jobs.resume", id=_id(job), body=body))

    def retry(self, job: Job | str, *, reason: str | None = None) -> Job:
        """Submit an ended job again, and return the new one."""
        body = {"action": "retry", **({"reason": reason} if reason else {})}
        return answer(Job, self._direct.call("trellis.jobs.retry", id=_id(job), body=body))


class DirectQueues:
    """`direct.queues`."""

    def __init__(self, direct: Direct) -> None:
        self._direct = direct

    def list(self) -> Iterator[Queue]:
        """Every queue that the caller may see."""
        return _pages(self._direct, "trellis.queues.list", Queue, {})


class DirectNodes:
    """`direct.nodes`."""

    def __init__(self, direct: Direct) -> None:
        self._direct = direct

    def list(self) -> Iterator[Node]:
        """Every node."""
        return _pages(self._direct, "trellis.nodes.list", Node, {})


def _pages(direct: Direct, task: str, kind: type[A], filters: Mapping[str, Any]) -> Iterator[A]:
    cursor: str | None = None
    while True:
        page = direct.call(task, query=flat({**filters, "cursor": cursor}))
        for item in page.get("items", ()):
            yield answer(kind, item)
        cursor = page.get("next_cursor")
        if not cursor:
            return


def _application(broker_url: str) -> Celery:
    app = Celery("trellis.direct", broker=broker_url, backend=_backend(broker_url), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=False,
        broker_connection_timeout=5,
        broker_transport_options={"socket_connect_timeout": 5, "socket_timeout": 30},
        result_backend_transport_options={"retry_policy": {"max_retries": 3, "interval_start": 0.1}},
        redis_socket_connect_timeout=5,
    )
    return app


def _broker_errors(app: Celery) -> tuple[type[Exception], ...]:
    """What the library behind the result backend raises when its server is away; each has its own."""
    found: tuple[type[Exception], ...] = tuple(getattr(app.backend, "connection_errors", ()))
    return found


def _backend(broker_url: str) -> str:
    return broker_url if broker_url.startswith(("redis://", "rediss://")) else "rpc://"


def _body(task: str, found: Any) -> Any:
    if not isinstance(found, dict) or "status" not in found:
        # An exception, or something else that no control worker of ours says.
        raise Unavailable(f"{task} failed on its control worker: {type(found).__name__}")
    status, body = int(found["status"]), found.get("body")
    if status >= 400:
        raise from_problem(body if isinstance(body, dict) else {}, status)
    return body


def _id(job: Job | str) -> str:
    return job.id if isinstance(job, Job) else job
