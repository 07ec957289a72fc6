"""Where things lie on a node's disk, and the few ways in which they are written.

<home>/node.json            who this node is (0600)
       daemon.lock          held by the one daemon of this home
       lease                until when supervisors may go on without hearing more
       poke                 where supervisors say that they wrote something
       etc/                 what jobs in namespaces see as /etc
       supervisors/         a lock each, held while the process lives; its process id
       environments/        what was built for jobs, see `agent.environments`
       gpus.json            what the devices said last, see `agent.gpu_readings`
       sources.json         where packages come from (0600)
       code/                what was fetched for jobs, see `agent.code_cache`
       hooks/               what is to be told of the operator's programs that ran, see `agent.hooks`
       replicas/<replica id>.<fence>/
           lock             its supervisor's, by a second name; absent once it has ended
           journal.jsonl    reports, one a line
           output.log       lines as `trellis.wire.LogChunk` has them
           metrics.jsonl    points, one a line
           stop.json        the wish to end it; SIGUSR1 tells the supervisor that it was written
           pause.json       the wish that it stands still, or goes on; likewise
           shipped.json     how far the control plane has all that
           wanted.json      the code that it waits for; supplied.json says that it is there, or why not
           code/            that code, until the job starts: then it is job/work
           container.json   of one in a container: which, and of which engine
           spec.json        of one in a container: what a supervisor needs that takes it up (0600)
           world.json       of one of a gang: that all of it is ready, and where the others are
           plan.json        of one that saves checkpoints: where these go and when
           saved.json       which of them is the latest
           from.json        which checkpoint it goes on from
           job/             what the job sees: work/ artifacts/ tmp/, the socket for its metric points, and, where it
                            saves checkpoints, checkpoints/ and checkpoint.asked, which is there while one is wished for
       restored/            what replicas go on from, until their supervisors take it over: for each the folder, and which
                            checkpoint it was
"""

import fcntl
import json
import os
import re
import signal
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.reading import read_small

# See ioctl_iflags(2): the same wherever a long has eight bytes.
_GET_FLAGS, _SET_FLAGS, _TOP_OF_HIERARCHIES = 0x80086601, 0x40086602, 0x00020000
RESTORED, RESTORED_FROM = "checkpoints", "from.json"
_WORD = re.compile(r"[A-Za-z0-9-]{1,64}")
_NAME = re.compile(r"([A-Za-z0-9_-]{1,64})\.(\d{1,18})")


@dataclass(frozen=True, slots=True)
class ReplicaDir:
    """The directory of one replica under one fence."""

    path: Path
    replica_id: str
    fence: int

    @property
    def lock(self) -> Path:
        """The supervisor's own lock: held while it lives, holds its process id as text; taken away at the end."""
        return self.path / "lock"

    @property
    def journal(self) -> Path:
        """Reports, one JSON object a line."""
        return self.path / "journal.jsonl"

    @property
    def log(self) -> Path:
        """Stamped output; absent until the job says something."""
        return self.path / "output.log"

    @property
    def metrics(self) -> Path:
        """Metric points, one JSON object a line; absent until there is one."""
        return self.path / "metrics.jsonl"

    @property
    def stop(self) -> Path:
        """The wish to end it: JSON with `reason` and `grace_s`."""
        return self.path / "stop.json"

    @property
    def pause(self) -> Path:
        """The wish that it stands still or goes on: JSON with `paused` and `checkpoint_s`."""
        return self.path / "pause.json"

    @property
    def shipped(self) -> Path:
        """How far the control plane has all that; the daemon's alone."""
        return self.path / "shipped.json"

    @property
    def wanted(self) -> Path:
        """The code that its supervisor waits for: JSON with `project_id` and `digest`."""
        return self.path / "wanted.json"

    @property
    def supplied(self) -> Path:
        """That the code is there, or why it will not come: JSON with `fault`, empty where there is none."""
        return self.path / "supplied.json"

    @property
    def code(self) -> Path:
        """The code, laid out, from when it is whole until the job starts."""
        return self.path / "code"

    @property
    def container(self) -> Path:
        """Its container, from before that starts until its end is written down: JSON."""
        return self.path / "container.json"

    @property
    def spec(self) -> Path:
        """What a supervisor needs that takes up a container: JSON with `spec`, `socket` and `started_at`."""
        return self.path / "spec.json"

    @property
    def world(self) -> Path:
        """Of a replica of a gang: a `trellis.wire.World`, once all of it is ready."""
        return self.path / "world.json"

    @property
    def plan(self) -> Path:
        """Of a replica that saves checkpoints: its plan; written before it starts."""
        return self.path / "plan.json"

    @property
    def saved(self) -> Path:
        """Which of its checkpoints is the latest; the daemon's alone."""
        return self.path / "saved.json"

    @property
    def checkpoints(self) -> Path:
        """The folder that it saves into."""
        return self.path / "job/checkpoints"

    @property
    def restored_from(self) -> Path:
        """Which checkpoint it goes on from; absent where it begins anew."""
        return self.path / RESTORED_FROM

    @property
    def asked(self) -> Path:
        """There while it is asked to save."""
        return self.path / "job/checkpoint.asked"

    @property
    def job(self) -> Path:
        """The only part that the job gets to see."""
        return self.path / "job"

    @property
    def work(self) -> Path:
        """The job's working directory."""
        return self.path / "job/work"

    @property
    def artifacts(self) -> Path:
        """What the job leaves here is stored when it has ended."""
        return self.path / "job/artifacts"

    @property
    def tmp(self) -> Path:
        """The job's TMPDIR, on disk: it goes with the replica."""
        return self.path / "job/tmp"

    def alive(self) -> bool:
        """Whether its supervisor lives: a process id may be another's by now, a lock can't."""
        try:
            fd = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(fd)

    def signal_supervisor(self, signum: int) -> bool:
        """Signal the supervisor; False if it is gone."""
        try:
            pid = int(read_small(self.lock) or 0)
            fd = os.pidfd_open(pid) if pid else None
        except (FileNotFoundError, ProcessLookupError):
            return False
        if fd is None:
            return self.alive()  # just forked; it looks for a wish before it starts anything
        try:
            # Whoever held the lock after the descriptor was opened is whom the descriptor names.
            if not self.alive():
                return False
            signal.pidfd_send_signal(fd, signum)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True


