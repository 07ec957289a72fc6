"""How a task becomes a unit of work: ids in, one transaction, one rule."""

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

from celery import Celery
from sqlalchemy.orm import Session, sessionmaker

from app.core.access import SYSTEM
from app.core.db import make_engine, make_sessions
from app.core.settings import Settings
from app.core.uow import UnitOfWork, run
from tasks.app import make_app
from trellis.errors import Unavailable
from trellis.settings import load

P = ParamSpec("P")
log = logging.getLogger(__name__)
MOST_UNITS = 50


@dataclass(frozen=True, slots=True)
class Control:
    """What the tasks of a control process stand on."""

    settings: Settings
    sessions: sessionmaker[Session]
    celery: Celery


@functools.cache
def control() -> Control:
    """Made once a process, from its environment."""
    settings = load(Settings, os.environ)
    return Control(settings, make_sessions(make_engine(settings)), make_app(settings.broker_url))


def task(queue: str) -> Callable[[Callable[Concatenate[UnitOfWork, P], Any]], Callable[P, None]]:
    """Make a rule-calling function a Celery task named `<module>.<function>` on `queue`.

    It must be safe to run twice. One that returns True has more to do: it is run again, in a unit of its own, at most
    MOST_UNITS times; the next tick of beat goes on from there. When the database is away it gives up quietly: the ticks of beat look again at
    everything that a message could have announced.
    """

    def decorate(rule: Callable[Concatenate[UnitOfWork, P], Any]) -> Callable[P, None]:
        @functools.wraps(rule)
        def in_unit(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                for _ in range(MOST_UNITS):
                    if run(control().sessions, SYSTEM, lambda uow: rule(uow, *args, **kwargs)) is not True:
                        break
            except Unavailable as error:
                log.warning("%s is left to the next tick: %s", rule.__name__, error.detail)

        name = f"{rule.__module__}.{rule.__name__}"
        made: Callable[P, None] = control().celery.task(name=name, queue=queue)(in_unit)
        return made

    return decorate
