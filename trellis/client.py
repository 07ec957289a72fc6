"""The client: one object, one attribute a noun."""

from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from trellis import profile
from trellis.answers import WhoAmI, answer
from trellis.credentials import Credential, Key, Session
from trellis.nouns.artifacts import Artifacts
from trellis.nouns.bundles import Bundles
from trellis.nouns.capacity import Allocations, Pools, Reservations
from trellis.nouns.checkpoints import Checkpoints
from trellis.nouns.cluster import Nodes, Queues
from trellis.nouns.features import Features
from trellis.nouns.groups import Arrays, Workflows
from trellis.nouns.jobs import Jobs
from trellis.nouns.pipelines import Pipelines
from trellis.nouns.resources import Resources
from trellis.nouns.scheduling import Scheduling
from trellis.nouns.tenancy import ApiKeys, Organisations, Projects, ServiceAccounts, Users
from trellis.transport import Call, Transport


class Client:
    """Talks to one Trellis.

        from trellis import Client

        client = Client()
        job = client.jobs.submit(command=["python", "train.py"], resources={"gpus": 1})
        for line in client.jobs.logs(job, follow=True):
            print(line.text)

    Where it is and who asks comes from the arguments, then from TRELLIS_URL and TRELLIS_API_KEY, then from what
    `trellis login` stored, then from what `trellis up` left in its home (`.trellis` in the working directory). `token` is an API key or a JWT.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        api_key: str | None = None,
        username: str | None = None,
        password: str | None = None,
        http: httpx.BaseTransport | None = None,
    ) -> None:
        """`http` replaces the network, for tests. Raises SettingsError, Invalid (for a URL that is none)."""
        key, has_password = token or api_key, username is not None
        found = profile.resolve(profile.environment(), Path.cwd(), url, key, has_password=has_password)
        credential: Credential = Key(found.api_key)
        if username is not None:
            credential = Session(username, password or "")
        self._attach(Transport(found.url, credential, http=http))

    def _attach(self, transport: Transport) -> None:
        self._transport = transport
        self.url = transport.url
        self.jobs = Jobs(transport)
        self.arrays = Arrays(transport)
        self.workflows = Workflows(transport)
        self.artifacts = Artifacts(transport)
        self.pipelines = Pipelines(transport)
        self.bundles = Bundles(transport)
        self.checkpoints = Checkpoints(transport)
        self.features = Features(transport)
        self.nodes = Nodes(transport)
        self.queues = Queues(transport)
        self.resources = Resources(transport)
        self.pools = Pools(transport)
        self.allocations = Allocations(transport)
        self.reservations = Reservations(transport)
        self.scheduling = Scheduling(transport)
        self.organisations = Organisations(transport)
        self.projects = Projects(transport)
        self.users = Users(transport)
        self.api_keys = ApiKeys(transport)
        self.service_accounts = ServiceAccounts(transport)

    def whoami(self) -> WhoAmI:
        """Who the credential belongs to, and its projects. Raises Unauthenticated."""
        return answer(WhoAmI, self._transport.json(Call("GET", "/auth/whoami")))

    def close(self) -> None:
        """Let go of the connections; `with Client() as client` does so at its end."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
