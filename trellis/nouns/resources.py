"""`client.resources`: the cluster as a whole."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Unpack

from trellis.answers import answer
from trellis.foresight import WhatIf
from trellis.holdings import Capacity, Usage
from trellis.submission import JobBody, as_json
from trellis.transport import Call, Transport


class Resources:
    """Questions to the whole cluster."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def capacity(self) -> Capacity:
        """What the cluster has and gives, which devices are idle, and how much of that is fragmented."""
        return answer(Capacity, self._transport.json(Call("GET", "/resources/capacity")))

    def usage(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        last: str | int | None = None,
        by: Sequence[str] = (),
        bucket: str | int | None = None,
        project_id: str | None = None,
    ) -> Usage:
        """What was held over time (`last="30d"`, or `since`; a week if not said), in the projects that the caller is a member of: CPU, memory and
        GPU hours, apart `by` "project", "user", "queue" and "gpu_type", in pieces such as `bucket="1d"`. Raises Invalid.
        """
        wanted: dict[str, Any] = {"from": since and since.isoformat(), "to": until and until.isoformat()}
        wanted |= {"by": list(by) or None, "bucket": bucket, "last": last, "project_id": project_id}
        return answer(Usage, self._transport.json(Call("GET", "/resources/usage", wanted)))

    def what_if(
        self,
        *,
        copies: int = 1,
        more: Mapping[str, int] | None = None,
        without: Sequence[str] = (),
        **job: Unpack[JobBody],
    ) -> WhatIf:
        """What would become of a job, described as for `jobs.submit` (its program may be left out), if it came now.

        `copies` of it, with so many nodes `more` like a node or profile of that name, `without` nodes of these names:
        `what_if(resources={"gpus": 8}, replicas=4, more={"gpu-1": 2})`. Nothing is changed.
        Raises: Invalid with the fields at fault, Forbidden, RateLimited while another such question is answered.
        """
        body: dict[str, Any] = {"job": as_json(job), "copies": copies}
        if more:
            body["more"] = [{"like": name, "count": count} for name, count in more.items()]
        if without:
            body["without"] = list(without)
        return answer(WhatIf, self._transport.json(Call("POST", "/resources/what-if", body=body)))