@dataclass(frozen=True, slots=True)
class Home:
    """A node's directory."""

    path: Path

    @property
    def replicas(self) -> Path:
        """One directory a replica and fence."""
        return self.path / "replicas"

    @property
    def supervisors(self) -> Path:
        """One lock a supervisor process."""
        return self.path / "supervisors"

    @property
    def restored(self) -> Path:
        """What replicas go on from, one folder each, until their supervisors take them."""
        return self.path / "restored"

    @property
    def trash(self) -> Path:
        """What is to be deleted: a rename here is at once, deleting is not."""
        return self.path / "trash"

    @property
    def environments(self) -> Path:
        """What was built for jobs; see `agent.environments`."""
        return self.path / "environments"

    @property
    def gpus(self) -> Path:
        """What the devices said last."""
        return self.path / "gpus.json"

    @property
    def sources(self) -> Path:
        """Where packages come from: readable to the agent's user alone."""
        return self.path / "sources.json"

    @property
    def hooks(self) -> Path:
        """What is to be told of hooks that ran; see `agent.hooks`."""
        return self.path / "hooks"

    @property
    def code(self) -> Path:
        """What was fetched for jobs; see `agent.code_cache`."""
        return self.path / "code"

    @property
    def lease(self) -> Path:
        """Until when supervisors may go on; see `agent.lease`."""
        return self.path / "lease"

    @property
    def identity(self) -> Path:
        """The node's id and token: readable to the agent's user alone."""
        return self.path / "node.json"

    @property
    def poke(self) -> Path:
        """The pipe on which supervisors say that they wrote something."""
        return self.path / "poke"

    def create(self) -> None:
        """Make what is missing. Others may pass through (jobs run as another user), not look."""
        for folder in (
            self.path, self.supervisors, self.replicas, self.restored, self.trash, self.environments
        ):  # fmt: skip
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        _spread(self.replicas)
        for lock in self.supervisors.iterdir():
            if (fd := lock_file(lock)) is not None:
                lock.unlink()
                os.close(fd)
        for leftover in self.replicas.glob(".new-*"):
            leftover.rename(self.trash / leftover.name)
        for leftover in self.restored.iterdir():  # not by a name that a replica itself may have there
            leftover.rename(self.trash / f"{leftover.name}.restored.{os.getpid()}")

    def replica(self, replica_id: str, fence: int) -> ReplicaDir:
        """The directory of a replica, there or not. Raises ValueError for an id that is no file name."""
        name = f"{replica_id}.{fence}"
        if not _NAME.fullmatch(name):
            raise ValueError(f"{replica_id!r} under fence {fence} is no replica of this platform")
        return ReplicaDir(self.replicas / name, replica_id, fence)

    def named(self, name: str) -> ReplicaDir:
        """The same by `<replica id>.<fence>`. Raises ValueError likewise."""
        replica_id, _, fence = name.rpartition(".")
        if not fence.isdecimal():
            raise ValueError(f"{name!r} is no replica of this platform")
        return self.replica(replica_id, int(fence))

    def find_replicas(self) -> Iterator[ReplicaDir]:
        """Every replica on this node's disk."""
        for entry in os.scandir(self.replicas):
            if match := _NAME.fullmatch(entry.name):
                yield ReplicaDir(Path(entry.path), match[1], int(match[2]))


def _spread(folder: Path) -> None:
    """Tell the file system that the directories in `folder` have nothing to do with one another, where it can be told.

    Ext4 then puts each into another group of blocks. Else all share one, and without a journal ext4 looks, for each
    file and directory that it makes, at every inode of the group that was freed in the last minute or more: with many
    short jobs 0.7 ms each time, seven times a replica.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = array("i", [0])
        fcntl.ioctl(fd, _GET_FLAGS, flags)
        flags[0] |= _TOP_OF_HIERARCHIES
        fcntl.ioctl(fd, _SET_FLAGS, flags)
    except OSError:  # a file system that knows no such flag
        return
    finally:
        os.close(fd)


def safe_name(word: str) -> str:
    """The word, an id or a digest, as a name in a folder of ours. Raises ValueError for one that is none."""
    if not _WORD.fullmatch(word):
        raise ValueError(f"{word[:80]!r} is no id and no digest")
    return word


def lock_file(path: Path) -> int | None:
    """Take the lock of `path` for as long as the descriptor is open; None if another has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def write_json(path: Path, value: Any) -> None:
    """Replace `path` at once: a reader sees the old text or the new, never half."""
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        block = json.dumps(value).encode()
        while block:  # a disk that fills up takes a part, and only then complains
            block = block[os.write(fd, block) :]
    finally:
        os.close(fd)
    os.rename(fresh, path)


def read_json(path: Path) -> Any:
    """What `write_json` left there; None if nothing is, or what power that failed made of it."""
    try:
        return json.loads(read_small(path))
    except (FileNotFoundError, ValueError):
        return None
