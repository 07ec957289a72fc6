"""Amounts and limits at the edge: asked for in units for people, answered in base units."""

from typing import Any

from marshmallow import fields, post_load

from app.core.amounts import Limits
from app.http.schema import Amount, Strict


class LimitsSchema(Strict):
    """At most so much; what is left out or null is without a limit."""

    cpu_milli = Amount("milli", data_key="cpus", allow_none=True, metadata={"example": 64})
    memory_bytes = Amount("bytes", data_key="memory", allow_none=True, metadata={"example": "512GiB"})
    gpu_milli = Amount("milli", data_key="gpus", allow_none=True, metadata={"example": 8})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Limits:
        """Hand the rules a value, not a dictionary."""
        return Limits(**data)


class AmountsSchema(Strict):
    """So much of each; in a limit what is null is without one."""

    cpu_milli = fields.Integer(allow_none=True)
    memory_bytes = fields.Integer(allow_none=True)
    gpu_milli = fields.Integer(allow_none=True)
