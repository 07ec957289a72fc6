"""A checkpoint of one cluster, gone on from in another: two control planes, two databases, two stores."""

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text

from app.metadata import metadata
from app.storage import packs, tickets
from app.storage.clusters import read_clusters
from app.storage.models import CheckpointOrigin
from tests.support.builders import a_project
from tests.support.databases import create_database
from tests.support.fake_node import FakeNode
from tests.support.saving import a_saving_job, lose, save, started
from tests.support.services import Services
from tests.support.stack import Answer, Caller, Stack
from tests.support.world import World, a_world
from trellis import wire
from trellis.settings import SettingsError
from trellis.stores.manifests import fetch_signed
from trellis.stores.packs import read_file
from trellis.stores.urls import open_existing


@pytest.fixture(scope="module")
def _north(services: Services, worker_id: str) -> Iterator[Stack]:
    url = create_database(services.database_url, f"trellis_north_{worker_id}")
    engine = create_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    north = Stack(url, secret_key="the secret key of another cluster, long enough")
    yield north
    north.close()


@pytest.fixture
def north(_north: Stack) -> Stack:
    """The other cluster."""
    _north.clear()
    return _north


@pytest.fixture
def northern(north: Stack) -> World:
    return a_world(north)


@pytest.fixture
def far(north: Stack, northern: World) -> FakeNode:
    return FakeNode.join(north, northern)


@pytest.fixture
def chief(north: Stack, northern: World) -> Caller:
    return north.client(northern.project_admin)


@pytest.fixture
def theirs(north: Stack, chief: Caller, far: FakeNode) -> wire.ReplicaSpec:
    return a_saving_job(north, chief, far)


@pytest.fixture
def stack(stack: Stack, north: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """This cluster, whose operator has named the other."""
    trust(stack, monkeypatch, f"north={place_of(north).public_key}@{north.settings.store}")
    return stack


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world)


def place_of(stack: Stack) -> Any:
    return stack.app.extensions["checkpoints"]


