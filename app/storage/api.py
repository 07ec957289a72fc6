"""Endpoints of what is kept: directories of code that jobs run in, and checkpoints that they can go on from."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import Response, current_app, request
from flask.views import MethodView

from app.core.access import Permission
from app.core.paging import Page, Sort
from app.core.settings import Settings
from app.core.uow import UnitOfWork
from app.http.blueprint import Blueprint
from app.http.limits import takes
from app.http.paging import page_of, page_request
from app.http.transaction import acting, current_uow, outside, signed_in
from app.storage import archive, blobs, bundles, checkpoints, imports, schemas
from app.storage.bundles import Draft, Kept
from app.storage.checkpoints import Place
from app.storage.models import Bundle, Checkpoint
from trellis.stores.base import Store
from trellis.wire import pack

code = Blueprint("bundles", __name__, url_prefix="/bundles", description="Directories of code that jobs run in.")
saves = Blueprint("checkpoints", __name__, url_prefix="/checkpoints", description="What jobs can go on from.")
BLUEPRINTS = (code, saves)
SORTS = {"created_at": Sort(Bundle.created_at, False), "used_at": Sort(Bundle.used_at, False)}
SORTS |= {f"-{name}": Sort(sort.column, True) for name, sort in SORTS.items()}
IMPORT_SORTS = {"-created_at": Sort(Checkpoint.created_at, True), "created_at": Sort(Checkpoint.created_at, False)}
MANIFEST_BYTES = 32 * 2**20


def _settings() -> Settings:
    found: Settings = current_app.extensions["settings"]
    return found


def _store() -> Store:
    found: Store = current_app.extensions["store"]
    return found


def _shown(uow: UnitOfWork, rows: Sequence[Checkpoint]) -> list[dict[str, Any]]:
    origins = checkpoints.origins_of(uow, rows)
    return [checkpoints.present(row, _place(), origins.get(row.id)) for row in rows]


def _place() -> Place:
    place: Place = current_app.extensions["checkpoints"]
    return place


@code.route("")
class Bundles(MethodView):
    """The collection."""

    @code.arguments(schemas.BundleQuerySchema, location="query")
    @code.response(200, page_of(schemas.BundleSchema))
    def get(self, query: dict[str, Any]) -> Page[Bundle]:
        """List the bundles of one's projects, the last made first."""
        wanted = page_request(query, SORTS, "-created_at")
        return bundles.list_bundles(current_uow(), query.get("project", ""), wanted)

    @takes(MANIFEST_BYTES)
    @code.arguments(schemas.DraftSchema)
    @code.response(200, schemas.KeptSchema)
    def put(self, draft: Draft) -> Kept:
        """Keep a directory whose contents were sent, or hear what of them is missing; again and again is the same."""
        return bundles.keep(current_uow(), draft, _settings())


@code.route("/blobs")
class Blobs(MethodView):
    """Contents on their way."""

    @outside
    @signed_in
    @code.doc(requestBody={"required": True, "content": {"application/octet-stream": {}}})
    @code.arguments(schemas.ProjectQuerySchema, location="query")
    @code.response(200, schemas.SentSchema)
    def put(self, query: dict[str, Any]) -> dict[str, int]:
        """Send contents: of each the 32 bytes of its SHA-256, its length in eight bytes, most significant first, and its bytes.

        What was whole when the connection broke is kept.
        """
        settings, store = _settings(), _store()
        request.max_content_length = settings.bundle_bytes + MANIFEST_BYTES
        depot = acting(lambda uow: blobs.open_depot(uow, query["project"], settings.project_code_bytes))
        kept: list[blobs.Stored] = []
        try:
            blobs.take_in(store, depot, request.stream.read, kept)
        finally:  # no transaction is open while bytes travel; what is whole by then need not travel again
            known = acting(lambda uow: blobs.record(uow, depot.project_id, kept))
            for key in known:
                store.delete(key)
        return {"stored": len(kept) - len(known), "known": len(known)}


@code.route("/<uuid:bundle_id>")
class OneBundle(MethodView):
    """One bundle."""

    @code.response(200, schemas.BundleSchema)
    def get(self, bundle_id: UUID) -> Bundle:
        """Read a bundle."""
        return current_uow().get(Bundle, bundle_id)

    @code.response(204)
    def delete(self, bundle_id: UUID) -> None:
        """Forget a bundle that no job needs any more."""
        bundles.remove(current_uow(), bundle_id, current_app.extensions["bundles_needed"])


@code.route("/<uuid:bundle_id>/files")
class BundleFiles(MethodView):
    """What is in a bundle."""

    @code.response(200, schemas.ManifestSchema)
    def get(self, bundle_id: UUID) -> dict[str, Any]:
        """List the files of a bundle, by path."""
        return {"items": pack(bundles.manifest_of(current_uow().get(Bundle, bundle_id)).files)}


