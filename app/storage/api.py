"""Checkpoints over HTTP."""

from typing import Any
from uuid import UUID

from flask import Response, current_app
from flask.views import MethodView

from app.http.blueprint import Blueprint
from app.http.transaction import current_uow
from app.storage import archive, checkpoints
from app.storage.checkpoints import Place
from app.storage.models import Checkpoint
from app.storage.schemas import SavedCheckpointSchema

blp = Blueprint("checkpoints", __name__, url_prefix="/checkpoints", description="What jobs can go on from.")


def _place() -> Place:
    place: Place = current_app.extensions["checkpoints"]
    return place


@blp.route("/<uuid:checkpoint_id>")
class CheckpointItem(MethodView):
    """One checkpoint."""

    @blp.response(200, SavedCheckpointSchema)
    def get(self, checkpoint_id: UUID) -> dict[str, Any]:
        """Show a checkpoint."""
        return checkpoints.present(current_uow().get(Checkpoint, checkpoint_id), _place())

    @blp.response(204)
    def delete(self, checkpoint_id: UUID) -> None:
        """Forget a checkpoint; what only it held leaves the store soon after."""
        checkpoints.remove_checkpoint(current_uow(), checkpoint_id)


@blp.route("/<uuid:checkpoint_id>/archive")
class CheckpointArchive(MethodView):
    """The files of a checkpoint."""

    @blp.response(200, content_type="application/x-tar")
    def get(self, checkpoint_id: UUID) -> Response:
        """Download the files of a checkpoint as a tar archive, every chunk checked."""
        found = current_uow().get(Checkpoint, checkpoint_id)
        manifest = checkpoints.read_manifest(_place(), found)
        response = Response(
            archive.stream(_place().store, manifest, found.created_at.timestamp()), mimetype="application/x-tar"
        )
        response.headers.set("Content-Disposition", "attachment", filename=f"checkpoint-{found.id}.tar")
        return response


@blp.route("/<uuid:checkpoint_id>/grants/<uuid:project_id>")
class CheckpointGrants(MethodView):
    """Who else may go on from it."""

    @blp.response(204)
    def put(self, checkpoint_id: UUID, project_id: UUID) -> None:
        """Share a checkpoint with another project."""
        checkpoints.share(current_uow(), checkpoint_id, project_id)

    @blp.response(204)
    def delete(self, checkpoint_id: UUID, project_id: UUID) -> None:
        """Share a checkpoint with that project no more."""
        checkpoints.unshare(current_uow(), checkpoint_id, project_id)
