"""Every route of the URL map, walked by nobody, by somebody of another project, and by another machine.

A route that is added must be entered here if it takes a parameter or a body of its own: the tests say so.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from werkzeug.routing import Rule

from app.core.settings import Settings
from app.factory import PREFIX, create_app
from app.jobs.models import Replica
from app.queues.models import Queue
from app.tenancy.models import ApiKey, ServiceAccount
from tests.support.builders import a_pool, a_queue, a_service_account, an_api_key
from tests.support.code import a_bundle, a_manifest, digest_of
from tests.support.fake_node import FakeNode, a_description
from tests.support.files import begin
from tests.support.flows import a_pipeline, a_stage
from tests.support.saving import save
from tests.support.stack import SECRET_KEY, Answer, Caller, Stack
from tests.support.world import World, a_world
from trellis import wire
from trellis.vocabulary import ReplicaState

NO_ID = UUID("01990000-0000-7000-8000-000000000000")


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one rule of the URL map."""

    method: str
    rule: Rule
    public: bool

    @property
    def name(self) -> str:
        """The key of the tables below."""
        return f"{self.method} {self.rule.rule.removeprefix(PREFIX)}"

    def path(self, ids: dict[str, Any]) -> str:
        """The path with these values in place of its parameters."""
        _, path = self.rule.build({name: ids[name] for name in self.rule.arguments}) or ("", "")
        return path


def _routes() -> Iterator[Route]:
    app = create_app(Settings("postgresql://nowhere", "redis://nowhere", SECRET_KEY))
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            yield Route(method, rule, "public" in app.marks_of(rule.endpoint, method))


ROUTES = sorted(_routes(), key=lambda route: route.name)
PRIVATE = [route for route in ROUTES if not route.public]
PUBLIC = {
    "GET /healthz", "GET /docs", "GET /docs/start.js", "GET /docs/assets/<name>", "GET /openapi.json",
    "POST /auth/token", "POST /auth/refresh", "POST /auth/revoke",
}  # fmt: skip

# What a stranger may call on their own behalf. Everything else that is no plain list answers 403 or 404.
ON_ONES_OWN_BEHALF = {"GET /auth/whoami", "PUT /auth/password", "POST /api-keys", "PUT /bundles/blobs"}
# A project in a body that is not one's own is a fault of the input, in the words for one that is not there.
REFUSED_AS_INPUT = {
    "POST /jobs", "POST /jobs/batch", "POST /jobs/workflows", "POST /jobs/dry-run", "POST /resources/allocate", "POST /resources/reserve", "POST /resources/what-if",
    "PUT /bundles", "POST /checkpoints/imports", "PUT /features", "POST /pipelines",
}  # fmt: skip
# Machines are everybody's to see; what runs on them is not (checked with the lists).
SEEN_BY_EVERYBODY = {"GET /resources/nodes/<uuid:node_id>", "GET /resources/pools/<uuid:pool_id>"}


