"""From the folders that jobs save into, to the store: two threads, outside every sandbox.

One of them does nothing but what somebody waits for: what a replica that ended left (it keeps its place until that is
stored), and what was asked for. So an eviction waits for no large save of another job's, and no more than two saves
take the node's memory and disk at once.

A replica is looked at as long as it lives, and once more when it has ended: its end is told only when what it saved
last is safe, so that its next attempt finds it. The store has all chunks before the control plane hears of a manifest,
and what it records is the latest from then on; whatever breaks off before leaves the one before it in its place.
"""

import errno
import logging
import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from time import monotonic

from agent import journal, trees
from agent.backoff import Backoff
from agent.checkpoint_folder import FILES_AT_MOST, CheckpointFolder, Marker
from agent.layout import ReplicaDir, read_json, write_json
from agent.link import Link
from agent.output import OutputLog
from trellis.errors import Conflict, StaleFence, TrellisError, Unauthenticated, Unavailable
from trellis.stores.base import Store
from trellis.stores.chunks import Changed, Saver, Unsavable
from trellis.stores.manifests import PACKED_AT_MOST, Manifest, fetch_signed
from trellis.stores.urls import open_existing, require_sign
from trellis.stores.worn import worn_packs
from trellis.vocabulary import SaveReason
from trellis.wire import CheckpointPlan, unpack

_log = logging.getLogger(__name__)
LOOK_S = 0.2
AGAIN_S = 30.0
_TRIES_AT_END = 3
_GONE = "packs_gone"
# After so many tries in a row something that never rests is said to.
_UNLUCKY = 10
# So many files are held open, so that a program may take them away while they are read.
_HELD_FILES = 200


@dataclass(slots=True)
class _Watched:
    """How far one replica's folder is saved. `marker` and `fingerprint` are those of what was saved last."""

    replica: ReplicaDir
    folder: CheckpointFolder
    plan: CheckpointPlan | None = None
    project_id: str = ""
    job_id: str = ""
    marker: str = ""
    fingerprint: str = ""
    base: Manifest | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    due: float = 0.0
    asked: bool = False
    ending: bool = False
    taken: bool = False
    tries: int = 0
    not_before: float = 0.0
    still: tuple[str, float] = field(default=("", 0.0))