def trust(stack: Stack, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    place = replace(place_of(stack), clusters=read_clusters(named))
    monkeypatch.setitem(stack.app.extensions, "checkpoints", place)


def a_ticket(chief: Caller, checkpoint_id: str, wanted: str = "1d") -> str:
    answer = chief.post(f"/checkpoints/{checkpoint_id}/exports", {"for": wanted})
    assert answer.status == 201, answer.text
    return str(answer.json["ticket"])


def taken_in(caller: Caller, ticket: str, **more: str) -> Answer:
    return caller.post("/checkpoints/imports", {"ticket": ticket, **more})


def why(answer: Answer) -> str:
    assert answer.status == 422, answer.text
    assert [error["pointer"] for error in answer.json["errors"]] == ["/ticket"]
    return str(answer.json["errors"][0]["message"])


def imports_of(stack: Stack) -> int:
    rows = text("SELECT (SELECT count(*) FROM checkpoints) + (SELECT count(*) FROM checkpoint_origins)")
    return int(stack.run(lambda uow: uow.session.execute(rows).scalar_one()))


def restored(plan: wire.CheckpointPlan | None) -> dict[str, bytes]:
    """What a node would find, which knows no more than its plan."""
    assert plan is not None
    assert plan.source is not None
    store = open_existing(plan.source.url)
    (key,) = plan.restore
    manifest = fetch_signed(store, key, plan.source.public_key)
    return {file.path: b"".join(read_file(store, file)) for file in manifest.files}


def test_a_job_goes_on_from_another_clusters_checkpoint_and_saves_into_its_own_store(
    stack: Stack, member: Caller, node: FakeNode, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec
) -> None:
    saved, _ = save(north, far, theirs, {"model": b"weights" * 1000}, step=7, metrics={"loss": 0.5})
    ticket = a_ticket(chief, saved)
    answer = taken_in(member, ticket)
    assert answer.status == 201, answer.text
    row = answer.json
    assert (row["cluster"], row["step"], row["metrics"], row["job_id"]) == ("north", 7, {"loss": 0.5}, None)
    assert [one["id"] for one in member.get("/checkpoints/imports").json["items"]] == [row["id"]]
    spec = a_saving_job(stack, member, node, from_checkpoint=row["id"])
    assert spec.checkpoint is not None
    assert restored(spec.checkpoint) == {"model": b"weights" * 1000}
    assert (spec.checkpoint.base, spec.checkpoint.must_restore) == ("", True)
    told = wire.Restored(spec.fence, spec.checkpoint.restore[0])
    assert node.caller.post(f"/agent/replicas/{spec.replica_id}/restored", wire.pack(told)).status == 200
    events = member.get(f"/jobs/{spec.job_id}/events?limit=500").json["items"]
    assert [e["data"]["checkpoint_id"] for e in events if e["kind"] == "checkpoint.restored"] == [row["id"]]
    save(stack, node, spec, {"model": b"better"}, step=8)
    lose(node, spec)
    again = started(stack, node, spec.job_id).checkpoint
    assert again is not None
    assert again.source is None
    assert [stack.app.extensions["store"].head(key) is not None for key in again.restore] == [True]


def test_who_handed_out_and_who_took_in_is_on_record(
    stack: Stack, member: Caller, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec
) -> None:
    saved, _ = save(north, far, theirs, {"a": b"a"})
    ticket = a_ticket(chief, saved)
    row = taken_in(member, ticket).json
    assert north.events_of(UUID(saved))[-1] == "checkpoint.exported"
    assert stack.events_of(UUID(row["id"])) == ["checkpoint.imported"]


def test_the_same_ticket_again_is_the_same_checkpoint_and_a_later_one_lasts_longer(
    stack: Stack, member: Caller, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec
) -> None:
    saved, _ = save(north, far, theirs, {"a": b"a"})
    first, later = a_ticket(chief, saved, "1h"), a_ticket(chief, saved, "2h")
    once, twice, longer, back = (taken_in(member, each).json for each in (first, first, later, first))
    assert once == twice
    assert once["id"] == longer["id"] == back["id"]
    assert once["until"] < longer["until"] == back["until"]
    assert len(stack.events_of(UUID(once["id"]))) == 2


def test_only_a_projects_administrator_hands_a_checkpoint_out(
    north: Stack, northern: World, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec
) -> None:
    saved, _ = save(north, far, theirs, {"a": b"a"})
    path = f"/checkpoints/{saved}/exports"
    assert north.client(northern.member).post(path, {"for": "1h"}).status == 403
    assert north.client(northern.stranger).post(path, {"for": "1h"}).status == 404
    assert chief.post(path, {"for": "1 year"}).status == 422
    assert chief.get(f"/checkpoints/{saved}").json["exported_until"] is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t[:-4], lambda t: t[:40], lambda t: "", lambda t: t.replace("trellis-ticket-1", "trellis-ticket-2"),
        lambda t: t + "A", lambda t: "x" * 5000, lambda t: t.split(".")[0] + ".." + t.split(".")[2],
        lambda t: changed(t, until="2999-01-01T00:00:00+00:00"), lambda t: changed(t, key="manifests/../../etc/passwd"),
        lambda t: changed(t, key=5), lambda t: changed(t, cluster="0" * 64), lambda t: changed(t, more=1),
    ],
)  # fmt: skip
def test_a_ticket_that_was_altered_is_refused_and_changes_nothing(
    stack: Stack, member: Caller, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec, spoil: Any
) -> None:
    saved, _ = save(north, far, theirs, {"a": b"a"})
    spoilt = spoil(a_ticket(chief, saved))
    answer = taken_in(member, spoilt)
    assert answer.status == 422, answer.text
    assert imports_of(stack) == 0


def changed(ticket: str, **changes: Any) -> str:
    """The same signature over another statement."""
    form, statement, signature = ticket.split(".")
    said = json.loads(base64.urlsafe_b64decode(statement + "=="))
    forged = base64.urlsafe_b64encode(json.dumps(said | changes).encode()).decode().rstrip("=")
    return f"{form}.{forged}.{signature}"


