"""What a job leaves: its artifacts, and its log."""

import re
from typing import Any
from uuid import UUID

from flask import Response, current_app, request
from flask.views import MethodView

from app.core.paging import Sort
from app.core.settings import Settings
from app.http.auth import credential_of
from app.http.blueprint import Blueprint
from app.http.downloads import Download, send
from app.http.paging import page_request
from app.http.streaming import Streams
from app.http.transaction import acting, current_uow, door, outside, sessions
from app.jobs import answer_schemas as answers
from app.jobs import query_schemas
from app.jobs.following import Follower
from app.jobs.logs import Cursor, LogFilter
from app.jobs.models import Job
from app.storage import artifacts, schemas, uploads
from app.storage.artifacts import Content, Label, Owner
from app.storage.models import Artifact, Part, Upload
from trellis.errors import Conflict, Field, Invalid, NotFound, TooLarge
from trellis.stores.base import Store

blp = Blueprint("files", __name__, url_prefix="/jobs", description="What jobs leave: files and logs.")
SORTS = {
    "name": Sort(Artifact.name, False), "created_at": Sort(Artifact.created_at, False),
    "size_bytes": Sort(Artifact.size_bytes, False), "type": Sort(Artifact.kind, False),
}  # fmt: skip
SORTS |= {f"-{name}": Sort(sort.column, True) for name, sort in SORTS.items()}
_OFFSET = re.compile(r"[0-9]{1,18}", re.ASCII)
_STANDS = {"description": "where it stands", "headers": {"Upload-Offset": {"schema": {"type": "integer"}}}}


def _settings() -> Settings:
    found: Settings = current_app.extensions["settings"]
    return found


def _store() -> Store:
    found: Store = current_app.extensions["store"]
    return found


def _url(job_id: UUID, *more: object) -> str:
    return "/".join([f"{_settings().public_url}/api/v1/jobs/{job_id}/artifacts", *map(str, more)])


def _shown(artifact: Artifact) -> dict[str, Any]:
    names = (
        "id",
        "name",
        "kind",
        "media_type",
        "details",
        "size_bytes",
        "digest",
        "saved_by",
        "replica_id",
        "created_at",
    )
    return {name: getattr(artifact, name) for name in names} | {"url": _url(artifact.job_id, artifact.id)}


def _underway(upload: Upload) -> dict[str, Any]:
    names = ("id", "name", "size_bytes", "digest", "received_bytes")
    return {name: getattr(upload, name) for name in names} | {"url": _url(upload.job_id, "uploads", upload.id)}


@blp.route("/<uuid:job_id>/artifacts")
class JobArtifacts(MethodView):
    """The files beside a job's results."""

    @blp.arguments(schemas.ArtifactQuerySchema, location="query")
    @blp.response(200, schemas.ArtifactPageSchema)
    def get(self, query: dict[str, Any], job_id: UUID) -> dict[str, Any]:
        """List the files of a job: filter, sort, page."""
        uow = current_uow()
        uow.get(Job, job_id)
        page = artifacts.list_artifacts(uow, job_id, query, page_request(query, SORTS, "name"))
        return {"items": [_shown(artifact) for artifact in page.items], "next_cursor": page.next_cursor}

    @blp.arguments(schemas.NewArtifactSchema)
    @blp.response(201, schemas.SendingSchema)
    def post(self, new: tuple[Label, Content], job_id: UUID) -> Any:
        """Begin to send a file, or find how far it was sent before; the bytes then go to the upload's address."""
        uow = current_uow()
        job = uow.get(Job, job_id)
        found = uploads.begin(uow, Owner(job.project_id, job.id), *new, _settings())
        if isinstance(found, Artifact):
            return {"artifact": _shown(found), "upload": None}, 200
        return {"artifact": None, "upload": _underway(found)}, 201, {"Location": _underway(found)["url"]}


@blp.route("/<uuid:job_id>/artifacts/<uuid:artifact_id>")
class JobArtifact(MethodView):
    """One file."""

    @blp.doc(responses={"206": {"description": "the range that was asked for"}, "304": {"description": "you have it"}})
    @blp.response(200, content_type="application/octet-stream")
    def get(self, job_id: UUID, artifact_id: UUID) -> Response:
        """Download a file, or with `Range` a part of it."""
        uow, store = current_uow(), _store()
        artifact = artifacts.get(uow, job_id, artifact_id)
        places = artifacts.opened(artifact, artifacts.parts_of(uow, artifact_id))
        with artifacts.as_answers():
            if any(store.head(key) is None for key, _ in places[:1]):
                raise NotFound(f"the content of {artifact.name} is no longer in the store")
        read = lambda start, end: artifacts.pieces(store, places, start, end)  # noqa: E731  # in its place it reads best
        return send(Download(artifact.name, artifact.size_bytes, artifact.digest, read))

    @blp.response(204)
    def delete(self, job_id: UUID, artifact_id: UUID) -> None:
        """Forget a file."""
        artifacts.remove(current_uow(), job_id, artifact_id)


