"""Whether devices are fit for work: from what they say of themselves, be it the driver or a record of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import clock
from trellis.vocabulary import Severity
from trellis.wire import Finding, unpack

LARGEST_RECORD_BYTES = 1 << 20
# Faults of the hardware or its driver, not of a program's. Source: NVIDIA's "Xid Errors", the ones that ask for a reset.
FATAL_XIDS = {
    48: "an error in memory that could not be corrected", 63: "a page of memory was retired", 64: "no page of memory could be retired",
    74: "an error of the interconnect", 79: "it has fallen off the bus", 92: "too many errors in memory",
    94: "an error in memory, contained", 95: "an error in memory, not contained", 119: "its processor does not answer",
    120: "its processor failed", 140: "errors in memory that could not be corrected",
}  # fmt: skip
# An Xid is told once: for so long it stands against the device.
XID_HELD_S = 3600.0


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a device says of its health; `fault` is why it does not answer, "" where it does.

    `uncorrected` are errors in memory since the driver was loaded. The limits are 0 where it has none.
    """

    index: int
    fault: str = ""
    uncorrected: int = 0
    remap_failed: bool = False
    remap_pending: bool = False
    temperature_c: int = 0
    slowdown_c: int = 0
    shutdown_c: int = 0
    xids: tuple[int, ...] = ()


States = Callable[[], tuple[DeviceState, ...]]


def judge(state: DeviceState) -> Iterator[Finding]:
    """What is wrong with a device."""
    if state.fault:
        yield Finding("device", Severity.BAD, f"it does not answer: {state.fault}", state.index)
    if state.uncorrected:
        said = f"{state.uncorrected} errors in its memory could not be corrected"
        yield Finding("ecc", Severity.BAD, said, state.index)
    if state.remap_failed:
        yield Finding("remap", Severity.BAD, "rows of its memory could not be replaced", state.index)
    elif state.remap_pending:
        yield Finding("remap", Severity.WARNING, "rows of its memory are replaced at its next reset", state.index)
    for xid in dict.fromkeys(state.xids):
        if xid in FATAL_XIDS:
            yield Finding("xid", Severity.BAD, f"Xid {xid}: {FATAL_XIDS[xid]}", state.index)
    if 0 < state.shutdown_c <= state.temperature_c:
        yield Finding("heat", Severity.BAD, f"{state.temperature_c} °C, at {state.shutdown_c} it ends", state.index)
    elif 0 < state.slowdown_c <= state.temperature_c:
        yield Finding("heat", Severity.WARNING, f"{state.temperature_c} °C: it slows itself down", state.index)


class DeviceCheck:
    """Judges devices, and remembers for a while what they tell once."""

    def __init__(self, states: States) -> None:
        self._states = states
        self._told: dict[tuple[int, int], float] = {}

    def __call__(self) -> Iterator[Finding]:
        """What is wrong with any of them."""
        now, states = clock.boottime(), self._states()
        self._told |= {(state.index, xid): now for state in states for xid in state.xids}
        self._told = {key: at for key, at in self._told.items() if now - at < XID_HELD_S}
        for state in states:
            xids = tuple(sorted(xid for index, xid in self._told if index == state.index))
            yield from judge(
                DeviceState(
                    state.index, state.fault, state.uncorrected, state.remap_failed, state.remap_pending,
                    state.temperature_c, state.slowdown_c, state.shutdown_c, xids,
                )
            )  # fmt: skip


def recorded(path: Path) -> States:
    """States as a file has them: a JSON list of `DeviceState`, read anew each time. For machines without such devices.

    A device of which it says nothing is well, and so are all where there is no file. Raises ValueError for one that can't
    be understood.
    """

    def read() -> tuple[DeviceState, ...]:
        try:
            with path.open("rb") as file:
                said = json.loads(file.read(LARGEST_RECORD_BYTES))
        except FileNotFoundError:
            return ()
        if not isinstance(said, list):
            raise ValueError("a record of devices is a list")
        return tuple(unpack(DeviceState, one) for one in said)

    return read
