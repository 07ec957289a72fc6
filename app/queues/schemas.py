"""Shapes of requests and answers about queues."""

from typing import Any

from marshmallow import Schema, fields, post_load

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
    pending = fields.Integer()
    running = fields.Integer()
    version = fields.Integer(attribute="queue.version")


class NewQueueSchema(Strict):
    """A queue to be made."""

    name = fields.String(required=True, validate=NAME)
    project_id = fields.UUID(allow_none=True)
    weight = Integer(least=1, most=1000)
    policy = Text(longest=40)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> QueueSpec:
        """Hand the rules a value, not a dictionary."""
        return QueueSpec(**data)


class ReasonSchema(Strict):
    """Why, for the record."""

    reason = Text(longest=500)
