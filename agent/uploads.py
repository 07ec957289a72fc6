"""After a replica's end: its artifacts to the control plane, and its directory off the disk. One thread."""

import hashlib
import json
import logging
import os
import queue
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Event, Thread
from time import monotonic

from agent import trees
from agent.backoff import Backoff
from agent.layout import Home, ReplicaDir
from agent.link import Link, Upload, pieces
from agent.output import OutputLog
from trellis.errors import StoreFull, TrellisError, Unauthenticated, Unavailable

_log = logging.getLogger(__name__)
FILES_AT_MOST = 1000
# It travels in a header.
ABOUT_BYTES = 4 * 1024
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
# For how long a replica's end waits for room in a store that is full; after that its files are given up, and it is said.
FULL_WITHIN_S = 600.0


class Porter:
    """Stores the artifacts of replicas that ended, and clears away those that are done."""

    def __init__(
        self, home: Home, link: Link, stored: Callable[[ReplicaDir], None], unknown: Callable[[], None]
    ) -> None:
        """`stored` is called, on the porter's thread, when a replica's artifacts are with the control plane.

        `unknown` is called when the control plane does not know this node's token.
        """
        self._home = home
        self._link = link
        self._stored = stored
        self._unknown = unknown
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="porter", daemon=True)

    def start(self) -> None:
        """Begin, first with what an earlier process left to clear away."""
        for leftover in self._home.trash.iterdir():
            self._work.put(partial(trees.remove, leftover))
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
        self._work.put(partial(trees.remove, grave))
        with suppress(FileNotFoundError):  # it ended before its supervisor took what it should have gone on from
            unused = grave.with_name(f"{grave.name}.unused")
            (self._home.restored / replica.path.name).rename(unused)
            self._work.put(partial(trees.remove, unused))

    def _run(self) -> None:
        while (work := self._work.get()) is not None and not self._stopping.is_set():
            try:
                work()
            except OSError as error:
                _log.error("could not tidy up after a replica: %s", error)

    def _store(self, replica: ReplicaDir) -> None:
        try:
            for count, (name, file) in enumerate(trees.open_files(replica.artifacts, FILES_AT_MOST + 1)):
                if count == FILES_AT_MOST:
                    _say(replica, f"there are more than {FILES_AT_MOST} artifacts: the others were not stored")
                    break
                self._store_one(replica, name, file)
                if self._stopping.is_set():
                    return
        except OSError as error:
            _say(replica, f"the artifacts could not be read: {error.strerror}")
        self._stored(replica)

    def _store_one(self, replica: ReplicaDir, name: str, file: int) -> None:
        backoff, full_since = Backoff(), None
        while not self._stopping.is_set():
            try:
                self._link.upload(_upload(replica, name, file))
            except StoreFull as error:
                full_since = full_since or _first_full(replica, name, error)
                if monotonic() - full_since > FULL_WITHIN_S:
                    _say(replica, f"the artifact {name} was not stored: {error}")
                    return
                backoff.wait(self._stopping)
            except (Unavailable, Unauthenticated) as error:
                if isinstance(error, Unauthenticated):
                    self._unknown()
                backoff.wait(self._stopping)
            except (TrellisError, OSError, ValueError) as error:  # ValueError: a name that is no text
                shown = name.encode(errors="backslashreplace").decode()
                _log.warning("artifact %s of %s was not stored: %s", shown, replica.path.name, error)
                _say(replica, f"the artifact {shown} was not stored: {error}")
                return
            else:
                return


def _first_full(replica: ReplicaDir, name: str, error: StoreFull) -> float:
    _say(replica, f"the artifact {name} waits for room, for {FULL_WITHIN_S / 60:.0f} minutes at most: {error}")
    return monotonic()


def _upload(replica: ReplicaDir, name: str, file: int) -> Upload:
    name.encode()
    length = os.fstat(file).st_size
    digest = hashlib.sha256()
    for piece in pieces(file, length):
        digest.update(piece)
    return Upload(replica.replica_id, replica.fence, name, file, length, digest.hexdigest(), *_about(replica, name))


def _about(replica: ReplicaDir, name: str) -> tuple[str, str]:
    """The type of a file and its metadata, as `.NAME.about` beside it says; what is not understood is left out."""
    block = b"" if "/" in name else trees.read_beside(replica.artifacts, f".{name}.about", ABOUT_BYTES)
    if not block:
        return "", "{}"
    try:
        said = json.loads(block)
        kind, details = str(said.get("type", "")), said.get("metadata", {})
        text = json.dumps(details, allow_nan=False)
    except (ValueError, AttributeError, RecursionError):  # the job may write there what it likes
        kind, details, text = "?", {}, ""
    if (kind and not _KIND.fullmatch(kind)) or not isinstance(details, dict) or "\\u0000" in text or "\\ud" in text:
        _say(replica, f"what .{name}.about says of the artifact {name} can't be understood, and was left out")
        return "", "{}"
    return kind, text


def _say(replica: ReplicaDir, message: str) -> None:
    """A line in the replica's log: its supervisor is gone, and the end is not told before we are done."""
    log = OutputLog(replica.log)
    log.say(message)
    log.give_up()  # on a full disk; part of a line would keep the end from being told
    log.close()
