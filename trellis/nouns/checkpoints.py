"""`client.checkpoints`: what jobs can go on from."""

import shutil
import tarfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from trellis.answers import Checkpoint, CheckpointKey, Job, Ticket, answer
from trellis.errors import Conflict
from trellis.nouns.paging import pages
from trellis.transport import Call, Transport, path


class Checkpoints:
    """Asked for, listed, fetched, shared and removed."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def ask(self, job: Job | str) -> Job:
        """Have the running replicas of a job save soon. Raises Conflict (`not_checkpointed`) for one that saves none."""
        return answer(Job, self._transport.json(Call("POST", path("jobs", _id(job), "checkpoints"))))

    def list(self, job: Job | str) -> Iterator[Checkpoint]:
        """What there is of a job, newest first."""
        answered = self._transport.json(Call("GET", path("jobs", _id(job), "checkpoints")))
        return (answer(Checkpoint, item) for item in answered["items"])

    def get(self, checkpoint: Checkpoint | str) -> Checkpoint:
        """One of them. Raises NotFound."""
        return answer(Checkpoint, self._transport.json(Call("GET", path("checkpoints", _id(checkpoint)))))

    def download(
        self, checkpoint: Checkpoint | str, to: Path | str, *, progress: Callable[[int], None] = lambda _: None
    ) -> Path:
        """Fetch its files into the folder `to`, which must not be there yet; it is whole there or absent.

        `progress` hears of the bytes so far. Raises: FileExistsError; Conflict where what came broke off or is damaged.
        """
        target = Path(to)
        if target.exists():
            raise FileExistsError(f"{target} is there already: name a folder that is not")
        half = target.with_name(f".{target.name}.part")
        shutil.rmtree(half, ignore_errors=True)  # of an earlier one that was killed
        half.mkdir(parents=True)
        try:
            self._fetch(checkpoint, half, progress)
            return half.rename(target)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise

    def _fetch(self, checkpoint: Checkpoint | str, half: Path, progress: Callable[[int], None]) -> None:
        call = Call("GET", path("checkpoints", _id(checkpoint), "archive"))
        with self._transport.stream(call) as response:
            source = _Pieces(response.iter_bytes(), progress)
            try:
                # A stream needs nothing of a file but `read`.
                with tarfile.open(fileobj=source, mode="r|") as archive:  # type: ignore[call-overload]
                    archive.extractall(half, filter="data")
            except tarfile.TarError as error:
                raise Conflict(f"the checkpoint broke off on its way: {error}") from error

    def remove(self, checkpoint: Checkpoint | str) -> None:
        """Forget it at once; what only it held leaves the store soon after. Raises NotFound."""
        self._transport.json(Call("DELETE", path("checkpoints", _id(checkpoint))))

    def share(self, checkpoint: Checkpoint | str, project_id: str) -> None:
        """Let the jobs and members of another project go on from it. Takes a project's administrator."""
        self._transport.json(Call("PUT", path("checkpoints", _id(checkpoint), "grants", project_id)))

    def unshare(self, checkpoint: Checkpoint | str, project_id: str) -> None:
        """No more."""
        self._transport.json(Call("DELETE", path("checkpoints", _id(checkpoint), "grants", project_id)))

    def key(self) -> CheckpointKey:
        """What the operator of another cluster names in its settings, so that tickets of this one count there."""
        return answer(CheckpointKey, self._transport.json(Call("GET", path("checkpoints", "key"))))

    def export_ticket(self, checkpoint: Checkpoint | str, *, valid_for: int | str | timedelta = "7d") -> Ticket:
        """A ticket by which a cluster that trusts this one may read the checkpoint; it is kept until that runs out.

        Takes a project's administrator. Raises Conflict (`not_exportable`) for one that is damaged or was imported.
        """
        span = int(valid_for.total_seconds()) if isinstance(valid_for, timedelta) else valid_for
        call = Call("POST", path("checkpoints", _id(checkpoint), "exports"), body={"for": span})
        return answer(Ticket, self._transport.json(call))

    def import_ticket(self, ticket: Ticket | str, *, project: str = "") -> Checkpoint:
        """Make the checkpoint of a ticket one that jobs of the project may go on from. The same again is the same one.

        Raises: Invalid for a ticket that was altered, ran out or is of a cluster that is not trusted; Conflict
            (`checkpoint_gone`) where the other cluster has it no more; Unavailable where its store can't be reached.
        """
        body = {
            "ticket": ticket if isinstance(ticket, str) else ticket.ticket,
            **({"project": project} if project else {}),
        }
        return answer(Checkpoint, self._transport.json(Call("POST", path("checkpoints", "imports"), body=body)))

    def imported(self, *, project: str = "") -> Iterator[Checkpoint]:
        """What was imported into one's projects, or into that one, newest first."""
        return pages(self._transport, "/checkpoints/imports", Checkpoint, {"project": project} if project else {})


class _Pieces:
    """What comes over the network as the file that tarfile reads."""

    def __init__(self, pieces: Iterator[bytes], progress: Callable[[int], None]) -> None:
        self._pieces, self._progress = pieces, progress
        self._rest = b""
        self._read = 0

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer only at the end."""
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
            self._read += len(piece)
            self._progress(self._read)
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def _id(what: Job | Checkpoint | str) -> str:
    return what if isinstance(what, str) else what.id
