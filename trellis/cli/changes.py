"""`trellis cancel`, `suspend`, `resume`, `migrate`, `give-up`, `retry`."""

from collections.abc import Callable, Container, Iterable
from typing import Annotated

import typer

from trellis.answers import Job
from trellis.cli.context import AsJson, JobWord, here
from trellis.vocabulary import ENDED_JOB_STATES, JobState

JobWords = Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids, or `last`.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the record.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (cancel, suspend, resume, migrate, give_up, retry):
        app.command()(command)


def cancel(
    context: typer.Context,
    jobs: JobWords,
    reason: Reason = None,
    force: Annotated[bool, typer.Option("--force", help="Leave it no time to save.")] = False,
    as_json: AsJson = False,
) -> None:
    """End jobs.

    For example: trellis cancel last --reason "wrong data"
    """
    run = here(context)
    ended = [run.client.jobs.cancel(run.job_id(word), reason=reason, force=force) for word in jobs]
    run.answer(ended, lambda: _say_each(run.say, ended, "is ending", ENDED_JOB_STATES))


def suspend(context: typer.Context, jobs: JobWords, reason: Reason = None, as_json: AsJson = False) -> None:
    """Have jobs stand still: held back where they wait; where they run they keep their memory and nothing else.

    For example: trellis suspend last --reason "the GPU is needed for an hour"
    """
    run = here(context)
    held = [run.client.jobs.suspend(run.job_id(word), reason=reason) for word in jobs]
    run.answer(held, lambda: _say_each(run.say, held, "is coming to rest", {JobState.SUSPENDED}))


def resume(context: typer.Context, jobs: JobWords, reason: Reason = None, as_json: AsJson = False) -> None:
    """Let suspended jobs go on: where they stood if that is free, else in a new attempt.

    For example: trellis resume last
    """
    run = here(context)
    again = [run.client.jobs.resume(run.job_id(word), reason=reason) for word in jobs]
    run.answer(again, lambda: _say_each(run.say, again, "goes on", {JobState.QUEUED, JobState.PENDING}))


def migrate(
    context: typer.Context,
    job: JobWord,
    to: Annotated[str | None, typer.Option(metavar="NODE", help="Where to; anywhere else if not said.")] = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Have a running, checkpointable job go on elsewhere: it saves its state, ends, and waits for its new place.

    For example: trellis migrate last --to gpu-2
    """
    run = here(context)
    found = run.client.jobs.migrate(run.job_id(job), to=to, reason=reason)
    run.answer(found, lambda: run.say(f"Job {found.id} saves its state and moves."))


def give_up(context: typer.Context, job: JobWord, reason: Reason = None, as_json: AsJson = False) -> None:
    """Wait no longer for the silent nodes of a job: it is tried elsewhere.

    For example: trellis give-up last --reason "the machine is at the repair shop"
    """
    run = here(context)
    found = run.client.jobs.give_up(run.job_id(job), reason=reason)
    run.answer(found, lambda: _say_each(run.say, [found], "is ending", frozenset(JobState)))


def _say_each(say: Callable[[str], None], jobs: Iterable[Job], meanwhile: str, done: Container[str]) -> None:
    for job in jobs:
        say(f"Job {job.id} {'is ' + job.state.replace('_', ' ') if job.state in done else meanwhile}.")


def retry(
    context: typer.Context,
    job: JobWord,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Submit an ended job again; prints the new one.

    For example: trellis retry last
    """
    run = here(context)
    made = run.client.jobs.retry(run.job_id(job), reason=reason)
    run.answer(made, lambda: run.say(f"Submitted job {made.id}, a retry of {made.retry_of or job}."))