class Checkpointer:
    """Saves the checkpoints of this node's replicas."""

    def __init__(self, link: Link, unknown: Callable[[], None], finished: Callable[[ReplicaDir], None]) -> None:
        """`finished` is called, on one of these threads, when nothing of a replica that ended is to be saved any more.

        `unknown` is called, on any of them, when the control plane does not know this node's token.
        """
        self._link = link
        self._unknown = unknown
        self._finished = finished
        self._watched: dict[str, _Watched] = {}
        self._stores: dict[str, Store] = {}
        self._lock = Lock()
        self._wakes = (Event(), Event())
        self._stopping = Event()
        self._threads = [
            Thread(target=self._run, args=(wake, urgent), name="checkpoints", daemon=True)
            for wake, urgent in zip(self._wakes, (False, True), strict=True)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; a save that is under way is given up, and made again by the next daemon."""
        self._stopping.set()
        self._wake()
        for thread in self._threads:
            thread.join()

    def watch(self, replica: ReplicaDir) -> None:
        """Look at this replica's folder from now on."""
        with self._lock:
            self._watched.setdefault(replica.path.name, _Watched(replica, CheckpointFolder(replica)))
        self._wake()

    def ask(self, names: Iterable[str]) -> None:
        """Have these save soon; those that are asked already, or save nothing, are left alone."""
        with self._lock:
            for name in names:
                if (one := self._watched.get(name)) and not one.asked and one.plan:
                    one.asked = True
                    with suppress(OSError):
                        one.folder.ask()
        self._wake()

    def finish(self, replica: ReplicaDir) -> None:
        """It has ended: save what it left, then call `finished`."""
        with self._lock:
            one = self._watched.setdefault(replica.path.name, _Watched(replica, CheckpointFolder(replica)))
            one.ending, one.tries = True, 0
        self._wake()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    def _run(self, wake: Event, urgent: bool) -> None:
        while not self._stopping.is_set():
            wake.wait(LOOK_S if self._watched else None)
            wake.clear()
            for name in self._in_order(urgent=urgent):
                if self._stopping.is_set():
                    return
                if (one := self._take(name)) is not None:
                    self._attend(name, one)

    def _in_order(self, *, urgent: bool) -> list[str]:
        """Who is to be looked at: those that somebody waits for first, or alone."""
        with self._lock:
            waited = [name for name, one in self._watched.items() if one.ending or one.asked]
            return waited if urgent else list(dict.fromkeys([*waited, *self._watched]))

    def _take(self, name: str) -> _Watched | None:
        """To be this thread's until it is attended to; None where it is the other's, or nobody's any more."""
        with self._lock:
            one = self._watched.get(name)
            if one is None or one.taken:
                return None
            one.taken = True
            return one

    def _attend(self, name: str, one: _Watched) -> None:
        there = one.replica.path.exists()  # one that was forgotten is cleared away by others
        over = not there or self._look(one)
        with self._lock:
            one.taken = False
            if over:
                del self._watched[name]
        if there and over:
            self._finished(one.replica)

    def _look(self, one: _Watched) -> bool:
        """Save what is to be saved; whether that was the last of this replica."""
        ending = one.ending  # asked first: what it saved before it ended is there by now
        if one.plan is None and not self._begin(one):
            return ending
        if one.plan and not one.plan.saves:
            self._pass_over(one)
            return ending
        if monotonic() < one.not_before and not ending:
            return False
        try:
            marker, reason = self._what(one, ending=ending)
            if reason is not None:
                self._save(one, marker, reason)
            told = one.marker or one.folder.listens()
            if told and one.plan and one.plan.every_s and monotonic() >= one.due:
                one.due = monotonic() + one.plan.every_s
                one.folder.ask()
        except (OSError, TrellisError) as error:
            return self._failed(one, error) and ending
        return ending

    def _begin(self, one: _Watched) -> bool:
        """Read what its supervisor wrote down; False as long as it has not, or where it saves nothing."""
        stored = read_json(one.replica.plan)
        if stored is None:
            return False
        one.plan, one.project_id, one.job_id = unpack(CheckpointPlan, stored["plan"]), stored["project"], stored["job"]
        one.due = monotonic() + one.plan.every_s
        saved = read_json(one.replica.saved) or {}
        one.marker = saved.get("marker", stored["marker"])
        one.fingerprint = saved.get("fingerprint", stored["fingerprint"])
        # What was restored was checked; the plan's own may be the damaged one that it gave way to.
        if key := saved.get("key", one.plan.base and stored["restored"]):
            try:
                one.base = fetch_signed(self._store(one.plan), key, one.plan.public_key)
            except (OSError, TrellisError) as error:
                _log.warning(
                    "%s is saved whole: what it could build upon can't be read: %s", one.replica.path.name, error
                )
        return True

    def _pass_over(self, one: _Watched) -> None:
        """Another replica's checkpoints are those that count: what this one saves is said to be of no use, once."""
        marker = one.folder.marker()
        if marker is not None and not one.marker:
            with closing(OutputLog(one.replica.log)) as log:
                log.say("a checkpoint was not stored: replica 0 saves for all of them; see `checkpoint.by`")
            one.marker = marker.identity

    def _what(self, one: _Watched, *, ending: bool) -> tuple[Marker | None, SaveReason | None]:
        """Whether there is something to save now, and why."""
        marker = one.folder.marker()
        if marker is not None:
            if marker.identity == one.marker:
                return marker, None
            usual = SaveReason.END if ending else SaveReason.MARKED
            return marker, SaveReason.ASKED if one.asked else usual
        if ending:
            fresh = one.folder.fingerprint() not in ("", one.fingerprint)
            return None, SaveReason.END if fresh and self._ended_whole(one) else None
        plan = one.plan
        if plan is None or not (one.asked or (plan.every_s and monotonic() >= one.due)):
            return None, None
        now, seen = monotonic(), one.folder.fingerprint()
        if seen != one.still[0]:
            one.still = (seen, now)
        if seen in ("", one.fingerprint) and not one.asked:
            one.due = now + plan.every_s  # not to go through all of it all the time for what does not change
        if seen in ("", one.fingerprint) or now - one.still[1] < plan.settle_s:
            return None, None
        return None, SaveReason.ASKED if one.asked else SaveReason.INTERVAL

    def _ended_whole(self, one: _Watched) -> bool:
        """Whether a program that says nothing had time to write all of it: it ended by itself, or had been still."""
        entries = journal.read(one.replica.journal, 0)
        by_itself = bool(entries) and entries[-1].report.exit_code is not None and entries[-1].report.signal is None
        return by_itself or bool(one.still[0] and one.still[0] == one.folder.fingerprint())

    def _save(self, one: _Watched, marker: Marker | None, reason: SaveReason) -> None:
        assert one.plan is not None
        fingerprint = one.folder.fingerprint()
        token = secrets.token_hex(8)
        prefix = f"packs/{one.project_id}/{one.job_id}/{one.replica.replica_id}-{one.replica.fence}-{token}"
        store = self._store(one.plan)
        require_sign(store, one.plan.store_url)  # a file system may be unmounted at any time
        saver = Saver(store, prefix, one.base, self._stopping, self._worn(one, store))
        try:
            _add_files(one.folder, saver, marker)
            # What it marked is complete and was held; a program that does not mark must hold still.
            if marker is None and one.folder.fingerprint() != fingerprint:
                raise Changed("it was written to while it was saved")
        except BaseException:
            saver.abandon()
            raise
        manifest, packs = saver.finish()
        one.sizes |= packs
        about = {
            "save": token, "marked": marker is not None, "reason": reason.value, "step": marker and marker.step, "packs": packs,
            "metrics": marker.metrics if marker else {}, "new_bytes": saver.new_bytes,
        }  # fmt: skip
        key = self._tell(one, Manifest(manifest.files, about), packs)
        one.base = manifest
        one.marker, one.fingerprint = marker.identity if marker else "", fingerprint
        one.asked, one.tries, one.due = False, 0, monotonic() + one.plan.every_s
        one.folder.answered()
        try:
            # Of what was saved, not of what lies there by now: that is still to be saved, maybe by the next daemon.
            write_json(one.replica.saved, {"key": key, "marker": one.marker, "fingerprint": fingerprint})
        except OSError as error:  # then the next daemon saves it once more
            _log.warning("could not note that %s is saved: %s", one.replica.path.name, error)

    def _worn(self, one: _Watched, store: Store) -> frozenset[str]:
        if one.base is None:
            return frozenset()
        there = set(one.base.packs)
        one.sizes = {pack: size for pack, size in one.sizes.items() if pack in there}
        return worn_packs(store, one.base, one.sizes)

    def _tell(self, one: _Watched, manifest: Manifest, packs: Iterable[str]) -> str:
        """Have it recorded, however long the control plane is away; its key. Where it refuses, the packs go again."""
        assert one.plan is not None
        block, backoff = manifest.encode(), Backoff()
        while True:
            try:
                if len(block) > PACKED_AT_MOST:
                    raise Unsavable("its manifest would be larger than 64 MiB: save less at once")
                return self._link.save_checkpoint(one.replica.replica_id, one.replica.fence, block)
            except (Unavailable, Unauthenticated) as error:
                if isinstance(error, Unauthenticated):
                    self._unknown()
                if self._stopping.is_set():
                    raise
                backoff.wait(self._stopping)
            except (TrellisError, Unsavable):
                for pack in packs:
                    with suppress(OSError):
                        self._store(one.plan).delete(pack)
                raise

    def _failed(self, one: _Watched, error: OSError | TrellisError) -> bool:
        """Say so; whether it is given up."""
        one.tries += 1
        if isinstance(error, Conflict) and error.code == _GONE:
            one.base = None
            return one.tries >= _TRIES_AT_END
        given_up = one.tries >= _TRIES_AT_END or isinstance(error, StaleFence | Unsavable)
        changed = isinstance(error, Changed)
        one.not_before = monotonic() + min(AGAIN_S, LOOK_S * one.tries if changed else AGAIN_S)
        # What changes is likely to be at rest the next time: only what goes on like that is worth a word.
        is_told = not changed or one.tries == _UNLUCKY or (one.ending and given_up)
        if is_told and not self._stopping.is_set():
            why = (error.strerror if isinstance(error, OSError) else "") or str(error)
            _log.warning("a checkpoint of %s was not stored: %s", one.replica.path.name, why)
            if changed or one.tries == 1 or one.ending:
                self._say(one, f"a checkpoint was not stored: {why}; the one before it stays the latest")
        return given_up

    def _say(self, one: _Watched, message: str) -> None:
        with closing(OutputLog(one.replica.log)) as log:
            log.say(message)
        with suppress(TrellisError):  # the log says it too
            self._link.checkpoint_failed(one.replica.replica_id, one.replica.fence, message)

    def _store(self, plan: CheckpointPlan) -> Store:
        if plan.store_url not in self._stores:
            self._stores[plan.store_url] = open_existing(plan.store_url)
        return self._stores[plan.store_url]


def _add_files(folder: CheckpointFolder, saver: Saver, marker: Marker | None) -> None:
    """Hand over what was complete when `marker` was there.

    As long as the marker is the same, nothing of what it marked was taken away; what is open by then can't be. Where
    there are more files than can be held open, the others must be read before another is marked. Raises: Changed.
    """
    held: list[tuple[str, int]] = []
    try:
        for count, (name, file) in enumerate(trees.open_files(folder.path, FILES_AT_MOST + 1)):
            if count == FILES_AT_MOST:
                raise OSError(errno.EFBIG, f"there are more than {FILES_AT_MOST} files")
            _require_unchanged(name, file, marker)
            if count < _HELD_FILES:
                held.append((name, os.dup(file)))
            else:
                saver.add(name, file)
        if folder.marker() != marker:
            raise Changed("another one was marked as complete while it was read")
        for name, file in held:
            _require_unchanged(name, file, marker)
            saver.add(name, file)
    finally:
        for _, file in held:
            os.close(file)


def _require_unchanged(name: str, file: int, marker: Marker | None) -> None:
    """Raises Changed for what was written after it was marked.

    Writing sets both times; what was copied may have any mtime, and whoever takes a link away sets the ctime alone.
    """
    if marker is not None:
        seen = os.fstat(file)
        if min(seen.st_mtime_ns, seen.st_ctime_ns) > marker.marked_ns:
            raise Changed(f"{name[:80]!r} was written to after it was marked as complete")
