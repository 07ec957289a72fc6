"""Shapes of requests and answers about queues."""

from typing import Any

from marshmallow import Schema, fields, post_load

from app.http.amounts import AmountsSchema, LimitsSchema
from app.http.schema import NAME, Integer, Strict, Text
from app.queues.service import QueueSpec
from trellis.vocabulary import QueueState


class QueueSchema(Schema):
    """A queue, and how many jobs wait and run in it."""

    id = fields.UUID(attribute="queue.id")
    name = fields.String(attribute="queue.name")
    project_id = fields.UUID(attribute="queue.project_id", metadata={"description": "null where all share it"})
    state = fields.Enum(QueueState, by_value=True, attribute="queue.state")
    weight = fields.Integer(attribute="queue.weight")
    policy = fields.String(attribute="queue.policy")
    second_policy = fields.String(attribute="queue.second_policy")
    pool_id = fields.UUID(attribute="queue.pool_id", allow_none=True)
    pool = fields.String(allow_none=True)
    most = fields.Nested(AmountsSchema, attribute="queue.most")
    most_running = fields.Integer(attribute="queue.most_running", allow_none=True)
    pending = fields.Integer()
    running = fields.Integer()
    held = fields.Nested(AmountsSchema, metadata={"description": "by its jobs, now"})
    waiting_since = fields.AwareDateTime(
        allow_none=True, metadata={"description": "when the one of its jobs was submitted that waits longest"}
    )
    version = fields.Integer(attribute="queue.version")


class QueueChangeSchema(Strict):
    """What shall change of a queue; what is left out stays."""

    weight = Integer(least=1, most=1000)
    policy = Text(longest=40, metadata={"description": "how its jobs are ranked; empty: as the platform does"})
    second_policy = Text(longest=40, metadata={"description": "how those are ranked that the first holds for equal"})
    pool = Text(longest=63, metadata={"description": "to which what its jobs hold is charged; empty for none"})
    most = fields.Nested(LimitsSchema, metadata={"description": "what its jobs hold at most, together"})
    most_running = Integer(least=0, most=10**6, allow_none=True)


class NewQueueSchema(QueueChangeSchema):
    """A queue to be made."""

    name = fields.String(required=True, validate=NAME)
    project_id = fields.UUID(allow_none=True)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> QueueSpec:
        """Hand the rules a value, not a dictionary."""
        return QueueSpec(**data)
