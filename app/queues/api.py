"""Endpoints of queues."""

from typing import Any
from uuid import UUID

from flask.views import MethodView

from app.core.paging import Page, Sort
from app.http.blueprint import Blueprint
from app.http.paging import PageQuery, page_of, page_request
from app.http.schema import ReasonSchema
from app.http.transaction import current_uow, etag, if_match
from app.queues import schemas, service
from app.queues.depths import QueueReport, report, report_page
from app.queues.models import Queue
from app.queues.service import QueueSpec

queues = Blueprint("queues", __name__, url_prefix="/queues", description="Where jobs wait.")
SORTS = {"name": Sort(Queue.name, False), "created_at": Sort(Queue.created_at, False)}
Versioned = tuple[QueueReport, dict[str, str]]


def _answer(queue: Queue) -> Versioned:
    return report(current_uow(), queue), etag(queue)


@queues.route("")
class Queues(MethodView):
    """All queues."""

    @queues.arguments(PageQuery, location="query")
    @queues.response(200, page_of(schemas.QueueSchema))
    def get(self, query: dict[str, Any]) -> Page[QueueReport]:
        """List the shared queues and those of one's projects."""
        return report_page(current_uow(), service.list_queues(current_uow(), page_request(query, SORTS, "name")))

    @queues.arguments(schemas.NewQueueSchema)
    @queues.response(201, schemas.QueueSchema)
    def post(self, spec: QueueSpec) -> Versioned:
        """Make a queue: of a project (its administrators), or shared by all (platform administrators)."""
        return _answer(service.create_queue(current_uow(), spec))


@queues.route("/<uuid:queue_id>")
class OneQueue(MethodView):
    """One queue."""

    @queues.response(200, schemas.QueueSchema)
    def get(self, queue_id: UUID) -> Versioned:
        """Read a queue."""
        return _answer(current_uow().get(Queue, queue_id))

    @queues.arguments(schemas.QueueChangeSchema)
    @queues.response(200, schemas.QueueSchema)
    def patch(self, changes: dict[str, Any], queue_id: UUID) -> Versioned:
        """Change a queue's weight, policies and limits (its project's administrators), its pool (the platform's)."""
        return _answer(service.change_queue(current_uow(), queue_id, changes, if_match()))


@queues.route("/<uuid:queue_id>/pause")
class Pause(MethodView):
    """Holding a queue."""

    @queues.arguments(ReasonSchema, required=False)
    @queues.response(200, schemas.QueueSchema)
    def put(self, body: dict[str, str], queue_id: UUID) -> Versioned:
        """Start no job of this queue until it is resumed; jobs that run go on."""
        return _answer(service.pause_queue(current_uow(), queue_id, body["reason"], if_match()))


@queues.route("/<uuid:queue_id>/resume")
class Resume(MethodView):
    """Letting a queue go on."""

    @queues.arguments(ReasonSchema, required=False)
    @queues.response(200, schemas.QueueSchema)
    def put(self, body: dict[str, str], queue_id: UUID) -> Versioned:
        """Start jobs of this queue again."""
        return _answer(service.resume_queue(current_uow(), queue_id, body["reason"], if_match()))
