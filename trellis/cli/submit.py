"""`trellis submit`: a command, a script, or a batch script of Slurm."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from trellis import sbatch
from trellis.answers import Job, JobArray
from trellis.cli import directories, dry_runs, logs
from trellis.cli.context import FAILED, AsJson, Here, here
from trellis.cli.options import (
    checkpoints,
    codes,
    counted,
    dependencies,
    one_or_many,
    pairs,
    rules,
    switches,
    terms,
    topology,
    warning,
    when,
)
from trellis.cli.text import span
from trellis.errors import Field, Invalid
from trellis.units import parse_seconds
from trellis.vocabulary import (
    CheckpointBy,
    HangAction,
    JobState,
    NetworkPolicy,
    OnNodeLost,
    OnReplicaFailure,
    OnResize,
    PullPolicy,
    Strategy,
)

TIMED_OUT = 124
CANCELLED = 130
_LARGEST_SCRIPT = 2**20
_AFTER_DASHES = "trellis.after_dashes"


class SubmitCommand(TyperCommand):
    """Keeps what follows `--` as it stands: before it may come a file, and after it a command or arguments."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Hide the words after `--` from the option parser."""
        if "--" in args:
            cut = args.index("--")
            args, ctx.meta[_AFTER_DASHES] = args[:cut], args[cut + 1 :]
        return super().parse_args(ctx, args)


@dataclass(frozen=True, slots=True)
class Source:
    """What to run: a file with arguments, or a command."""

    file: Path | None
    words: tuple[str, ...]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=SubmitCommand)(submit)


