"""The code that stages run in."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select

from app.core.uow import UnitOfWork
from app.jobs import code
from app.pipelines.models import Pipeline, PipelineVersion


def needed(uow: UnitOfWork, bundle_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these bundles in which a job runs that has not ended, or a stage of a pipeline's newest version would."""
    wanted = [str(bundle_id) for bundle_id in bundle_ids]
    found = func.jsonb_path_query(PipelineVersion.jobs, "$.*.spec.code.id").op("#>>")("{}").label("bundle")
    used = (
        select(found)
        .join(Pipeline, (Pipeline.id == PipelineVersion.pipeline_id) & (Pipeline.number == PipelineVersion.number))
        .where(Pipeline.removed_at.is_(None))
        .subquery()
    )
    rows = uow.execute(select(used.c.bundle).where(used.c.bundle.in_(wanted)).distinct())
    return {UUID(row.bundle) for row in rows} | code.needed(uow, bundle_ids)