@blp.route("/<uuid:job_id>/artifacts/uploads/<uuid:upload_id>")
class JobUpload(MethodView):
    """One file on its way."""

    @blp.response(200, schemas.UploadSchema)
    def get(self, job_id: UUID, upload_id: UUID) -> Any:
        """Show how far an upload has come: `Upload-Offset` is where the rest begins."""
        upload = uploads.get(current_uow(), job_id, upload_id)
        return _underway(upload), 200, {"Upload-Offset": str(upload.received_bytes)}

    @outside
    @blp.doc(
        parameters=[{"in": "header", "name": "Upload-Offset", "required": True, "schema": {"type": "integer"}}],
        requestBody={"required": True, "content": {"application/octet-stream": {}}},
        responses={"200": _STANDS},
    )
    @blp.response(200, schemas.SendingSchema)
    def patch(self, job_id: UUID, upload_id: UUID) -> Any:
        """Send bytes from `Upload-Offset` on: all that are missing, or some; the last ones bring the artifact.

        What arrived before a connection broke is kept.
        """
        upload = _take_in(acting(lambda uow: uploads.get(uow, job_id, upload_id)))
        if upload.received_bytes < upload.size_bytes:
            return {"upload": _underway(upload)}, 200, {"Upload-Offset": str(upload.received_bytes)}
        return {"artifact": _finish(upload)}

    @blp.response(204)
    def delete(self, job_id: UUID, upload_id: UUID) -> None:
        """Give up an upload."""
        uow = current_uow()
        uploads.give_up(uow, uploads.get(uow, job_id, upload_id, lock=True))


def _take_in(upload: Upload) -> Upload:
    """Store the request's body, in no transaction, and note it in one."""
    said = request.headers.get("Upload-Offset", "")
    if not _OFFSET.fullmatch(said):
        raise Invalid(Field("/upload-offset", "send the header Upload-Offset: from which byte on this is"))
    offset = int(said)
    uploads.stand_at(upload, offset)
    left = upload.size_bytes - offset
    if left == 0 and offset:
        return upload  # all was there, and the answer to the last bytes was lost
    if (request.content_length or 0) > left:
        raise TooLarge(Field("", f"is longer than the {left} bytes that are missing"))
    request.max_content_length = left + 1  # reading as far as the limit would be refused as too much
    store, key = _store(), uploads.new_key(upload)
    written = artifacts.write(store, key, artifacts.incoming(request.stream.read, left))
    if left and not written.size_bytes:
        store.delete(key)
        return upload
    part = Part(file_id=upload.id, offset=offset, size_bytes=written.size_bytes, key=key)
    try:
        return acting(lambda uow: uploads.append(uow, upload.job_id, upload.id, part))
    except (Conflict, NotFound, Invalid):  # somebody was faster with the same bytes, or the upload was given up
        store.delete(key)
        raise


def _finish(upload: Upload) -> dict[str, Any]:
    """Read back what was sent; it becomes an artifact, or is thrown away. Raises Invalid for another digest."""
    parts = acting(lambda uow: uploads.places(uow, upload.job_id, upload.id))
    digest = uploads.digest_of(_store(), parts)
    if digest != upload.digest:
        acting(lambda uow: uploads.give_up(uow, uploads.get(uow, upload.job_id, upload.id, lock=True)))
        raise Invalid(Field("/digest", f"the bytes that arrived have SHA-256 {digest}: send the file anew"))
    return _shown(acting(lambda uow: uploads.finish(uow, upload.job_id, upload.id)))


@blp.route("/<uuid:job_id>/logs")
class JobLogs(MethodView):
    """What a job prints."""

    @outside
    @blp.arguments(query_schemas.LogQuerySchema, location="query")
    @blp.response(200, answers.LogPageSchema)
    def get(self, query: dict[str, Any], job_id: UUID) -> Any:
        """Read a log, with `grep` its lines that match (RE2); with `follow`, as Server-Sent Events that resume by `Last-Event-ID`."""
        credential, at_door = credential_of(request), door()
        wanted = LogFilter(*(query.get(name) for name in ("attempt", "replica", "stream", "since", "tail", "grep")))
        cursor = Cursor.parse(request.headers.get("Last-Event-ID") or query.get("cursor"))
        follower = Follower(sessions(), lambda uow: at_door.actor(uow, credential), job_id, cursor)
        first = follower.read(wanted)
        if not query["follow"]:
            lines = [line.as_json() for line in first.part.lines]
            return {"lines": lines, "cursor": str(cursor), "more": first.part.more}
        streams: Streams = current_app.extensions["streams"]
        return streams.open(follower.stream(current_app.extensions["feeds"], first))