def submit(  # one parameter an option, that is how Typer declares them
    context: typer.Context,
    file: Annotated[
        list[str] | None, typer.Argument(metavar="FILE | -- COMMAND", help="A script to send, or a command.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", "-J", help="What to call it.")] = None,
    project: Annotated[str | None, typer.Option("--project", "-A", help="Name or id; yours if you have one.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", "-p", help="Where it waits.")] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", "-G", help="Devices a replica, such as 1 or 0.5.")] = None,
    gpu_type: Annotated[str | None, typer.Option(help="Their type, such as H100, or H100,A100.")] = None,
    mig_profile: Annotated[str | None, typer.Option(help="A slice of a device, such as 2g.20gb.")] = None,
    cpus: Annotated[str | None, typer.Option("--cpus", "-c", help="Cores a replica, such as 2 or 500m.")] = None,
    mem: Annotated[str | None, typer.Option("--mem", help="Memory a replica, such as 16GiB.")] = None,
    time: Annotated[str | None, typer.Option("--time", "-t", help="Longest run, such as 90s, 2h, 1-12:00:00.")] = None,
    priority: Annotated[int | None, typer.Option(help="From -1000 to 1000; higher goes first.")] = None,
    replicas: Annotated[
        str | None, typer.Option("--replicas", "-N", help="Started together or not at all: 4, or from 2 to 8 as 2-8.")
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option("--constraint", "-C", help="Labels of nodes: disk, !disk, zone=north,south, cores>8."),
    ] = None,
    tolerate: Annotated[list[str] | None, typer.Option(help="Taints that are no obstacle: KEY or KEY=VALUE.")] = None,
    pool: Annotated[str | None, typer.Option(help="Nodes of this pool or one within it.")] = None,
    exclusive: Annotated[bool, typer.Option("--exclusive", help="Nodes with nothing else on them.")] = False,
    within: Annotated[str | None, typer.Option(help="All replicas in one domain of this level, such as rack.")] = None,
    near: Annotated[str | None, typer.Option(help="The same where it can be.")] = None,
    strategy: Annotated[Strategy | None, typer.Option(help="Which of equally liked places.")] = None,
    no_preempt: Annotated[bool, typer.Option("--no-preempt", help="It is not evicted for a higher priority.")] = False,
    checkpointable: Annotated[bool, typer.Option("--checkpointable", help="It goes on where it was.")] = False,
    checkpoint: Annotated[bool, typer.Option("--checkpoint", help="It saves what it can go on from.")] = False,
    checkpoint_every: Annotated[str | None, typer.Option(help="The same, asked for so often, such as 10m.")] = None,
    checkpoint_by: Annotated[
        CheckpointBy | None,
        typer.Option(help="Of several replicas: the first saves, all save parts, or each for itself."),
    ] = None,
    from_checkpoint: Annotated[str | None, typer.Option(help="Go on from this one of another job.")] = None,
    or_fresh: Annotated[bool, typer.Option("--or-fresh", help="Or without it, where it can't be restored.")] = False,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="K=V; may be given again.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="K=V; may be given again.")] = None,
    array: Annotated[str | None, typer.Option("--array", "-a", help="One job an index, such as 0-9:2%4.")] = None,
    after: Annotated[
        list[str] | None, typer.Option("--after", "-d", help="Wait for ID, failure:ID or any:ID; may be given again.")
    ] = None,
    retries: Annotated[int | None, typer.Option(help="Try again so often when it fails.")] = None,
    retry: Annotated[
        list[str] | None,
        typer.Option("--retry", help="So often after one cause: out_of_memory=1, exit_code=5:60s; may be given again."),
    ] = None,
    retry_codes: Annotated[str | None, typer.Option(help="Of exit codes only these, such as 75,76.")] = None,
    backoff: Annotated[str | None, typer.Option(help="Pause before the next try, doubled each time.")] = None,
    hang_after: Annotated[
        str | None,
        typer.Option(help="Hung, if it prints nothing and uses no CPU and no device for so long, such as 30m."),
    ] = None,
    hang_action: Annotated[HangAction | None, typer.Option(help="What becomes of it then.")] = None,
    on_node_lost: Annotated[OnNodeLost | None, typer.Option(help="When its node falls silent.")] = None,
    on_replica_failure: Annotated[
        OnReplicaFailure | None, typer.Option(help="When one of several fails: all end, or one less goes on.")
    ] = None,
    on_resize: Annotated[
        OnResize | None, typer.Option(help="When an elastic job gets more or fewer: all begin again, or they join.")
    ] = None,
    warn: Annotated[str | None, typer.Option(help="Signal before the time limit, such as USR1@60.")] = None,
    grace: Annotated[str | None, typer.Option(help="Between TERM and KILL, such as 30s.")] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=off]", help="Switch a feature on or off; see `trellis features list`."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="More of what the node does in its log.")] = False,
    deadline: Annotated[str | None, typer.Option(help="Ended by then, such as 2026-01-31T12:00.")] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", "-D", metavar="DIR", help="Send this directory; the job runs in it.")
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="Run in a directory sent before, by its bundle's id.")] = None,
    requirements: Annotated[
        str | None, typer.Option("--requirements", "-r", metavar="FILE", help="The packages that it runs with.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Run in a container of this image.")] = None,
    pull: Annotated[PullPolicy | None, typer.Option(help="When its node fetches the image.")] = None,
    writable_root: Annotated[
        bool, typer.Option("--writable-root", help="What the image holds can be written to, for as long as it runs.")
    ] = False,
    network: Annotated[NetworkPolicy | None, typer.Option(help="What it may reach.")] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="#SBATCH directive to leave out; may be given again.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Submit nothing: say what would happen.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-W", help="Wait, and exit as the job does.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print its log, and exit as it does.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a job.

    A command:       trellis submit --gpus 1 -- python train.py --epochs 3

    A script:        trellis submit train.py -- --epochs 3

    A batch script:  trellis submit train.sbatch

    A submission:    trellis submit job.json

    Several at once: trellis submit --replicas 4 --network host --checkpoint train.py

    A directory:     trellis submit --dir . --requirements requirements.txt -- python -m train

    A container:     trellis submit --image docker.io/library/python:3.12-slim -- python -c "print(1)"

    Lines that begin with #SBATCH are read, and so is a submission as the API takes it; options given here win over them.

    With --wait or --follow the exit code is the job's: 124 when out of time, 130 when cancelled, 1 when it has none.
    """
    run = here(context)
    resources = {
        "cpus": cpus, "memory": mem, "gpus": gpus, "gpu_type": one_or_many(gpu_type), "mig_profile": mig_profile,
    }  # fmt: skip
    constraints = {
        "selector": terms("constraint", constraint), "tolerates": tolerate, "pool": pool,
        "exclusive": exclusive or None, "strategy": None if strategy is None else str(strategy),
        "topology": topology(within, near),
    }  # fmt: skip
    given: dict[str, Any] = {
        "name": name,
        "project": project,
        "queue": queue,
        "resources": _present(resources),
        "time_limit": _time(time),
        "priority": priority,
        **counted(replicas),
        "constraints": _present(constraints),
        "preemptible": False if no_preempt else None,
        "checkpointable": checkpointable or None,
        "checkpoint": checkpoints(checkpoint, checkpoint_every, checkpoint_by, or_fresh=or_fresh),
        "from_checkpoint": from_checkpoint,
        "environment": pairs("env", env),
        "labels": pairs("label", label),
        "array": _array(array),
        "depends_on": dependencies(after),
        "retries": _present(
            {"limit": retries, "by_cause": rules(retry), "exit_codes": codes(retry_codes), "backoff_s": backoff}
        ),
        "hang_after": hang_after,
        "hang_action": None if hang_action is None else str(hang_action),
        "on_node_lost": None if on_node_lost is None else str(on_node_lost),
        "on_replica_failure": None if on_replica_failure is None else str(on_replica_failure),
        "on_resize": None if on_resize is None else str(on_resize),
        **warning(warn),
        "grace": grace,
        "debug": debug or None,
        "features": switches(feature),
        "deadline": when("deadline", deadline),
        "image": image,
        "pull": None if pull is None else str(pull),
        "security": {"read_only_root": False} if writable_root else None,
        "network": None if network is None else str(network),
        "bundle": bundle,
        "requirements": requirements if bundle else None,
        "dry_run": dry_run or None,
    }
    source = _source(context, file)
    job = merged(described(source, without or ()), _present(given))
    if directory is not None:
        job = _with_directory(run, job, source, directory)
    if requirements is not None and bundle is None:
        job = {**job, **directories.requirements(run, Path(requirements), directory, job)}
    _send(run, job, wait=wait, follow=follow)


def _with_directory(run: Here, job: dict[str, Any], source: Source, directory: Path) -> dict[str, Any]:
    if "bundle" in job:
        raise Invalid(Field("--dir", "sends a directory, and a bundle was sent already: give one of them"))
    job = directories.run_in_place(job, source.file, directory)
    if job.get("dry_run"):
        directories.look_through(run, directory)
        return job
    sent = directories.push(run, directory, job.get("project"))
    return {"project": sent.project_id, **job, "bundle": sent.id}


def described(source: Source, without: Any = ()) -> dict[str, Any]:
    """The submission that a file or a command stands for by itself. Raises Invalid."""
    if source.file is None:
        return {"name": Path(source.words[0]).name, "command": list(source.words)}
    text = _read(source.file)
    if source.file.suffix == ".json":
        return _submission(source, text)
    if sbatch.is_batch_script(text):
        return sbatch.parse(text, name=source.file.name, arguments=source.words, without=frozenset(without))
    body: dict[str, Any] = {
        "name": source.file.name,
        "script": text,
        "script_name": sbatch.plain_name(source.file.name),
    }
    return {**body, "arguments": list(source.words)} if source.words else body


def _submission(source: Source, text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise Invalid(Field("FILE", f"{source.file} is no JSON: {error}")) from error
    if not isinstance(body, dict):
        raise Invalid(Field("FILE", f"{source.file} is no submission: it must hold an object"))
    return {**body, "arguments": list(source.words)} if source.words else body


def merged(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The submission with what was given on the command line put over it; mappings are merged key by key."""
    counts = {"replicas", "min_replicas", "max_replicas"}
    kept = {key: value for key, value in base.items() if key not in counts or not counts & given.keys()}
    both = {**kept, **given}
    for key in ("resources", "environment", "labels", "constraints", "retries", "checkpoint"):
        if key in base and key in given:
            both[key] = {**base[key], **given[key]}
    return both


