"""A small world that most tests of rights begin with."""

from dataclasses import dataclass

from app.queues.models import Queue
from app.tenancy.models import Organisation, Project, User
from tests.support.builders import a_membership, a_project, a_queue, a_user, an_admin, an_organisation
from tests.support.stack import Stack
from trellis.vocabulary import Role


@dataclass(frozen=True, slots=True)
class World:
    """One project with a member of each kind, and a stranger who administers a project of another organisation."""

    organisation: Organisation
    project: Project
    shared_queue: Queue
    admin: User
    project_admin: User
    member: User
    viewer: User
    stranger: User
    strangers_project: Project


def a_world(stack: Stack) -> World:
    """Store it and hand it back."""
    organisation, queue = stack.add(an_organisation()), stack.add(a_queue(name="default"))
    project, other = stack.add(a_project(organisation)), stack.add(a_project(stack.add(an_organisation())))
    admin, chief, member, viewer, stranger = (stack.add(user) for user in (an_admin(), *(a_user() for _ in range(4))))
    for user, role in ((chief, Role.PROJECT_ADMIN), (member, Role.MEMBER), (viewer, Role.VIEWER)):
        stack.add(a_membership(project, user, role))
    stack.add(a_membership(other, stranger, Role.PROJECT_ADMIN))
    return World(organisation, project, queue, admin, chief, member, viewer, stranger, other)
