"""Shapes of questions about jobs that exist, and of changes to them."""

import re
from datetime import timedelta
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from app.http.schema import QueryInteger, Strict, Text
from app.jobs.groups import Change
from app.jobs.patterns import LONGEST
from app.jobs.schemas import parse_indexes
from app.jobs.series import AGGREGATES, MOST_SERIES, SeriesQuery
from trellis.units import parse_seconds
from trellis.vocabulary import JobState, Stream

_AGO = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?[smhd]", re.ASCII)
_LONGEST_AGO = timedelta(days=36_500)


class StatusChangeSchema(Strict):
    """What to do with a job."""

    action = fields.String(
        required=True, validate=validate.OneOf(["cancel", "suspend", "resume", "migrate", "retry", "give_up"])
    )
    reason = Text(longest=500, load_default="")
    force = fields.Boolean(truthy={True}, falsy={False}, load_default=False)
    to = Text(longest=63, metadata={"description": "of migrate: the node to go to; any but its own if not said"})

    @validates_schema(skip_on_field_errors=True)
    def only_moves_have_an_aim(self, data: dict[str, Any], **_: Any) -> None:
        """Nothing is ignored."""
        if "to" in data and data["action"] != "migrate":
            raise ValidationError("is for migrate alone", "to")


class WorkflowStatusSchema(Strict):
    """What to do with a workflow."""

    action = fields.String(required=True, validate=validate.OneOf(["cancel", "suspend", "resume"]))
    reason = Text(longest=500, load_default="")
    force = fields.Boolean(truthy={True}, falsy={False}, load_default=False)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Change:
        """Hand the rules a value."""
        return Change(**data)


class ArrayStatusSchema(WorkflowStatusSchema):
    """What to do with an array, or with some elements of it; `retry` submits those again that failed."""

    action = fields.String(required=True, validate=validate.OneOf(["cancel", "suspend", "resume", "retry"]))
    elements = Text(longest=1000, metadata={"example": "0-9,20-40:2"})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Change:
        """Hand the rules a value."""
        if "elements" in data:
            data["elements"] = parse_indexes(data["elements"], "elements")
        return Change(**data)


class JobQuerySchema(Strict):
    """Filters of a list of jobs."""

    project = Text(longest=63)
    state = fields.List(fields.Enum(JobState, by_value=True))
    queue = Text(longest=63)
    user = Text(longest=200)
    name = Text(longest=200)
    label = fields.List(Text(longest=270), metadata={"example": ["team:vision"]})
    array_id = fields.UUID()
    workflow_id = fields.UUID()
    grouped = fields.Boolean(metadata={"description": "arrays and workflows as one line each"})
    submitted_after = fields.AwareDateTime()
    submitted_before = fields.AwareDateTime()
    started_after = fields.AwareDateTime()
    started_before = fields.AwareDateTime()
    ended_after = fields.AwareDateTime()
    ended_before = fields.AwareDateTime()
    sort = fields.String()
    limit = QueryInteger(least=1, most=500, load_default=50)
    cursor = fields.String(validate=validate.Length(max=1000))


class VerboseSchema(Strict):
    """How much to say."""

    verbose = fields.Boolean(load_default=False)


class Since(fields.AwareDateTime):
    """A moment, or how long ago: `10m`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and _AGO.fullmatch(value):
            if (ago := timedelta(seconds=parse_seconds(value))) > _LONGEST_AGO:
                raise ValidationError(f"must be at most {_LONGEST_AGO.days}d ago")
            return ago
        return super()._deserialize(value, attr, data, **kwargs)


class LogQuerySchema(Strict):
    """Which lines of a log."""

    tail = QueryInteger(least=0, most=100_000)
    since = Since(metadata={"description": "a time, or how long ago, such as 10m", "example": "10m"})
    replica = QueryInteger(least=0, most=4095)
    attempt = QueryInteger(least=1, most=1_000_000)
    stream = fields.Enum(Stream, by_value=True)
    cursor = fields.String(validate=validate.Length(max=100_000))
    grep = Text(longest=LONGEST, shortest=1, metadata={"description": "a regular expression in RE2 syntax"})
    follow = fields.Boolean(load_default=False)


class EventQuerySchema(Strict):
    """Which events."""

    kind = Text(longest=60)
    limit = QueryInteger(least=1, most=500, load_default=50)
    cursor = fields.String(validate=validate.Length(max=1000))


class MetricQuerySchema(Strict):
    """One series, or the latest value of each."""

    name = Text(longest=200)
    limit = QueryInteger(least=1, most=10_000, load_default=1000)


class SeriesQuerySchema(Strict):
    """Metrics over time."""

    names = fields.List(
        Text(longest=200), validate=validate.Length(max=MOST_SERIES),
        metadata={"description": "all of the job's, if not said", "example": ["loss"]},
    )  # fmt: skip
    start = fields.AwareDateTime(data_key="from")
    end = fields.AwareDateTime(data_key="to")
    resolution_s = QueryInteger(least=1, most=31_536_000, data_key="resolution", metadata={"description": "seconds"})
    agg = fields.String(validate=validate.OneOf(sorted(AGGREGATES)), load_default="mean")
    replica = QueryInteger(least=0, most=4095)
    each_replica = fields.Boolean(metadata={"description": "each replica by itself, not all together"})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> SeriesQuery:
        """Hand the rules a value."""
        return SeriesQuery(**data | {"names": tuple(data.get("names", ()))})