def exit_code(job: Job) -> int:
    """What a shell should see of an ended job."""
    if job.state == JobState.SUCCEEDED:
        return 0
    if job.state == JobState.TIMED_OUT:
        return TIMED_OUT
    if job.state == JobState.CANCELLED:
        return CANCELLED
    code = job.exit_code or FAILED
    # A negative code is a signal; shells say 128 more than its number.
    return 128 - code if code < 0 else min(code, 255)


def _source(context: typer.Context, words: list[str] | None) -> Source:
    after = context.meta.get(_AFTER_DASHES)
    if not words:
        if not after:
            raise Invalid(Field("FILE", "name a script, or write a command after `--`"))
        return Source(None, tuple(after))
    file, *arguments = words
    if not Path(file).is_file():
        advice = f"for a command write `trellis submit -- {shlex.join([*words, *(after or ())])}`"
        raise Invalid(Field("FILE", f"there is no file {file!r}; {advice}"))
    return Source(Path(file), (*arguments, *(after or ())))


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST_SCRIPT:
            raise Invalid(Field("FILE", f"{file} is larger than a script may be (1 MiB)"))
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(Field("FILE", f"{file} can't be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        advice = f"to run a program write `trellis submit -- {file}`"
        raise Invalid(Field("FILE", f"{file} is not text; {advice}")) from error


def _present(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value is not None and value not in ({}, [])}


def _time(text: str | None) -> int | None:
    try:
        return None if text is None else parse_seconds(text)
    except ValueError as error:
        raise Invalid(Field("--time", str(error))) from error


def _array(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    indexes, percent, parallel = text.partition("%")
    if percent and not parallel.isdigit():
        raise Invalid(Field("--array", "must be such as 0-9, 1,3,7 or 0-100:10%4"))
    return {"indexes": indexes, **({"max_parallel": int(parallel)} if percent else {})}


def _send(run: Here, job: dict[str, Any], *, wait: bool, follow: bool) -> None:
    if job.pop("dry_run", False):
        dry_runs.show(run, run.client.jobs.dry_run(**job))
        return
    if "array" in job:
        if wait or follow:
            raise Invalid(Field("--wait, --follow", "an array is many jobs: follow them one by one"))
        made_array = run.client.jobs.submit_array(**job)
        run.answer(made_array, lambda: _say_array(run, made_array))
        return
    made = run.client.jobs.submit(**job)
    for note in made.notes:
        run.note(f"Note: {note}.")
    if follow:
        run.note(f"Submitted job {made.id}.")
        logs.show(run, made.id, run.client.jobs.logs(made, follow=True))
        _finish(run, run.client.jobs.get(made))
    elif wait:
        _finish(run, _wait(run, made))
    else:
        run.answer(made, lambda: run.say(f"Submitted job {made.id}."))


def _say_array(run: Here, made: JobArray) -> None:
    run.say(f"Submitted {made.count or len(made.items)} jobs as array {made.array_id}.")


def _wait(run: Here, job: Job) -> Job:
    run.note(f"Submitted job {job.id}.")
    try:
        with run.err.status("Waiting for it to end..."):
            return run.client.jobs.wait(job)
    except KeyboardInterrupt as error:
        run.note(f"Job {job.id} goes on; `trellis cancel {job.id}` ends it.")
        raise typer.Exit(logs.INTERRUPTED) from error


def _finish(run: Here, job: Job) -> None:
    code = exit_code(job)
    why = f" ({job.message or job.cause})" if code and (job.message or job.cause) else ""
    run.answer(job, lambda: run.note(f"Job {job.id} {job.state.replace('_', ' ')} after {span(job.run_s)}{why}."))
    raise typer.Exit(code)
