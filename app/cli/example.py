"""The first job of a new stack: submits the example, shows its log live, and sums up what became of it."""

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trellis.answers import Job
from trellis.client import Client
from trellis.errors import TrellisError
from trellis.units import format_seconds
from trellis.vocabulary import JobState

# On a cluster of one's own nothing may be for everybody: `up` is not to wait for ever because of an example.
LONGEST_WAIT_S = 30
LOOK_S = 0.1
WAITING = frozenset({JobState.PENDING, JobState.QUEUED, JobState.RETRYING})
EXAMPLE = Path("examples") / "train_digits.py"


@dataclass(frozen=True, slots=True)
class Login:
    """What client.json says."""

    url: str
    api_key: str


def run_example(login: Login, code: Path, kept: Path, console: Console) -> str | None:
    """Run the example job with its log on the console and fetch what it saved into `kept`.

    Returns: its id, or None when it could not be run.
    """
    script = code / EXAMPLE
    if not script.exists():
        return None  # installed from a wheel, which holds no examples
    with Client(url=login.url, api_key=login.api_key) as client:
        try:
            job = client.jobs.submit(name="train-digits", script=script.read_text(), script_name=script.name)
            console.print(f"Submitted the example job {job.id}:", highlight=False)
            if (waits := why_not_started(client, job, LONGEST_WAIT_S)) is not None:
                console.print(f"  cancelled, for after {LONGEST_WAIT_S} s it still waits: {waits}", markup=False)
                return None
            for line in client.jobs.logs(job.id, follow=True):
                console.print(f"  {line.text}", markup=False, highlight=False)
            console.print(_summary(client, client.jobs.wait(job.id)))
            kept.mkdir(exist_ok=True)
            for artifact in client.jobs.artifacts(job.id):
                path = client.jobs.download(job.id, artifact, kept / artifact.name.replace("/", "-"))
                # Not a row: a path is for copying, and a narrow table would cut it.
                console.print(f"  artifact    {path}", markup=False, highlight=False, soft_wrap=True)
        except TrellisError as error:
            console.print(f"The example job could not be run: {error}", markup=False)
            return None
    return str(job.id)


def why_not_started(client: Client, job: Job, patience_s: float) -> str | None:
    """Why a job still waits after so long; it is then cancelled. None once it has started."""
    until = time.monotonic() + patience_s
    while (job := client.jobs.get(job)).state in WAITING:
        if time.monotonic() > until:
            client.jobs.cancel(job, reason="the example did not start")
            return job.why or "nothing is said of why"
        time.sleep(LOOK_S)
    return None


def show_next(urls: dict[str, str], job_id: str | None, console: Console) -> None:
    """Where things are, and three commands to try."""
    table = Table.grid(padding=(0, 2))
    table.add_row("API", urls["api"])
    table.add_row("API reference", f"{urls['api']}/docs")
    table.add_row("Flower", urls["flower"])
    here = "" if shutil.which("trellis") else f"{os.path.relpath(Path(sys.executable).parent)}/"  # not activated
    table.add_row("try next", f"{here}trellis jobs")
    table.add_row("", f"{here}trellis job {job_id}" if job_id else f"{here}trellis nodes")
    table.add_row("", f"{here}trellis submit -- echo hello")
    console.print(table)


def _summary(client: Client, job: Any) -> Table:
    accuracy = client.jobs.metrics(job.id).get("accuracy")
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("state", f"[{'green' if job.state == JobState.SUCCEEDED else 'red'}]{job.state}")
    table.add_row("waited", format_seconds(job.wait_s or 0.0))
    table.add_row("ran", format_seconds(job.run_s or 0.0))
    if accuracy is not None:
        table.add_row("accuracy", f"{accuracy.value:.3f}")
    if job.state != JobState.SUCCEEDED:
        table.add_row("why", job.message or str(job.cause))
    return table
