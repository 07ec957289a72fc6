"""Shapes of answers about checkpoints."""

from marshmallow import fields

from app.http.schema import Strict
from trellis.vocabulary import SaveReason


class SavedCheckpointSchema(Strict):
    """What a job can go on from."""

    id = fields.UUID()
    job_id = fields.UUID()
    project_id = fields.UUID()
    replica = fields.Integer()
    attempt = fields.Integer()
    reason = fields.Enum(SaveReason, by_value=True)
    step = fields.Integer(allow_none=True)
    metrics = fields.Dict(fields.String(), fields.Float())
    files = fields.Integer()
    size_bytes = fields.Integer()
    new_bytes = fields.Integer(metadata={"description": "what the checkpoints before it did not hold"})
    stored_bytes = fields.Integer(metadata={"description": "what it took in the store"})
    damaged = fields.Boolean()
    created_at = fields.AwareDateTime()
    url = fields.String(metadata={"description": "its signed manifest in the store"})


class SavedCheckpointListSchema(Strict):
    """The checkpoints of a job."""

    items = fields.List(fields.Nested(SavedCheckpointSchema))
    next_cursor = fields.String(allow_none=True)
