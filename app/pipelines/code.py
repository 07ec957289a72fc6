"""The code that stages run in."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text

from app.core.uow import UnitOfWork
from app.jobs import code

_USED = text(
    """
    SELECT DISTINCT used.bundle FROM (
        SELECT jsonb_path_query(v.jobs, '$.*.spec.code.id') #>> '{}' AS bundle
        FROM pipeline_versions v
        JOIN pipelines p ON p.id = v.pipeline_id AND p.number = v.number AND p.removed_at IS NULL
    ) used WHERE used.bundle = ANY(:ids)
    """
)


def needed(uow: UnitOfWork, bundle_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these bundles in which a job runs that has not ended, or a stage of a pipeline's newest version would."""
    rows = uow.execute(_USED, {"ids": [str(bundle_id) for bundle_id in bundle_ids]})
    return {UUID(row.bundle) for row in rows} | code.needed(uow, bundle_ids)
