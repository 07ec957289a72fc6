"""What signing in costs each request: one statement."""

from typing import Any

import pytest

from app.core.access import NOBODY
from app.core.uow import UnitOfWork, run
from tests.support.builders import a_service_account
from tests.support.stack import Stack
from tests.support.statements import counted
from tests.support.world import World


@pytest.mark.parametrize("kind", ["token", "key", "account key"])
def test_a_credential_becomes_an_actor_with_roles_and_the_time_in_one_statement(
    stack: Stack, world: World, kind: str
) -> None:
    credential = credential_of(stack, world, kind)
    door = stack.app.extensions["door"]

    def enter(uow: UnitOfWork) -> Any:
        actor = door.actor(uow, credential)
        uow.clock.now()
        return actor

    with counted(stack) as statements:
        actor = run(stack.sessions, NOBODY, enter)
    assert len(statements) == 1
    assert world.project.id in actor.roles


def credential_of(stack: Stack, world: World, kind: str) -> str:
    """A credential of that kind with a part in the project."""
    if kind == "token":
        return stack.client(world.member).credential or ""
    if kind == "key":
        return str(stack.client(world.member).post("/api-keys", {"name": "x"}).json["key"])
    account = stack.add(a_service_account(world.project))
    path = f"/service-accounts/{account.id}/keys"
    return str(stack.client(world.project_admin).post(path, {"name": "x"}).json["key"])
