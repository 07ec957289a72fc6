"""Shapes of requests and answers about code, checkpoints and artifacts."""

from typing import Any

from marshmallow import ValidationError, fields, post_load

from app.http.paging import PageQuery
from app.http.schema import Amount, Integer, Strict, Text
from app.storage.artifacts import Content, Label
from app.storage.bundles import Draft
from app.storage.imports import LONGEST_S, SHORTEST_S
from app.storage.tickets import LONGEST
from trellis.bundles.manifest import Manifest
from trellis.units import LARGEST
from trellis.vocabulary import SaveReason
from trellis.wire import unpack

_ENTRY = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "description": "below the directory, with `/` between its parts"},
        "mode": {"type": "integer", "enum": [0o644, 0o755]},
        "size_bytes": {"type": "integer"},
        "digest": {"type": "string", "description": "SHA-256 in hex"},
        "link": {"type": "string", "description": "of a symbolic link: where it leads, and no mode, size or digest"},
    },
}


class Files(fields.Field[Manifest]):
    """The entries of a manifest: read by hand, because a schema for each would cost seconds where there are many."""

    def __init__(self, **options: Any) -> None:
        super().__init__(metadata={"type": "array", "items": _ENTRY}, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Manifest:
        try:
            return unpack(Manifest, {"files": value})
        except ValueError as error:
            raise ValidationError(str(error)) from error


class DraftSchema(Strict):
    """A directory to keep."""

    project = Text(longest=63)
    name = Text(longest=200, metadata={"description": "what people know it by", "example": "train"})
    files = Files(required=True)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Draft:
        """Hand the rules a value."""
        return Draft(data.pop("files"), **data)


class BundleSchema(Strict):
    """A directory of code."""

    id = fields.UUID()
    project_id = fields.UUID()
    digest = fields.String()
    name = fields.String()
    size_bytes = fields.Integer()
    files = fields.Integer(metadata={"description": "how many, links too"})
    user = fields.String(attribute="actor_name")
    created_at = fields.AwareDateTime()
    used_at = fields.AwareDateTime()


class KeptSchema(Strict):
    """The bundle; or null, and the digests of what must be sent first."""

    bundle = fields.Nested(BundleSchema, allow_none=True)
    missing = fields.List(fields.String())


class ManifestSchema(Strict):
    """What is in a bundle."""

    items = fields.List(fields.Raw(metadata=_ENTRY))


class SentSchema(Strict):
    """What arrived."""

    stored = fields.Integer(metadata={"description": "contents that were new"})
    known = fields.Integer(metadata={"description": "contents that were there already"})


class ProjectQuerySchema(Strict):
    """Whose."""

    project = Text(longest=63, load_default="")


class BundleQuerySchema(PageQuery):
    """Which bundles."""

    project = Text(longest=63)


class SavedCheckpointSchema(Strict):
    """What a job can go on from."""

    id = fields.UUID()
    job_id = fields.UUID(allow_none=True, metadata={"description": "null of one that was imported"})
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
    parts = fields.Integer(metadata={"description": "of use only with so many of its step, one of each replica"})
    damaged = fields.Boolean()
    created_at = fields.AwareDateTime()
    url = fields.String(metadata={"description": "its signed manifest in the store"})
    cluster = fields.String(metadata={"description": "that it was imported from; empty for this one"})
    until = fields.AwareDateTime(allow_none=True, metadata={"description": "how long an imported one may be read"})
    exported_until = fields.AwareDateTime(
        allow_none=True, metadata={"description": "how long it is kept for other clusters to read"}
    )


class SavedCheckpointListSchema(Strict):
    """The checkpoints of a job."""

    items = fields.List(fields.Nested(SavedCheckpointSchema))
    next_cursor = fields.String(allow_none=True)


class ArtifactSchema(Strict):
    """A file beside a job's results."""

    id = fields.UUID()
    name = fields.String()
    type = fields.String(attribute="kind", metadata={"example": "model"})
    media_type = fields.String()
    metadata = fields.Dict(attribute="details")
    size_bytes = fields.Integer()
    digest = fields.String(metadata={"description": "SHA-256 in hex"})
    saved_by = fields.String(metadata={"description": "a user, or the node that a replica ran on"})
    replica_id = fields.UUID(allow_none=True, metadata={"description": "null where somebody put it there"})
    created_at = fields.AwareDateTime()
    url = fields.String()


class ArtifactPageSchema(Strict):
    """Files of a job."""

    items = fields.List(fields.Nested(ArtifactSchema))
    next_cursor = fields.String(allow_none=True)


class ArtifactQuerySchema(PageQuery):
    """Which files of a job."""

    under = Text(longest=255, metadata={"description": "those in this folder"})
    name = Text(longest=255, metadata={"description": "those whose name holds this"})
    type = Text(longest=40)


class UploadSchema(Strict):
    """A file that is being sent: what is missing begins at `received_bytes`."""

    id = fields.UUID()
    name = fields.String()
    size_bytes = fields.Integer()
    digest = fields.String()
    received_bytes = fields.Integer()
    url = fields.String(metadata={"description": "where to send the rest"})


class SendingSchema(Strict):
    """The artifact, where all of it is there; else the upload."""

    artifact = fields.Nested(ArtifactSchema, allow_none=True)
    upload = fields.Nested(UploadSchema, allow_none=True)


class NewArtifactSchema(Strict):
    """A file to be sent."""

    name = Text(longest=255, required=True, metadata={"example": "plots/loss.png"})
    type = Text(longest=40, load_default="", metadata={"description": "guessed by the name, if not said"})
    media_type = Text(longest=100, load_default="", metadata={"description": "likewise"})
    metadata = fields.Dict(fields.String(), load_default=dict, metadata={"description": "any JSON object"})
    size_bytes = Integer(least=0, most=LARGEST, required=True)
    digest = Text(longest=64, required=True, metadata={"description": "its SHA-256 in hex"})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> tuple[Label, Content]:
        """Hand the rules values."""
        label = Label(data["name"], data["type"], data["media_type"], data["metadata"])
        return label, Content(data["digest"], data["size_bytes"])


class ExportSchema(Strict):
    """For how long."""

    for_s = Amount(
        "seconds", least=SHORTEST_S, most=LONGEST_S, data_key="for", load_default=7 * 86_400,
        metadata={"description": "up to 90 days; 7 days if not said", "example": "7d"},
    )  # fmt: skip


class TicketSchema(Strict):
    """What another cluster takes for leave to read a checkpoint."""

    ticket = fields.String()
    until = fields.AwareDateTime()


class ImportSchema(Strict):
    """A ticket of another cluster, and whose the checkpoint is to be here."""

    ticket = Text(required=True, longest=LONGEST, shortest=1)
    project = Text(longest=63, load_default="")


class ImportQuerySchema(PageQuery):
    """Which imported checkpoints."""

    project = Text(longest=63)


class CheckpointKeySchema(Strict):
    """What other clusters know this one's checkpoints by; nothing of it is secret."""

    public_key = fields.String(metadata={"description": "Ed25519, in hex"})
    store_url = fields.String(metadata={"description": "where this cluster's nodes reach its store"})
