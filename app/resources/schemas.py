"""Shapes of requests and answers about hardware."""

from marshmallow import fields, validate

from app.http.schema import Integer, QueryInteger, Strict, Text
from trellis.vocabulary import Isolation, NodeState


class GpuSchema(Strict):
    """A device and its last reading."""

    index = fields.Integer()
    uuid = fields.String()
    model = fields.String()
    memory_bytes = fields.Integer()
    milli_used = fields.Integer()
    numa = fields.Integer()
    links = fields.List(fields.Integer())
    utilisation_percent = fields.Integer(allow_none=True)
    memory_used_bytes = fields.Integer(allow_none=True)
    temperature_c = fields.Integer(allow_none=True)
    power_w = fields.Integer(allow_none=True)
    healthy = fields.Boolean(allow_none=True)


class HolderSchema(Strict):
    """A job that holds a part of the node."""

    job_id = fields.UUID()
    name = fields.String()
    cpu_milli = fields.Integer()
    memory_bytes = fields.Integer()


class NodeSchema(Strict):
    """A node; `jobs` are those the caller may see."""

    id = fields.UUID()
    name = fields.String()
    hostname = fields.String()
    state = fields.Enum(NodeState, by_value=True)
    isolation = fields.Enum(Isolation, by_value=True)
    isolation_detail = fields.String()
    cpu_milli = fields.Integer()
    cpu_milli_used = fields.Integer()
    memory_bytes = fields.Integer()
    memory_bytes_used = fields.Integer()
    gpu_model = fields.String()
    profile = fields.String()
    labels = fields.Dict(fields.String(), fields.String())
    last_seen_at = fields.AwareDateTime()
    load_percent = fields.Integer(allow_none=True)
    gpus = fields.List(fields.Nested(GpuSchema))
    jobs = fields.List(fields.Nested(HolderSchema))
    version = fields.Integer()


class NodePageSchema(Strict):
    """A page of nodes."""

    items = fields.List(fields.Nested(NodeSchema))
    next_cursor = fields.String(allow_none=True)


class NodeQuerySchema(Strict):
    """Filters of a list of nodes."""

    state = fields.List(fields.Enum(NodeState, by_value=True))
    gpu_type = Text(longest=63)
    label = fields.List(Text(longest=270))
    limit = QueryInteger(least=1, most=500, load_default=50)
    cursor = fields.String(validate=validate.Length(max=1000))
    sort = fields.String()


class JoinTokenRequestSchema(Strict):
    """A token to be made."""

    name = Text(longest=63, load_default="")
    expires_in_s = Integer(least=60, most=31_536_000, load_default=86_400)


class JoinTokenSchema(Strict):
    """A token, shown once."""

    id = fields.UUID()
    token = fields.String()
    expires_at = fields.AwareDateTime()
