"""Text for terminals: foreign words made harmless, amounts and times made readable."""

from datetime import datetime

from rich.text import Text

from trellis.units import format_seconds
from trellis.vocabulary import JobState, NodeState, QueueState, ReservationState

# A job's output must not move the cursor, rename the window or answer for the keyboard: C0, DEL and C1 are shown
# as \x1b and the like. Tabs stay.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x09}
# Characters that turn the direction of writing, so that a name can look like another.
_CONTROLS |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}

_COLOURS = {
    JobState.SUCCEEDED: "green",
    JobState.RUNNING: "bright_cyan",
    JobState.STARTING: "cyan",
    JobState.SCHEDULED: "cyan",
    JobState.CHECKPOINTING: "cyan",
    JobState.QUEUED: "yellow",
    JobState.PENDING: "yellow",
    JobState.RETRYING: "yellow",
    JobState.SUSPENDED: "magenta",
    JobState.PREEMPTED: "magenta",
    JobState.CANCELLED: "bright_black",
    JobState.FAILED: "red",
    JobState.TIMED_OUT: "red",
    JobState.LOST: "red",
    NodeState.READY: "green",
    NodeState.CORDONED: "yellow",
    NodeState.DRAINING: "yellow",
    NodeState.DRAINED: "bright_black",
    NodeState.QUARANTINED: "red",
    ReservationState.ACTIVE: "green",
    ReservationState.PLANNED: "cyan",
    NodeState.UNREACHABLE: "yellow",
    QueueState.OPEN: "green",
    QueueState.PAUSED: "yellow",
}


def safe(text: str) -> str:
    """The text with everything that a terminal would obey made visible instead."""
    return text.translate(_CONTROLS)


def cell(text: object) -> Text:
    """A cell of a table that is shown as it stands, without markup."""
    return Text("" if text is None else safe(str(text)), no_wrap=True, overflow="ellipsis")


def state_cell(state: str) -> Text:
    """A state in its colour."""
    return Text(safe(state.replace("_", " ")), style=_COLOURS.get(state, ""))  # type: ignore[call-overload]


def span(seconds: float | None) -> str:
    """A length of time, `-` where there is none yet."""
    return "-" if seconds is None else format_seconds(seconds)


def moment(at: datetime | None) -> str:
    """A time in the reader's own zone, `-` where there is none yet."""
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def cores(milli: int) -> str:
    """Thousandths as a number without needless zeros: `0.5`, `8`."""
    return f"{milli / 1000:g}"


def files(number: int) -> str:
    """So many files, in words: one is no plural."""
    return "1 file" if number == 1 else f"{number} files"


def short(value: float) -> str:
    """A measured value in a few characters: `2.2G`, `0.031`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.4g}"