@dataclass(frozen=True, slots=True)
class Victim:
    """Rows of a project that the walkers have no part in."""

    ids: dict[str, Any]
    spec: wire.ReplicaSpec
    queue: Queue
    key: ApiKey
    account: ServiceAccount
    other_node: FakeNode

    def bodies(self) -> dict[str, Any]:
        """A body for every route that reads one, valid but for its being about somebody else's rows."""
        user = {"username": "mallory", "password": "a password of mine", "platform_admin": True}
        job = {"command": ["true"], "project": str(self.ids["project_id"])}
        at = "2026-01-01T00:00:00+00:00"
        report = wire.Report(self.spec.replica_id, self.spec.fence, 1, ReplicaState.FAILED, at)
        return {
            "PUT /auth/password": {"current": "not this one", "new": "a password of mine"},
            "POST /organisations": {"name": "mine"},
            "POST /projects": {"name": "mine", "organisation_id": str(self.ids["organisation_id"])},
            "PATCH /projects/<uuid:project_id>": {"name": "mine"},
            "PUT /projects/<uuid:project_id>/members/<uuid:user_id>": {"role": "project_admin"},
            "POST /projects/<uuid:project_id>/service-accounts": {"name": "mine", "role": "project_admin"},
            "PUT /projects/<uuid:project_id>/quota": {"hard": {"jobs": 1}},
            "PUT /organisations/<uuid:organisation_id>/quota": {"hard": {"jobs": 1}},
            "PUT /projects/<uuid:project_id>/members/<uuid:user_id>/quota": {"hard": {"jobs": 1}},
            "POST /users": user,
            "PATCH /users/<uuid:user_id>": {"platform_admin": True, "password": "a password of mine"},
            "POST /api-keys": {"name": "mine"},
            "POST /service-accounts/<uuid:account_id>/keys": {"name": "mine"},
            "PUT /features": {"name": "fine_metrics", "enabled": True, "project": str(self.ids["project_id"])},
            "POST /queues": {"name": "mine", "project_id": str(self.ids["project_id"])},
            "PATCH /queues/<uuid:queue_id>": {"weight": 1000},
            "PUT /queues/<uuid:queue_id>/pause": {"reason": "mine"},
            "PUT /queues/<uuid:queue_id>/resume": {"reason": "mine"},
            "POST /resources/join-tokens": {},
            "PATCH /resources/nodes/<uuid:node_id>": {"labels": {"mine": "yes"}},
            "PUT /resources/nodes/<uuid:node_id>/cordon": {"reason": "mine"},
            "PUT /resources/nodes/<uuid:node_id>/uncordon": {"reason": "mine"},
            "PUT /resources/nodes/<uuid:node_id>/drain": {"reason": "mine"},
            "PUT /resources/nodes/<uuid:node_id>/undrain": {"reason": "mine"},
            "PUT /resources/nodes/<uuid:node_id>/quarantine": {"reason": "mine"},
            "PUT /resources/nodes/<uuid:node_id>/release": {"reason": "mine"},
            "PUT /resources/topology": {"levels": ["mine"]},
            "PUT /resources/cluster": {"levels": ["mine"], "pools": [{"name": "mine"}]},
            "POST /resources/pools": {"name": "mine"},
            "PUT /scheduling/policy": {"primary_policy": "fifo"},
            "POST /resources/allocate": {"project": str(self.ids["project_id"]), "cpus": 0.5},
            "POST /resources/reserve": {"project": str(self.ids["project_id"]), "ends_at": "2099-01-01T00:00:00Z"},
            "POST /resources/maintenance": {"nodes": ["node-1"], "ends_at": "2099-01-01T00:00:00Z"},
            "POST /resources/what-if": {"job": job},
            "PATCH /resources/pools/<uuid:pool_id>": {"weight": 1000},
            "POST /jobs": job,
            "POST /jobs/batch": {"jobs": [job]},
            "POST /jobs/dry-run": {"job": job},
            "PATCH /jobs/<uuid:job_id>/status": {"action": "cancel"},
            "PATCH /jobs/arrays/<uuid:array_id>/status": {"action": "cancel"},
            "PATCH /jobs/workflows/<uuid:workflow_id>/status": {"action": "cancel"},
            "POST /jobs/workflows": {"name": "mine", "jobs": [{**job, "name": "mine"}]},
            "POST /agent/register": wire.pack(a_description("node-9")),
            "POST /agent/heartbeat": wire.pack(wire.Heartbeat((), 1, 1, 1)),
            "POST /agent/specs": {"replicas": [[self.spec.replica_id, self.spec.fence]]},
            "POST /agent/shipments": wire.pack(wire.Shipment((), (), (report,))),
            "POST /agent/host/register": wire.pack(wire.HostRegistration((a_description("node-9"),))),
            "POST /agent/host/heartbeats": wire.pack(
                wire.HostHeartbeat(("trn_guessed",), (wire.Heartbeat((), 1, 1, 1),))
            ),
            "POST /agent/host/specs": {
                "tokens": ["trn_guessed"],
                "replicas": [[self.spec.replica_id, self.spec.fence]],
            },
            "POST /agent/host/shipments": wire.pack(
                wire.HostShipment(("trn_guessed",), wire.Shipment((), (), (report,)))
            ),
            "PUT /agent/replicas/<uuid:replica_id>/artifacts": None,
            "PUT /bundles": {"project": str(self.ids["project_id"]), **wire.pack(a_manifest())},
            "PUT /bundles/blobs": None,
            "POST /agent/replicas/<uuid:replica_id>/code/blobs": {"digests": [digest_of(b"print()")]},
            "PUT /agent/replicas/<uuid:replica_id>/checkpoints": None,
            "POST /agent/replicas/<uuid:replica_id>/checkpoints": wire.pack(wire.SaveFailed(self.spec.fence, "full")),
            "POST /agent/replicas/<uuid:replica_id>/restored": wire.pack(wire.Restored(self.spec.fence, "")),
            "POST /jobs/<uuid:job_id>/checkpoints": None,
            "POST /jobs/<uuid:job_id>/artifacts": {"name": "mine", "size_bytes": 1, "digest": digest_of(b"x")},
            "PATCH /jobs/<uuid:job_id>/artifacts/uploads/<uuid:upload_id>": None,
            "PUT /checkpoints/<uuid:checkpoint_id>/grants/<uuid:project_id>": None,
            "POST /checkpoints/<uuid:checkpoint_id>/exports": {"for": "1h"},
            "POST /checkpoints/imports": {
                "ticket": "trellis-ticket-1.guessed.guessed",
                "project": str(self.ids["project_id"]),
            },
            "POST /pipelines": a_pipeline(a_stage("mine"), project=str(self.ids["project_id"])),
            "POST /pipelines/<uuid:pipeline_id>/runs": {},
            "POST /pipelines/runs/<uuid:run_id>/cancel": {"reason": "mine"},
            "POST /pipelines/runs/<uuid:run_id>/again": {"whole": True},
            "PATCH /pipelines/<uuid:pipeline_id>/schedule": {"paused": True},
            "POST /pipelines/<uuid:pipeline_id>/backfills": {
                "starts_at": "2026-01-01T00:00:00Z",
                "ends_at": "2026-01-02T00:00:00Z",
            },
            "POST /pipelines/backfills/<uuid:backfill_id>/cancel": {},
        }


