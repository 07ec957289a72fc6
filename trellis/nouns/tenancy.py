"""`client.organisations`, `projects`, `users`, `api_keys` and `service_accounts`."""

from collections.abc import Iterator, Mapping
from typing import Any

from trellis.answers import ApiKey, Member, Organisation, Project, ServiceAccount, User, answer
from trellis.holdings import Quota
from trellis.nouns.paging import pages
from trellis.transport import Call, Transport, path


class Organisations:
    """What holds projects."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Organisation]:
        """Those that the caller belongs to."""
        return pages(self._transport, "/organisations", Organisation)

    def get(self, organisation: str) -> Organisation:
        """One by its id. Raises NotFound."""
        return answer(Organisation, self._transport.json(Call("GET", path("organisations", organisation))))

    def create(self, name: str) -> Organisation:
        """A new one. Raises AlreadyExists, Forbidden."""
        return answer(Organisation, self._transport.json(Call("POST", "/organisations", body={"name": name})))

    def quota(self, organisation: str) -> Quota:
        """What all its projects may have together, and how much of it is used."""
        return _quota(self._transport, path("organisations", organisation))

    def set_quota(self, organisation: str, **said: Any) -> Quota:
        """Set it, whole: `hard`, `soft`, `burst`. Raises Forbidden."""
        return _quota(self._transport, path("organisations", organisation), said)


def _quota(transport: Transport, where: str, said: Mapping[str, Any] | None = None) -> Quota:
    """Read a quota, or set it whole."""
    call = Call("GET", f"{where}/quota") if said is None else Call("PUT", f"{where}/quota", body=dict(said))
    return answer(Quota, transport.json(call))


class Projects:
    """What owns jobs, and who belongs to it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Project]:
        """Those that the caller may see."""
        return pages(self._transport, "/projects", Project)

    def get(self, project: str) -> Project:
        """One by its id. Raises NotFound."""
        return answer(Project, self._transport.json(Call("GET", path("projects", project))))

    def create(self, name: str, *, organisation_id: str) -> Project:
        """A new one. Raises AlreadyExists, Forbidden."""
        body = {"name": name, "organisation_id": organisation_id}
        return answer(Project, self._transport.json(Call("POST", "/projects", body=body)))

    def update(self, project: Project, **changes: Any) -> Project:
        """Change what was read as `project`. Raises StaleVersion if somebody changed it since."""
        headers = {"If-Match": f'"{project.version}"'}
        call = Call("PATCH", path("projects", project.id), body=changes, headers=headers)
        return answer(Project, self._transport.json(call))

    def quota(self, project: str, member: str | None = None) -> Quota:
        """What it (or one member in it, by id) may have, and how much of that is used."""
        return _quota(self._transport, self._whose(project, member))

    def set_quota(self, project: str, member: str | None = None, **said: Any) -> Quota:
        """Set it, whole: `hard={"gpus": 8, "jobs": 100}`, `soft`, `burst={"gpus": 4, "for": "1h", "every": "1d"}`.

        Raises: Invalid, Forbidden.
        """
        return _quota(self._transport, self._whose(project, member), said)

    @staticmethod
    def _whose(project: str, member: str | None) -> str:
        return path("projects", project) if member is None else path("projects", project, "members", member)

    def members(self, project: str) -> Iterator[Member]:
        """Who belongs to it, and as what."""
        return pages(self._transport, path("projects", project, "members"), Member)

    def set_member(self, project: str, user_id: str, role: str) -> Member:
        """Give a user a `Role` in it, new or instead of the old one."""
        call = Call("PUT", path("projects", project, "members", user_id), body={"role": role})
        return answer(Member, self._transport.json(call))

    def remove_member(self, project: str, user_id: str) -> None:
        """Take a user out of it."""
        self._transport.json(Call("DELETE", path("projects", project, "members", user_id)))


class Users:
    """People who may sign in; for platform administrators."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[User]:
        """All of them. Raises Forbidden."""
        return pages(self._transport, "/users", User)

    def get(self, user: str) -> User:
        """One by its id. Raises NotFound."""
        return answer(User, self._transport.json(Call("GET", path("users", user))))

    def create(self, username: str, password: str, *, platform_admin: bool = False) -> User:
        """A new one. Raises AlreadyExists, Forbidden."""
        body = {"username": username, "password": password, "platform_admin": platform_admin}
        return answer(User, self._transport.json(Call("POST", "/users", body=body)))

    def update(self, user: User, **changes: Any) -> User:
        """Change what was read as `user`. Raises StaleVersion if somebody changed it since."""
        headers = {"If-Match": f'"{user.version}"'}
        call = Call("PATCH", path("users", user.id), body=changes, headers=headers)
        return answer(User, self._transport.json(call))


class ApiKeys:
    """The caller's own keys."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[ApiKey]:
        """All of them, without their secrets."""
        return pages(self._transport, "/api-keys", ApiKey)

    def create(self, name: str, *, expires_at: str | None = None) -> ApiKey:
        """A new one; its `key` is shown this once."""
        return answer(ApiKey, self._transport.json(Call("POST", "/api-keys", body=_named(name, expires_at))))

    def delete(self, key_id: str) -> None:
        """Withdraw one; it stops working at once."""
        self._transport.json(Call("DELETE", path("api-keys", key_id)))


class ServiceAccounts:
    """Accounts of programs, each in one project."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, project: str) -> Iterator[ServiceAccount]:
        """Those of a project."""
        return pages(self._transport, path("projects", project, "service-accounts"), ServiceAccount)

    def create(self, project: str, name: str, role: str) -> ServiceAccount:
        """A new one, with a `Role` in the project."""
        call = Call("POST", path("projects", project, "service-accounts"), body={"name": name, "role": role})
        return answer(ServiceAccount, self._transport.json(call))

    def delete(self, account: str) -> None:
        """End one, and all of its keys."""
        self._transport.json(Call("DELETE", path("service-accounts", account)))

    def create_key(self, account: str, name: str, *, expires_at: str | None = None) -> ApiKey:
        """A key for it; `key` is shown this once."""
        call = Call("POST", path("service-accounts", account, "keys"), body=_named(name, expires_at))
        return answer(ApiKey, self._transport.json(call))


def _named(name: str, expires_at: str | None) -> dict[str, str]:
    return {"name": name} if expires_at is None else {"name": name, "expires_at": expires_at}
