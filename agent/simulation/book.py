"""What a host plays, on disk: another process goes on with it where it is."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent.appending import Tail
from agent.executors.simulated import SimulatedExecutor
from agent.simulation.performance import Key, Performance

_WORTH_WRITING_ANEW_BYTES = 16 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Book:
    """A line for each performance that began or ended, `null` in place of one that is over and done with.

    Not thread-safe. A crash may lose what was written last: of a beginning the control plane tells again, and an end
    is played again.
    """

    def __init__(self, path: Path, executor: SimulatedExecutor) -> None:
        self._path = path
        self._executor = executor
        self._boot_id = _BOOT_ID.read_text().strip()
        self._tail = Tail(path)
        self._bytes = 0
        self._owed = b""

    def open(self) -> list[Performance]:
        """What an earlier process left, and a fresh book that holds just that; nothing if the machine was restarted."""
        found = [Performance.from_record(self._executor, record) for record in self._read().values()]
        self._write_anew(found)
        return found

    def note(self, performances: Iterable[Performance], living: Iterable[Performance]) -> None:
        """Write down how far these are; now and then the book is written anew, with the `living` alone."""
        lines = [
            [*one.key, None if one.done else one.as_record()] for one in performances
        ]  # as lists: a key is no JSON name
        block = self._owed + "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        self._owed = self._tail.write(block)
        self._bytes += len(block) - len(self._owed)
        if self._bytes > _WORTH_WRITING_ANEW_BYTES:
            self._write_anew(living)

    def close(self) -> None:
        """Let go of the file."""
        self._tail.close()

    def _read(self) -> dict[Key, dict[str, Any]]:
        found: dict[Key, dict[str, Any]] = {}
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return {}
        if lines[0].decode() != self._boot_id:
            return {}
        for line in lines[1:-1]:  # what follows the last newline is torn
            replica_id, fence, record = json.loads(line)
            if record is None:
                found.pop((replica_id, fence), None)
            else:
                found[replica_id, fence] = record
        return found

    def _write_anew(self, living: Iterable[Performance]) -> None:
        lines = [json.dumps([*one.key, one.as_record()]) for one in living if not one.done]
        block = "\n".join([self._boot_id, *lines, ""]).encode()
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(block)
        os.rename(fresh, self._path)
        self._tail.close()
        self._tail, self._bytes, self._owed = Tail(self._path), 0, b""