class Scene:
    """A world with a victim in it, made anew only after somebody has changed a row: most of those who walk change none."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.world: World
        self.victim: Victim
        self._rows = ""

    def restore(self) -> None:
        """Have every row be as it was in the beginning."""
        if self._rows and self.stack.dump() == self._rows:
            return
        self.stack.clear()
        self.world = a_world(self.stack)
        self.victim = a_victim(self.stack, self.world)
        self._rows = self.stack.dump()


@pytest.fixture(scope="module")
def scene(_stack: Stack) -> Scene:
    return Scene(_stack)


@pytest.fixture
def stack(scene: Scene) -> Stack:
    scene.restore()
    return scene.stack


@pytest.fixture
def world(stack: Stack, scene: Scene) -> World:
    assert stack is scene.stack
    return scene.world


@pytest.fixture
def victim(stack: Stack, scene: Scene) -> Victim:
    assert stack is scene.stack
    return scene.victim


def a_victim(stack: Stack, world: World) -> Victim:
    """A project with a row of every kind that a route can name."""
    node, other = FakeNode.join(stack, world), FakeNode.join(stack, world, a_description("node-2", cpus=1))
    queue, account = stack.add(a_queue(world.project)), stack.add(a_service_account(world.project))
    key = stack.add(an_api_key(world.member))
    spec, artifact_id = a_running_job(stack, world, node)
    checkpoint_id, _ = save(stack, node, spec, {"secret": b"secret"})
    chief, ends_at = stack.client(world.project_admin), (datetime.now(UTC) + timedelta(days=1)).isoformat()
    part = {"cpus": 0.5, "name": "the-secret-job"}
    held = chief.post("/resources/allocate", part).json
    claimed = chief.post("/resources/reserve", part | {"ends_at": ends_at}).json
    bundle_id = stack.client(world.member).get("/bundles").json["items"][0]["id"]
    secret = {"command": ["true"], "name": "the-secret-job"}
    many = chief.post("/jobs", {**secret, "array": {"indexes": "0-1"}}).json
    flow = chief.post("/jobs/workflows", {"name": "the-secret-job", "jobs": [secret]}).json
    nightly = chief.post("/pipelines", a_pipeline(a_stage("the-secret-job"), schedule={"every": "6h"})).json["id"]
    run_id = chief.post(f"/pipelines/{nightly}/runs").json["id"]
    past = {"starts_at": "2026-01-01T00:00:00Z", "ends_at": "2026-01-02T00:00:00Z"}
    ids = {
        "pipeline_id": nightly, "run_id": run_id, "stage": "the-secret-job",
        "backfill_id": chief.post(f"/pipelines/{nightly}/backfills", past).json["id"],
        "organisation_id": world.organisation.id, "project_id": world.project.id, "user_id": world.member.id,
        "queue_id": queue.id, "key_id": key.id, "account_id": account.id, "node_id": node.welcome.node_id,
        "pool_id": stack.add(a_pool()).id, "allocation_id": held["id"], "reservation_id": claimed["id"], "job_id": spec.job_id,
        "array_id": many["array_id"], "workflow_id": flow["id"], "bundle_id": bundle_id, "replica_id": spec.replica_id,
        "artifact_id": artifact_id, "checkpoint_id": checkpoint_id,
        "upload_id": begin(stack.client(world.member), spec.job_id, "a.bin", b"secret").json["upload"]["id"],
    }  # fmt: skip
    return Victim(ids, spec, queue, key, account, other)


def a_running_job(stack: Stack, world: World, node: FakeNode) -> tuple[wire.ReplicaSpec, str]:
    """One that runs on the node and has saved a file."""
    bundle = a_bundle(stack.client(world.member), {"a.py": b"print()"})
    wish = {"command": ["true"], "name": "the-secret-job", "resources": {"cpus": 4}}
    job = stack.client(world.member).post("/jobs", wish | {"bundle": bundle["id"], "checkpoint": {}})
    assert job.status == 201, job.text
    stack.run(stack.cycle)
    replica = stack.run(lambda uow: uow.session.execute(select(Replica)).scalar_one())
    (spec,) = node.specs((str(replica.id), replica.fence))
    path = f"/agent/replicas/{spec.replica_id}/artifacts?fence={spec.fence}&name=f"
    headers = {"Digest": f"sha-256={hashlib.sha256(b'x').hexdigest()}"}
    return spec, node.caller.call("PUT", path, data=b"x", headers=headers).json["id"]


def call(caller: Caller, route: Route, victim: Victim) -> Answer:
    """Call a route as if the victim's rows were one's own."""
    bodies = victim.bodies()
    if route.method in ("POST", "PUT", "PATCH"):
        assert route.name in bodies, f"{route.name} is new: give it a body in Victim.bodies"
    unknown = route.rule.arguments - victim.ids.keys()
    assert not unknown, f"{route.name} has parameters that Victim.ids does not know: {unknown}"
    return caller.call(route.method, route.path(victim.ids), json=bodies.get(route.name))


def foreign(answer: Answer, world: World, victim: Victim, route: Route) -> list[str]:
    """What of the victim's an answer tells beyond what the question said."""
    question = route.path(victim.ids) + json.dumps(victim.bodies().get(route.name))
    shared = {"node_id", "pool_id"}
    ids = [str(value) for name, value in victim.ids.items() if name not in shared]
    marks = [mark for mark in ids if mark not in question]
    names = [world.project.name, world.organisation.name, world.member.username, "the-secret-job", victim.queue.name]
    return [mark for mark in marks + names if mark in answer.text]