def test_a_ticket_of_a_cluster_that_is_not_trusted_is_refused(
    stack: Stack, member: Caller, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    saved, _ = save(north, far, theirs, {"a": b"a"})
    ticket = a_ticket(chief, saved)
    trust(stack, monkeypatch, "")
    assert "not trusted" in why(taken_in(member, ticket))
    assert imports_of(stack) == 0


def test_a_ticket_opens_nothing_but_the_store_that_the_operator_named(
    stack: Stack, member: Caller, north: Stack, far: FakeNode, theirs: wire.ReplicaSpec, tmp_path: Path
) -> None:
    """Even where the other cluster's own key signs another place."""
    saved, _ = save(north, far, theirs, {"a": b"a"})
    theirs_place = place_of(north)
    elsewhere = tmp_path / "secrets"
    shutil.copytree(north.store_path, elsewhere)
    row = theirs_place.store
    (key,) = [one.key for one in row.find("manifests")]
    said = tickets.Ticket(
        saved, theirs_place.public_key, elsewhere.as_uri(), key, saved, theirs.project_id,
        "2026-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00",
    )  # fmt: skip
    row.delete(key)
    answer = taken_in(member, tickets.issue(said, theirs_place.key))
    assert (answer.status, answer.json["code"]) == (409, "checkpoint_gone")
    assert imports_of(stack) == 0


def test_a_ticket_of_this_cluster_itself_is_refused_with_the_way_out(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    spec = a_saving_job(stack, member, node)
    saved, _ = save(stack, node, spec, {"a": b"a"})
    ticket = a_ticket(stack.client(world.project_admin), saved)
    assert "share" in why(taken_in(member, ticket))


def test_a_ticket_that_ran_out_is_refused_and_what_it_let_in_is_gone_on_from_no_more(
    stack: Stack, member: Caller, node: FakeNode, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec
) -> None:
    saved, _ = save(north, far, theirs, {"a": b"a"})
    ticket = a_ticket(chief, saved)
    row = taken_in(member, ticket).json
    spec = a_saving_job(stack, member, node, from_checkpoint=row["id"])

    def run_out(uow: Any) -> None:
        (origin,) = uow.session.query(CheckpointOrigin).all()
        origin.until = uow.clock.now() - timedelta(seconds=1)

    stack.run(run_out)
    lose(node, spec)
    plan = started(stack, node, spec.job_id).checkpoint
    assert plan is not None
    assert (plan.restore, plan.must_restore) == ((), True)
    assert "ran out" in plan.fault
    refused = member.post("/jobs", {"command": ["true"], "from_checkpoint": row["id"]})
    assert refused.status == 422
    assert "ran out" in refused.text
    assert member.get(f"/checkpoints/{row['id']}/archive").json["code"] == "checkpoint_unreadable"
    said = tickets.read(ticket)
    late = tickets.issue(replace(said, until="2026-01-01T00:00:00+00:00"), place_of(north).key)
    assert "ran out" in why(taken_in(member, late))


def test_trust_that_is_taken_back_counts_from_the_next_start_on(
    stack: Stack, member: Caller, node: FakeNode, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    saved, _ = save(north, far, theirs, {"a": b"a"})
    row = taken_in(member, a_ticket(chief, saved)).json
    trust(stack, monkeypatch, "")
    plan = a_saving_job(stack, member, node, from_checkpoint=row["id"]).checkpoint
    assert plan is not None
    assert plan.restore == ()
    assert "not trusted" in plan.fault
    shown = member.get(f"/checkpoints/{row['id']}").json
    assert (shown["cluster"], shown["url"]) == (place_of(north).public_key[:16], "")


@pytest.mark.parametrize("spoil", ["gone", "altered", "swapped", "signed by another"])
def test_a_manifest_that_is_not_what_the_ticket_says_is_refused_at_the_import(
    stack: Stack, member: Caller, node: FakeNode, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec,
    spoil: str,
) -> None:  # fmt: skip
    saved, _ = save(north, far, theirs, {"a": b"a"})
    ticket = a_ticket(chief, saved)
    store, key = place_of(north).store, tickets.read(ticket).key
    if spoil == "gone":
        store.delete(key)
    elif spoil == "altered":
        store.write(key, [b"".join(store.read(key))[:-1] + b"x"])
    else:
        there, cluster, spec = (
            (north, far, theirs) if spoil == "swapped" else (stack, node, a_saving_job(stack, member, node))
        )
        save(there, cluster, spec, {"b": b"b"})
        mine = there.app.extensions["store"]
        (fresh,) = [one.key for one in mine.find("manifests") if one.key != key]
        store.write(key, mine.read(fresh))
    before = imports_of(stack)
    answer = taken_in(member, ticket)
    assert (answer.status, answer.json["code"]) == (409, "checkpoint_gone")
    assert imports_of(stack) == before


def test_a_store_that_is_away_is_said_and_the_ticket_counts_when_it_is_back(
    stack: Stack, member: Caller, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec
) -> None:
    saved, _ = save(north, far, theirs, {"a": b"a"})
    ticket = a_ticket(chief, saved)
    away = north.store_path.with_name("away")
    north.store_path.rename(away)
    try:
        answer = taken_in(member, ticket)
        assert (answer.status, "north" in answer.json["detail"]) == (503, True), answer.text
    finally:
        away.rename(north.store_path)
    assert taken_in(member, ticket).status == 201


def test_removing_an_import_leaves_the_other_clusters_packs_alone(
    stack: Stack, member: Caller, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec
) -> None:
    saved, _ = save(north, far, theirs, {"a": b"a" * 100_000})
    row = taken_in(member, a_ticket(chief, saved)).json
    before = {one.key for one in place_of(north).store.find("packs")}
    assert b"a" * 100_000 in stack.app.test_client().get(
        f"/api/v1/checkpoints/{row['id']}/archive", headers=member.headers
    ).data  # fmt: skip
    assert member.delete(f"/checkpoints/{row['id']}").status == 204
    stack.run(packs.doom_unreferenced)
    assert stack.run(lambda uow: packs.list_doomed(uow, readers_s=-1)) == []
    assert {one.key for one in place_of(north).store.find("packs")} == before
    assert imports_of(stack) == 0


def test_retention_leaves_alone_what_was_handed_out_until_the_ticket_runs_out(
    north: Stack, chief: Caller, far: FakeNode
) -> None:
    spec = a_saving_job(north, chief, far, checkpoint={"keep": {"last": 1}})
    first, _ = save(north, far, spec, {"a": b"a"})
    a_ticket(chief, first)
    for _ in range(2):
        save(north, far, spec, {"a": b"b"})
    assert chief.get(f"/checkpoints/{first}").status == 200
    north.run(lambda uow: uow.session.execute(text("UPDATE checkpoints SET exported_until = now() - interval '1 s'")))
    save(north, far, spec, {"a": b"c"})
    assert chief.get(f"/checkpoints/{first}").status == 404


def test_an_import_is_its_projects_and_nobody_elses(
    stack: Stack, world: World, member: Caller, node: FakeNode, north: Stack, chief: Caller, far: FakeNode,
    theirs: wire.ReplicaSpec,
) -> None:  # fmt: skip
    saved, _ = save(north, far, theirs, {"a": b"a"})
    ticket = a_ticket(chief, saved)
    row = taken_in(member, ticket).json
    stranger = stack.client(world.stranger)
    assert stranger.get(f"/checkpoints/{row['id']}").status == 404
    assert stranger.get("/checkpoints/imports").json["items"] == []
    wish = {"command": ["true"], "project": str(world.strangers_project.id), "from_checkpoint": row["id"]}
    assert stranger.post("/jobs", wish).status == 422
    assert taken_in(stranger, ticket, project=str(world.project.id)).status == 422
    other = stack.add(a_project(world.organisation, name="other"))
    assert taken_in(member, ticket, project=str(other.id)).status == 422
    assert imports_of(stack) == 2


def test_what_was_imported_or_is_damaged_is_not_handed_out(
    stack: Stack, world: World, member: Caller, north: Stack, chief: Caller, far: FakeNode, theirs: wire.ReplicaSpec
) -> None:
    saved, _ = save(north, far, theirs, {"a": b"a"})
    row = taken_in(member, a_ticket(chief, saved)).json
    again = stack.client(world.project_admin).post(f"/checkpoints/{row['id']}/exports", {})
    assert (again.status, again.json["code"]) == (409, "not_exportable")
    north.run(lambda uow: uow.session.execute(text("UPDATE checkpoints SET damaged_at = now()")))
    assert chief.post(f"/checkpoints/{saved}/exports", {}).json["code"] == "not_exportable"


def test_the_key_is_what_the_other_operator_names(north: Stack, chief: Caller) -> None:
    shown = chief.get("/checkpoints/key").json
    (found,) = read_clusters(f"north={shown['public_key']}@{shown['store_url']}").values()
    assert (found.name, found.public_key) == ("north", place_of(north).public_key)
    assert north.client().get("/checkpoints/key").status == 401


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("north", "NAME=KEY@URL"), (f"north={'a' * 63}@file:///x", "NAME=KEY@URL"),
        (f"north={'a' * 64}@http://x", "no store"), (f"north={'a' * 64}@s3://user:word@bucket", "credentials"),
        (f"north={'a' * 64}@file:///x north={'b' * 64}@file:///y", "twice"),
        (f"north={'a' * 64}@file:///x south={'a' * 64}@file:///y", "twice"),
    ],
)  # fmt: skip
def test_a_setting_that_names_no_cluster_is_refused_at_the_start(named: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_clusters(named)
