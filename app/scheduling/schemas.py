"""Shapes of requests about capacity outside the queues."""

from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from app.core.amounts import Amounts
from app.http.schema import LABEL_NAME, Amount, Integer, Strict, Text
from app.resources.candidates import Part
from app.resources.gpus import gpu_type
from app.scheduling.claims import AllocationSpec, MaintenanceSpec, ReservationSpec

MOST_PARTS = 1000
AMOUNTS = frozenset(Amounts.__slots__)
PART = frozenset(Part.__slots__) - {"amounts"}


class PartFields(Strict):
    """What is asked for of one node, and which nodes would do."""

    cpu_milli = Amount("milli", least=1, most=4096_000, data_key="cpus", load_default=1000, metadata={"example": 4})
    memory_bytes = Amount(
        "bytes", least=1 << 20, most=1 << 50, data_key="memory", load_default=1 << 30, metadata={"example": "16GiB"}
    )
    gpu_milli = Amount("milli", least=0, most=64_000, data_key="gpus", load_default=0, metadata={"example": 1})
    gpu_type = Text(longest=63)
    exclusive = fields.Boolean(
        truthy={True}, falsy={False}, metadata={"description": "a whole node that has at least so much"}
    )
    pool = Text(longest=63, metadata={"description": "of this pool or one within it"})
    labels = fields.Dict(
        fields.String(validate=LABEL_NAME), Text(longest=200), validate=validate.Length(max=64),
        metadata={"description": "labels that the node has, or domains that it lies in", "example": {"zone": "north"}},
    )  # fmt: skip
    tolerates = fields.List(
        fields.String(validate=LABEL_NAME), validate=validate.Length(max=32),
        metadata={"description": "keys of taints that are no obstacle"},
    )  # fmt: skip

    @validates_schema(skip_on_field_errors=True)
    def whole_or_share(self, data: dict[str, Any], **_: Any) -> None:
        """A share is of one device; above that only whole devices."""
        milli = data["gpu_milli"]
        if milli > 1000 and milli % 1000:
            raise ValidationError("must be whole above 1: a share is of one device", "gpus")
        if data.get("gpu_type") and not milli:
            raise ValidationError("asks for a GPU model, yet gpus is 0", "gpu_type")

    @staticmethod
    def split(data: dict[str, Any]) -> dict[str, Any]:
        """The loaded body with the fields of a part made one."""
        said = {name: data[name] for name in PART if name in data}
        if "gpu_type" in said:
            said["gpu_type"] = gpu_type(said["gpu_type"])
        if "tolerates" in said:
            said["tolerates"] = tuple(said["tolerates"])
        part = Part(Amounts(**{name: data[name] for name in AMOUNTS}), **said)
        return {name: value for name, value in data.items() if name not in AMOUNTS | PART} | {"part": part}


class AllocateSchema(PartFields):
    """A part of one node, to be held now."""

    project = Text(longest=63, metadata={"description": "its name or id; your only one if left out"})
    name = Text(longest=200)
    ttl_s = Amount("seconds", least=1, most=7 * 86_400, data_key="ttl", metadata={"example": "2h"})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> AllocationSpec:
        """Hand the rules a value, not a dictionary."""
        return AllocationSpec(**self.split(data))


class ReserveSchema(PartFields):
    """Parts of nodes, to be claimed over a window."""

    project = Text(longest=63, metadata={"description": "its name or id; your only one if left out"})
    name = Text(longest=200)
    count = Integer(least=1, most=MOST_PARTS)
    starts_at = fields.AwareDateTime(allow_none=True, metadata={"description": "now, if left out"})
    ends_at = fields.AwareDateTime(required=True)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> ReservationSpec:
        """Hand the rules a value, not a dictionary."""
        return ReservationSpec(**self.split(data))


class MaintenanceSchema(Strict):
    """Whole nodes, to be free for work on them."""

    nodes = fields.List(
        Text(longest=63), required=True, validate=validate.Length(1, MOST_PARTS), metadata={"description": "names"}
    )
    name = Text(longest=200)
    starts_at = fields.AwareDateTime(allow_none=True, metadata={"description": "now, if left out"})
    ends_at = fields.AwareDateTime(required=True)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> MaintenanceSpec:
        """Hand the rules a value, not a dictionary."""
        return MaintenanceSpec(**data | {"nodes": tuple(dict.fromkeys(data["nodes"]))})
