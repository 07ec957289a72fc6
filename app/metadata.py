"""All tables in one place, for migrations."""

from app.core import events, idempotency
from app.core.tables import Base
from app.jobs import models as jobs
from app.pipelines import models as pipelines
from app.queues import models as queues
from app.resources import models as resources
from app.scheduling import models as scheduling
from app.storage import models as storage
from app.tenancy import models as tenancy

TABLES_OF = (events, idempotency, jobs, pipelines, queues, resources, scheduling, storage, tenancy)
metadata = Base.metadata