def test_only_these_routes_are_public() -> None:
    assert {route.name for route in ROUTES if route.public} == PUBLIC


@pytest.mark.parametrize("route", PRIVATE, ids=lambda route: route.name)
def test_nobody_gets_nothing(stack: Stack, route: Route) -> None:
    ids = dict.fromkeys(route.rule.arguments, NO_ID)
    answer = stack.client().call(route.method, route.path(ids), json={})
    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("route", PRIVATE, ids=lambda route: route.name)
def test_a_stranger_gets_nothing_of_the_victim(stack: Stack, world: World, victim: Victim, route: Route) -> None:
    before = stack.dump()
    answer = call(stack.client(world.stranger), route, victim)
    if route.name in ON_ONES_OWN_BEHALF | SEEN_BY_EVERYBODY or (route.method == "GET" and not route.rule.arguments):
        assert not foreign(answer, world, victim, route)
        assert answer.status in (200, 201, 422, 403), answer.text
    else:
        assert answer.status in ((422,) if route.name in REFUSED_AS_INPUT else (403, 404)), answer.text
        assert stack.dump() == before


@pytest.mark.parametrize("route", PRIVATE, ids=lambda route: route.name)
def test_another_machine_gets_nothing_of_the_victim(stack: Stack, world: World, victim: Victim, route: Route) -> None:
    answer = call(victim.other_node.caller, route, victim)
    assert not (answer.status < 300 and foreign(answer, world, victim, route)), answer.text
    if not route.name.removeprefix(f"{route.method} ").startswith("/agent/") and route.method != "GET":
        assert answer.status in (403, 404, 422), answer.text


@pytest.mark.parametrize("route", PRIVATE, ids=lambda route: route.name)
def test_every_view_checks_a_right(stack: Stack, world: World, victim: Victim, route: Route) -> None:
    answer = call(stack.client(world.admin), route, victim)
    assert "declares no permission" not in answer.text
    assert answer.status < 500, answer.text


@pytest.mark.parametrize("route", [r for r in PRIVATE if r.rule.arguments], ids=lambda route: route.name)
def test_what_is_not_there_and_what_is_not_yours_get_the_same_answer(
    stack: Stack, world: World, victim: Victim, route: Route
) -> None:
    if route.name in SEEN_BY_EVERYBODY:
        pytest.skip("machines are everybody's to see")
    stranger, body = stack.client(world.stranger), victim.bodies().get(route.name)
    answers = []
    for ids in (victim.ids, dict.fromkeys(victim.ids, NO_ID)):
        answer = stranger.call(route.method, route.path(ids), json=body)
        told = answer.text.replace(str(answer.json["trace_id"]), "")
        for value in ids.values():
            told = told.replace(str(value), "ID")
        answers.append((answer.status, told))
    assert answers[0] == answers[1]


def test_a_view_that_checks_no_right_is_refused(stack: Stack, world: World) -> None:
    app = create_app(stack.settings)
    app.add_url_rule(f"{PREFIX}/forgotten", "forgotten", lambda: {"secret": "told"})
    answer = Caller(app, stack.client(world.admin).credential).get("/forgotten")
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    app.extensions["engine"].dispose()
