"""`client.scheduling`: how jobs are ranked and placed."""

from collections.abc import Iterator, Mapping
from typing import Any

from trellis.answers import answer
from trellis.holdings import PolicyVersion
from trellis.nouns.paging import pages
from trellis.transport import Call, Transport


class Scheduling:
    """The scheduling policy, version by version."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def policy(self, version: int | None = None) -> Mapping[str, Any]:
        """The policy in force, or an earlier version. Raises NotFound."""
        found: Mapping[str, Any] = self._transport.json(Call("GET", "/scheduling/policy", {"version": version}))
        return found

    def set_policy(self, policy: Mapping[str, Any], *, expected: int | None = None) -> Mapping[str, Any]:
        """Put a policy in force, whole: what it leaves out is as it is by default.

        Raises: Invalid with the fields, Forbidden, StaleVersion where another version than `expected` is in force.
        """
        headers = {} if expected is None else {"If-Match": f'"{expected}"'}
        call = Call("PUT", "/scheduling/policy", body=dict(policy), headers=headers)
        put: Mapping[str, Any] = self._transport.json(call)
        return put

    def versions(self) -> Iterator[PolicyVersion]:
        """All versions there were, the newest first."""
        return pages(self._transport, "/scheduling/policy/versions", PolicyVersion)

    def newest(self) -> PolicyVersion:
        """The version in force; 0 where nobody has said anything yet."""
        none = answer(PolicyVersion, {"version": 0})
        return next(self.versions(), none)
