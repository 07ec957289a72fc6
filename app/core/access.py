"""Who may do what: the actor of a unit of work, the permissions, and which role carries which."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from trellis.vocabulary import ActorKind, Role


class Permission(StrEnum):
    """One right. Those of PLATFORM are held by platform administrators alone."""

    PROJECT_READ = "project.read"
    PROJECT_WRITE = "project.write"
    MEMBER_WRITE = "member.write"
    JOB_READ = "job.read"
    JOB_WRITE = "job.write"
    PIPELINE_READ = "pipeline.read"
    PIPELINE_WRITE = "pipeline.write"
    QUEUE_READ = "queue.read"
    QUEUE_WRITE = "queue.write"
    NODE_READ = "node.read"
    POOL_READ = "pool.read"
    POOL_WRITE = "pool.write"
    ALLOCATION_WRITE = "allocation.write"
    RESERVATION_READ = "reservation.read"
    RESERVATION_WRITE = "reservation.write"
    QUOTA_READ = "quota.read"
    QUOTA_WRITE = "quota.write"
    POLICY_READ = "policy.read"
    POLICY_WRITE = "policy.write"
    OWN_KEYS = "own.keys"
    ORGANISATION_WRITE = "organisation.write"
    USER_WRITE = "user.write"
    NODE_WRITE = "node.write"
    REPLICA_REPORT = "replica.report"


# Rights that anybody who is signed in holds; what they then see is still filtered row by row.
EVERYBODY = frozenset(
    {
        Permission.NODE_READ, Permission.POOL_READ, Permission.POLICY_READ, Permission.OWN_KEYS, Permission.QUEUE_READ,
        Permission.PROJECT_READ,
    }
)  # fmt: skip
PLATFORM = frozenset(
    {
        Permission.ORGANISATION_WRITE, Permission.USER_WRITE, Permission.NODE_WRITE, Permission.POOL_WRITE,
        Permission.POLICY_WRITE,
    }
)  # fmt: skip

_VIEW = frozenset(
    {
        Permission.PROJECT_READ, Permission.JOB_READ, Permission.QUEUE_READ, Permission.RESERVATION_READ,
        Permission.QUOTA_READ, Permission.PIPELINE_READ,
    }
)  # fmt: skip
_WORK = _VIEW | {Permission.JOB_WRITE, Permission.ALLOCATION_WRITE, Permission.PIPELINE_WRITE}
_ADMINISTER = _WORK | {
    Permission.PROJECT_WRITE, Permission.MEMBER_WRITE, Permission.QUEUE_WRITE, Permission.RESERVATION_WRITE,
    Permission.QUOTA_WRITE,
}  # fmt: skip
ROLE_PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: _VIEW,
    Role.MEMBER: _WORK,
    Role.EXPERIMENT_OWNER: _WORK,
    Role.MODEL_DEPLOYER: _WORK,
    Role.PIPELINE_OPERATOR: _WORK,
    Role.PROJECT_ADMIN: _ADMINISTER,
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts in this unit of work, and what they hold where."""

    kind: ActorKind
    id: UUID | None
    name: str
    platform_admin: bool = False
    roles: Mapping[UUID, Role] = field(default_factory=dict)

    @property
    def sees_all(self) -> bool:
        """Platform administrators and the platform itself pass every project's door."""
        return self.platform_admin or self.kind is ActorKind.SYSTEM

    @property
    def is_person(self) -> bool:
        """A user or a service account, as opposed to a machine of the platform."""
        return self.kind in (ActorKind.USER, ActorKind.SERVICE_ACCOUNT)

    def holds(self, permission: Permission, project_id: UUID | None) -> bool:
        """Whether the actor has this right (in this project)."""
        if self.kind is ActorKind.NODE or permission is Permission.REPLICA_REPORT:
            # What happened on a node is for that node to say: not even an administrator says it in its place.
            return permission is Permission.REPLICA_REPORT and self.kind in (ActorKind.NODE, ActorKind.SYSTEM)
        if self.sees_all:
            return True
        if project_id is None:
            return permission in EVERYBODY and self.is_person
        role = self.roles.get(project_id)
        return role is not None and permission in ROLE_PERMISSIONS[role]

    def projects_with(self, permission: Permission) -> list[UUID]:
        """The projects in which the actor has this right."""
        return [project for project, role in self.roles.items() if permission in ROLE_PERMISSIONS[role]]


SYSTEM = Actor(ActorKind.SYSTEM, None, "trellis")
NOBODY = Actor(ActorKind.PEER, None, "nobody")