@code.route("/<uuid:bundle_id>/blobs")
class BundleBlobs(MethodView):
    """The contents of a bundle."""

    @code.response(200, content_type="application/octet-stream")
    def get(self, bundle_id: UUID) -> Response:
        """Download the contents of a bundle, in the form in which they are sent."""
        uow = current_uow()
        bundle = uow.get(Bundle, bundle_id)
        return Response(bundles.contents(uow, _store(), bundle.id), mimetype="application/octet-stream")


@saves.route("/<uuid:checkpoint_id>")
class CheckpointItem(MethodView):
    """One checkpoint."""

    @saves.response(200, schemas.SavedCheckpointSchema)
    def get(self, checkpoint_id: UUID) -> dict[str, Any]:
        """Show a checkpoint."""
        uow = current_uow()
        return _shown(uow, [uow.get(Checkpoint, checkpoint_id)])[0]

    @saves.response(204)
    def delete(self, checkpoint_id: UUID) -> None:
        """Forget a checkpoint; what only it held leaves the store soon after."""
        checkpoints.remove_checkpoint(current_uow(), checkpoint_id)


@saves.route("/<uuid:checkpoint_id>/archive")
class CheckpointArchive(MethodView):
    """The files of a checkpoint."""

    @saves.response(200, content_type="application/x-tar")
    def get(self, checkpoint_id: UUID) -> Response:
        """Download the files of a checkpoint as a tar archive, every chunk checked."""
        uow = current_uow()
        found = uow.get(Checkpoint, checkpoint_id)
        store, manifest = checkpoints.read_manifest(uow, _place(), found)
        response = Response(archive.stream(store, manifest, found.created_at.timestamp()), mimetype="application/x-tar")
        response.headers.set("Content-Disposition", "attachment", filename=f"checkpoint-{found.id}.tar")
        return response


@saves.route("/<uuid:checkpoint_id>/exports")
class CheckpointExports(MethodView):
    """How another cluster may go on from it."""

    @saves.arguments(schemas.ExportSchema)
    @saves.response(201, schemas.TicketSchema)
    def post(self, body: dict[str, Any], checkpoint_id: UUID) -> dict[str, Any]:
        """Issue a ticket by which a cluster that trusts this one may read a checkpoint; until it runs out it is kept."""
        return imports.export(current_uow(), _place(), checkpoint_id, body["for_s"])


@saves.route("/imports")
class CheckpointImports(MethodView):
    """Checkpoints of other clusters."""

    @saves.arguments(schemas.ImportQuerySchema, location="query")
    @saves.response(200, page_of(schemas.SavedCheckpointSchema))
    def get(self, query: dict[str, Any]) -> Page[dict[str, Any]]:
        """List the checkpoints that were imported into one's projects, the newest first."""
        uow = current_uow()
        found = imports.list_imports(uow, query.get("project", ""), page_request(query, IMPORT_SORTS, "-created_at"))
        return Page(_shown(uow, found.items), found.next_cursor)

    @outside
    @signed_in
    @saves.arguments(schemas.ImportSchema)
    @saves.response(201, schemas.SavedCheckpointSchema)
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make a checkpoint of another cluster, for which there is a ticket, one that jobs of a project may go on from.

        Its content stays where it is; nodes read it there.
        """
        place = _place()
        project_id, ticket, cluster = acting(
            lambda uow: imports.open_import(uow, place, body["ticket"], body["project"])
        )
        found = imports.look_up(ticket, cluster)  # no transaction is open while the other store is asked
        return acting(lambda uow: _shown(uow, [imports.record_import(uow, project_id, found)])[0])


@saves.route("/key")
class CheckpointKey(MethodView):
    """Who signs."""

    @saves.response(200, schemas.CheckpointKeySchema)
    def get(self) -> dict[str, str]:
        """Show what other clusters must name to import checkpoints of this one."""
        current_uow().require(Permission.PROJECT_READ)
        return {"public_key": _place().public_key, "store_url": _place().url}


@saves.route("/<uuid:checkpoint_id>/grants/<uuid:project_id>")
class CheckpointGrants(MethodView):
    """Who else may go on from it."""

    @saves.response(204)
    def put(self, checkpoint_id: UUID, project_id: UUID) -> None:
        """Share a checkpoint with another project."""
        checkpoints.share(current_uow(), checkpoint_id, project_id)

    @saves.response(204)
    def delete(self, checkpoint_id: UUID, project_id: UUID) -> None:
        """Share a checkpoint with that project no more."""
        checkpoints.unshare(current_uow(), checkpoint_id, project_id)
