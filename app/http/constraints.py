"""Which nodes would do: said the same way by jobs and by claims outside the queues."""

import re
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from app.core.constraints import KNOWN_TO_SCHEDULER, NODE, Affinity, Constraints, Preference, Term, Topology
from app.http.schema import LABEL_NAME, Integer, Strict, Text
from trellis.vocabulary import Isolation, Strategy, TermOperator

TOLERATION = validate.Regexp(
    r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}(=[\x20-\x7e]{0,200})?$", error="must be the key of a taint, or key=value"
)
LEVEL = validate.Regexp(r"^[a-z][a-z0-9_-]{0,30}$", error="must be a word such as zone or rack")
CACHE_KEY = validate.Regexp(r"^[\x21-\x7e]{1,200}$", error="must be 1 to 200 visible characters")
_NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,9})?", re.ASCII)
_WITHOUT_VALUES = (TermOperator.EXISTS, TermOperator.ABSENT)
_BOUNDS = (TermOperator.ABOVE, TermOperator.BELOW)


class Flag(fields.Boolean):
    """True or false, and nothing that merely looks like it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):  # a 1 is equal to True, and is none
            raise ValidationError("must be true or false")
        return value


class WhereFields(Strict):
    """Which nodes would do."""

    exclusive = Flag(metadata={"description": "nodes with nothing else on them"})
    pool = Text(longest=63, metadata={"description": "of this pool or one within it"})
    labels = fields.Dict(
        fields.String(validate=LABEL_NAME), Text(longest=200), validate=validate.Length(max=64),
        metadata={"description": "labels that the node has, or domains that it lies in", "example": {"zone": "north"}},
    )  # fmt: skip
    tolerates = fields.List(
        fields.String(validate=TOLERATION), validate=validate.Length(max=32),
        metadata={"description": "taints that are no obstacle: their keys, or key=value", "example": ["reserved=vision"]},
    )  # fmt: skip


class TermSchema(Strict):
    """A condition on one label of a node."""

    label = fields.String(required=True, validate=LABEL_NAME, metadata={"example": "zone"})
    operator = fields.Enum(TermOperator, by_value=True, load_default=TermOperator.IN)
    values = fields.List(Text(longest=200), validate=validate.Length(max=64), metadata={"example": ["north"]})

    @validates_schema(skip_on_field_errors=True)
    def fitting_values(self, data: dict[str, Any], **_: Any) -> None:
        """As many values as the operator compares with."""
        operator, values = data["operator"], data.get("values", [])
        if data["label"] == "pool":
            raise ValidationError("is said by `pool` of the constraints, by its name", "label")
        if operator in _WITHOUT_VALUES and values:
            raise ValidationError(f"go not with {operator}: it asks for the label alone", "values")
        if operator in _BOUNDS and not (len(values) == 1 and _NUMBER.fullmatch(values[0])):
            raise ValidationError(f"must be one number, as text, for {operator}", "values")
        if operator not in _WITHOUT_VALUES and not values:
            raise ValidationError(f"are missing: {operator} compares with them", "values")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Term | Preference:
        """Hand the rules a value, not a dictionary."""
        return Term(**data | {"values": tuple(data.get("values", ()))})


class PreferenceSchema(TermSchema):
    """A condition that is worth something where it holds."""

    weight = Integer(least=1, most=100)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Term | Preference:
        """Hand the rules a value, not a dictionary."""
        return Preference(**data | {"values": tuple(data.get("values", ()))})


class AffinitySchema(Strict):
    """Replicas of the project's jobs that carry all of these labels."""

    labels = fields.Dict(
        fields.String(validate=LABEL_NAME), Text(longest=200), required=True, validate=validate.Length(1, 8),
        metadata={"description": f"their names begin with {KNOWN_TO_SCHEDULER}", "example": {"placement/app": "web"}},
    )  # fmt: skip
    level = fields.String(validate=LEVEL, metadata={"description": f"{NODE}, or a level of the topology"})
    required = Flag()

    @validates_schema(skip_on_field_errors=True)
    def known_labels(self, data: dict[str, Any], **_: Any) -> None:
        """Of a job's labels the scheduler knows those alone that are meant for it."""
        if wrong := [name for name in data["labels"] if not name.startswith(KNOWN_TO_SCHEDULER)]:
            way = f"label the jobs {KNOWN_TO_SCHEDULER}{wrong[0]}, and say so here"
            raise ValidationError(f"only labels that begin with {KNOWN_TO_SCHEDULER} are compared: {way}", "labels")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Affinity:
        """Hand the rules a value, not a dictionary."""
        return Affinity(**data)


class JobTopologySchema(Strict):
    """How near to each other the replicas are."""

    level = fields.String(required=True, validate=LEVEL, metadata={"example": "rack"})
    required = Flag(metadata={"description": "false: as few and as narrow domains as there can be"})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Topology:
        """Hand the rules a value, not a dictionary."""
        return Topology(**data)


class ConstraintsSchema(WhereFields):
    """Where the replicas of a job may run, and where they had better."""

    selector = fields.List(fields.Nested(TermSchema), validate=validate.Length(max=32))
    prefers = fields.List(fields.Nested(PreferenceSchema), validate=validate.Length(max=32))
    affinity = fields.List(fields.Nested(AffinitySchema), validate=validate.Length(max=16))
    anti_affinity = fields.List(fields.Nested(AffinitySchema), validate=validate.Length(max=16))
    topology = fields.Nested(JobTopologySchema)
    strategy = fields.Enum(Strategy, by_value=True)
    spot = Flag(metadata={"description": "whether nodes will do that may be taken away at any time"})
    min_isolation = fields.Enum(Isolation, by_value=True)
    data = fields.List(
        fields.String(validate=CACHE_KEY), validate=validate.Length(max=100),
        metadata={"description": "keys of what it reads: nodes that have more of it near at hand are better"},
    )  # fmt: skip

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Constraints:
        """Hand the rules a value, not a dictionary."""
        lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
        return Constraints(**data | lists)
