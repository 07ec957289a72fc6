"""After a replica's end: its artifacts to the control plane, and its directory off the disk. One thread."""

import hashlib
import logging
import os
import queue
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event, Thread

from agent.backoff import Backoff
from agent.layout import Home, ReplicaDir
from agent.link import Link, Upload
from agent.output import OutputLog
from trellis.errors import TrellisError, Unavailable

_log = logging.getLogger(__name__)
_FILES_AT_MOST = 1000


class Porter:
    """Stores the artifacts of replicas that ended, and clears away those that are done."""

    def __init__(self, home: Home, link: Link, stored: Callable[[ReplicaDir], None]) -> None:
        """`stored` is called, on the porter's thread, when a replica's artifacts are with the control plane."""
        self._home = home
        self._link = link
        self._stored = stored
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="porter", daemon=True)

    def start(self) -> None:
        """Begin, first with what an earlier process left to clear away."""
        for leftover in self._home.trash.iterdir():
            self._work.put(partial(remove_tree, leftover))
        self._thread.start()

    def stop(self) -> None:
        """End after the present piece of work; what is left is found again at the next start."""
        self._stopping.set()
        self._work.put(None)
        self._thread.join()

    def store(self, replica: ReplicaDir) -> None:
        """Store what the replica left in its artifacts directory."""
        self._work.put(partial(self._store, replica))

    def remove(self, replica: ReplicaDir) -> None:
        """Delete the replica's directory; from now on no one finds it among the replicas."""
        grave = self._home.trash / replica.path.name
        replica.path.rename(grave)
        self._work.put(partial(remove_tree, grave))

    def _run(self) -> None:
        while (work := self._work.get()) is not None and not self._stopping.is_set():
            try:
                work()
            except OSError as error:
                _log.error("could not tidy up after a replica: %s", error)

    def _store(self, replica: ReplicaDir) -> None:
        for path, name in find_artifacts(replica.artifacts):
            self._store_one(replica, path, name)
            if self._stopping.is_set():
                return
        self._stored(replica)

    def _store_one(self, replica: ReplicaDir, path: Path, name: str) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                self._link.upload(Upload(replica.replica_id, replica.fence, name, path, _digest(path)))
            except Unavailable:
                backoff.wait(self._stopping)
            except (TrellisError, OSError) as error:
                _log.warning("artifact %s of %s was not stored: %s", name, replica.path.name, error)
                # The supervisor is gone, and the end is not told before we are done: the log is ours.
                OutputLog(replica.log).say(f"the artifact {name} was not stored: {error}")
                return
            else:
                return


def find_artifacts(folder: Path) -> Iterator[tuple[Path, str]]:
    """Regular files below `folder` and what to call them; nothing hidden, no links, not more than are sensible."""
    found = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or not stat.S_ISREG(path.lstat().st_mode):
                continue
            found += 1
            if found > _FILES_AT_MOST:
                return
            yield path, path.relative_to(folder).as_posix()


def _digest(path: Path) -> str:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_tree(path: Path) -> None:
    """Delete `path` and all below, also directories whose owner took his own rights away."""
    if os.geteuid() != 0:  # root is not kept out, and must not change what a link might lead to
        for parent, folders, _ in os.walk(path):
            for name in folders:
                if not os.path.islink(os.path.join(parent, name)):
                    os.chmod(os.path.join(parent, name), 0o700)
    shutil.rmtree(path, ignore_errors=True)
