"""The code that jobs run in."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.core.uow import UnitOfWork
from app.jobs.models import Job, Replica
from app.jobs.spec import CodeSpec, JobSpec
from app.storage import bundles
from app.storage.models import Bundle
from trellis import requirements, wire
from trellis.errors import Field, Invalid, NotFound, StaleFence
from trellis.units import format_bytes


def pin(uow: UnitOfWork, spec: JobSpec, project_id: UUID, *, lock: bool = True) -> JobSpec:
    """The submission with its bundle looked up; one without is left alone. Raises Invalid for no such bundle.

    Locked, the bundle stays at least until the unit that makes the job has ended.
    """
    if spec.code is None:
        return spec
    bundle = bundles.use(uow, spec.code.id, project_id, lock=lock)
    if spec.code.requirements:
        _require_file(bundle, spec.code.requirements)
    code = CodeSpec(bundle.id, spec.code.requirements, bundle.digest, bundle.size_bytes, bundle.files)
    return replace(spec, code=code)


class Pins:
    """The same for many submissions, of which most run in one and the same: each is looked up once."""

    def __init__(self, uow: UnitOfWork, *, lock: bool = True) -> None:
        self._uow = uow
        self._lock = lock
        self._known: dict[tuple[UUID, CodeSpec], CodeSpec | None] = {}

    def pin(self, spec: JobSpec, project_id: UUID) -> JobSpec:
        """See `pin`."""
        if spec.code is None:
            return spec
        wanted = (project_id, spec.code)
        if wanted not in self._known:
            self._known[wanted] = pin(self._uow, spec, project_id, lock=self._lock).code
        return replace(spec, code=self._known[wanted])


def _require_file(bundle: Bundle, path: str) -> None:
    found = next((entry for entry in bundles.manifest_of(bundle).files if entry.path == path), None)
    if found is None or found.link:
        raise Invalid(Field("/requirements", f"is no file of the bundle: {path}"))
    if found.size_bytes > requirements.LARGEST:
        raise Invalid(Field("/requirements", f"is larger than {format_bytes(requirements.LARGEST)}"))


def needed(uow: UnitOfWork, bundle_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these bundles in which a job runs that has not ended."""
    living = select(Job.bundle_id).where(Job.bundle_id.in_(bundle_ids), Job.ended_at.is_(None)).distinct()
    return {bundle_id for bundle_id in uow.session.execute(living).scalars() if bundle_id is not None}


def bundle_for(uow: UnitOfWork, replica_id: UUID, fence: str | None) -> Bundle:
    """The code of a replica that the calling node was given. Raises NotFound where it has none, StaleFence."""
    replica = uow.get(Replica, replica_id)
    if fence != str(replica.fence) or replica.ended_at is not None:
        raise StaleFence(f"replica {replica_id} has another fence, or has ended")
    found = select(Bundle).join(Job, Job.bundle_id == Bundle.id).where(Job.id == replica.job_id)
    bundle = uow.session.execute(found).scalar_one_or_none()
    if bundle is None:
        raise NotFound(f"replica {replica_id} has no code of its own")
    return bundle


def of_stored(kept: dict[str, Any] | None) -> CodeSpec | None:
    """What `JobSpec.stored` wrote of the code."""
    return None if kept is None else CodeSpec(**kept | {"id": UUID(kept["id"])})


def on_wire(kept: dict[str, Any] | None) -> wire.Code | None:
    """The same for a node."""
    return None if kept is None else wire.Code(**{name: value for name, value in kept.items() if name != "id"})
