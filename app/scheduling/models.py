"""When the scheduler last looked."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.core.tables import Base


class Cycle(Base):
    """The one row that says up to which event the last cycle has looked."""

    __tablename__ = "cycles"

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int]
    at: Mapped[datetime]
