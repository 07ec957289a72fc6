"""When a schedule fires: cron in a time zone, or an interval. Pure.

A time that the clocks skip in spring fires right after the gap, and one that they show twice in autumn fires once, as cron
does it (by the cronsim library); an interval counts seconds, whatever the clocks say.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

SHORTEST_S = 10


@dataclass(frozen=True, slots=True)
class Timetable:
    """Fires at `cron` in `zone`, or every `every_s` seconds from `starts_at` on (1 January 2000, where that is not said)."""

    cron: str = ""
    zone: str = "UTC"
    every_s: int | None = None
    starts_at: datetime | None = None

    def next_after(self, moment: datetime) -> datetime | None:
        """The first fire time after that moment, in UTC; None where there is none any more."""
        return next(self.after(moment), None)

    def last_until(self, moment: datetime) -> datetime | None:
        """The last fire time that is not after that moment, in UTC; None where there was none."""
        if self.every_s is not None:
            first = self.starts_at or datetime(2000, 1, 1, tzinfo=UTC)
            step = timedelta(seconds=self.every_s)
            return None if moment < first else (first + (moment - first) // step * step).astimezone(UTC)
        local = (moment + timedelta(seconds=1)).astimezone(ZoneInfo(self.zone))
        last = next(CronSim(self.cron, local, reverse=True), None)
        return None if last is None else last.astimezone(UTC)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """All fire times after that moment, in UTC."""
        if self.every_s is not None:
            first = self.starts_at or datetime(2000, 1, 1, tzinfo=UTC)
            step = timedelta(seconds=self.every_s)
            due = first if moment < first else first + ((moment - first) // step + 1) * step
            while True:
                yield due.astimezone(UTC)
                due += step
        began = moment if self.starts_at is None else max(moment, self.starts_at - timedelta(seconds=1))
        for due in CronSim(self.cron, began.astimezone(ZoneInfo(self.zone))):
            yield due.astimezone(UTC)


def cron_fault(text: str) -> str | None:
    """What is wrong with a cron expression; None where nothing is."""
    if len(text.split()) != 5:
        return "must have five fields: minute, hour, day, month, weekday, such as 30 2 * * 1-5"
    try:
        first = next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        return f"is no cron expression: {str(error) or 'a field is out of its range'}"
    return None if first is not None else "never fires"


def zone_fault(name: str) -> str | None:
    """What is wrong with the name of a time zone; None where nothing is."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # the library raises each of them, by what the name looks like
        return f"is no time zone: {name!r}; they are named such as Europe/Berlin"
    return None
