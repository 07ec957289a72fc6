"""People, projects and their members: who may change whom."""

from datetime import timedelta

from app.admin.bootstrap import ensure_admin
from app.core.access import Permission
from app.tenancy.members import remove_member
from app.tenancy.users import UserChange, change_user
from tests.support.builders import PASSWORD, a_membership, a_user, an_admin
from tests.support.stack import Stack
from tests.support.world import World
from trellis.vocabulary import Role


def test_an_empty_platform_gets_its_first_administrator_once(stack: Stack) -> None:
    password = stack.run(lambda uow: ensure_admin(uow, "admin"))
    assert stack.run(lambda uow: ensure_admin(uow, "admin")) is None
    session = stack.client().post("/auth/token", {"username": "admin", "password": password}).json
    me = stack.client(credential=session["access_token"])
    assert me.get("/auth/whoami").json["platform_admin"] is True
    assert [p["name"] for p in me.get("/auth/whoami").json["projects"]] == ["default"]
    assert [q["name"] for q in me.get("/queues").json["items"]] == ["default"]


def test_two_that_start_at_once_make_one_administrator(stack: Stack) -> None:
    outcomes = stack.race(lambda uow: ensure_admin(uow, "admin"), times=4)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] * 3 + ["str"]


def test_an_administrator_adds_a_person_who_can_sign_in(stack: Stack, world: World) -> None:
    body = {"username": "ada", "password": "a good long password"}
    made = stack.client(world.admin).post("/users", body)
    assert (made.status, made.json["platform_admin"], made.headers["ETag"]) == (201, False, '"1"')
    assert "password" not in made.text
    assert stack.client().post("/auth/token", body).status == 200


def test_a_username_is_given_once(stack: Stack, world: World) -> None:
    body = {"username": world.member.username, "password": "a good long password"}
    answer = stack.client(world.admin).post("/users", body)
    assert (answer.status, answer.json["code"]) == (409, "already_exists")


def test_a_short_password_is_refused(stack: Stack, world: World) -> None:
    answer = stack.client(world.admin).post("/users", {"username": "ada", "password": "short"})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/password")


def test_everybody_reads_themselves_and_nobody_else(stack: Stack, world: World) -> None:
    me = stack.client(world.member)
    assert me.get(f"/users/{world.member.id}").json["username"] == world.member.username
    assert me.get(f"/users/{world.viewer.id}").status == 404
    assert me.get("/users").status == 403


def test_nobody_raises_themselves(stack: Stack, world: World) -> None:
    for user in (world.project_admin, world.member):
        assert stack.client(user).patch(f"/users/{user.id}", {"platform_admin": True}).status == 403


def test_a_stale_change_is_refused(stack: Stack, world: World) -> None:
    admin, path = stack.client(world.admin), f"/users/{world.member.id}"
    tag = admin.get(path).headers["ETag"]
    changed = admin.patch(path, {"platform_admin": True}, headers={"If-Match": tag})
    assert (changed.status, changed.headers["ETag"]) == (200, '"2"')
    again = admin.patch(path, {"platform_admin": False}, headers={"If-Match": tag})
    assert (again.status, again.json["code"]) == (409, "stale_version")
    assert admin.patch(path, {}, headers={"If-Match": "seven"}).status == 422


def test_the_last_platform_administrator_stays(stack: Stack, world: World) -> None:
    admin, path = stack.client(world.admin), f"/users/{world.admin.id}"
    assert admin.patch(path, {"disabled": True}).status == 409
    assert admin.patch(path, {"platform_admin": False}).status == 409
    stack.add(an_admin())
    assert admin.patch(path, {"platform_admin": False}).status == 200


def test_of_two_administrators_who_dismiss_each_other_one_stays(stack: Stack, world: World) -> None:
    people = [world.admin.id, stack.add(an_admin()).id]

    def dismiss_another(uow: object) -> object:
        return change_user(uow, people.pop(), UserChange(disabled=True), None)  # type: ignore[arg-type]

    outcomes = stack.race(dismiss_another, times=2)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "User"]


def test_a_project_administrator_manages_the_members_of_that_project_alone(stack: Stack, world: World) -> None:
    chief, new = stack.client(world.project_admin), stack.add(a_user())
    path = f"/projects/{world.project.id}/members"
    assert chief.put(f"{path}/{new.id}", {"role": "experiment_owner"}).json["role"] == "experiment_owner"
    assert stack.client(new).get(f"/projects/{world.project.id}").status == 200
    assert new.username in [member["username"] for member in chief.get(path).json["items"]]
    assert chief.delete(f"{path}/{new.id}").status == 204
    assert stack.client(new).get(f"/projects/{world.project.id}").status == 404
    assert chief.put(f"/projects/{world.strangers_project.id}/members/{new.id}", {"role": "member"}).status == 404
    assert stack.events_of(world.project.id) == ["member.set", "member.removed"]


def test_a_member_manages_nobody(stack: Stack, world: World) -> None:
    path = f"/projects/{world.project.id}/members/{world.member.id}"
    assert stack.client(world.member).put(path, {"role": "project_admin"}).status == 403
    assert stack.client(world.member).delete(path).status == 403


def test_an_unknown_role_is_refused(stack: Stack, world: World) -> None:
    path = f"/projects/{world.project.id}/members/{world.member.id}"
    answer = stack.client(world.project_admin).put(path, {"role": "king"})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/role")


def test_a_projects_last_administrator_stays_unless_the_platforms_says_so(stack: Stack, world: World) -> None:
    path = f"/projects/{world.project.id}/members/{world.project_admin.id}"
    chief = stack.client(world.project_admin)
    assert chief.delete(path).status == 409
    assert chief.put(path, {"role": "viewer"}).status == 409
    assert stack.client(world.admin).delete(path).status == 204


def test_of_two_project_administrators_who_leave_at_once_one_stays(stack: Stack, world: World) -> None:
    second = stack.add(a_user())
    stack.add(a_membership(world.project, second, Role.PROJECT_ADMIN))
    leaving = [world.project_admin.id, second.id]
    actor = stack.actor(world.project_admin)
    assert actor.holds(Permission.MEMBER_WRITE, world.project.id)
    outcomes = stack.race(lambda uow: remove_member(uow, world.project.id, leaving.pop()), times=2, actor=actor)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "NoneType"]


def test_a_project_is_made_renamed_and_named_once(stack: Stack, world: World) -> None:
    admin = stack.client(world.admin)
    body = {"name": "vision", "organisation_id": str(world.organisation.id)}
    made = admin.post("/projects", body)
    assert made.status == 201
    assert admin.post("/projects", body).json["code"] == "already_exists"
    renamed = admin.patch(f"/projects/{made.json['id']}", {"name": "sight"}, headers={"If-Match": '"1"'})
    assert (renamed.json["name"], renamed.json["version"]) == ("sight", 2)
    assert admin.get("/auth/whoami").json["projects"][0] | {"id": ""} == {
        "id": "", "name": "sight", "organisation": world.organisation.name, "role": "project_admin",
    }  # fmt: skip


def test_a_project_of_no_organisation_is_refused(stack: Stack, world: World) -> None:
    body = {"name": "vision", "organisation_id": str(world.project.id)}
    answer = stack.client(world.admin).post("/projects", body)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/organisation_id")


def test_a_service_account_acts_in_its_project_with_its_role(stack: Stack, world: World) -> None:
    chief, path = stack.client(world.project_admin), f"/projects/{world.project.id}/service-accounts"
    made = chief.post(path, {"name": "robot", "role": "viewer"}).json
    key = chief.post(f"/service-accounts/{made['id']}/keys", {"name": "one"}).json
    robot = stack.client(credential=key["key"])
    me = robot.get("/auth/whoami").json
    assert (me["kind"], me["name"], me["projects"][0]["role"]) == ("service_account", "robot", "viewer")
    assert robot.post("/api-keys", {"name": "more"}).status == 403
    assert robot.patch(f"/projects/{world.project.id}", {"name": "mine"}).status == 403
    assert robot.put("/auth/password", {"current": PASSWORD, "new": "a good long password"}).status == 403
    assert [k["prefix"] for k in chief.get(f"/service-accounts/{made['id']}/keys").json["items"]] == [key["prefix"]]


def test_the_name_of_a_removed_service_account_is_free_again(stack: Stack, world: World) -> None:
    chief, path = stack.client(world.project_admin), f"/projects/{world.project.id}/service-accounts"
    body = {"name": "robot", "role": "member"}
    made = chief.post(path, body).json
    assert chief.post(path, body).status == 409
    assert chief.delete(f"/service-accounts/{made['id']}").status == 204
    assert chief.post(f"/service-accounts/{made['id']}/keys", {"name": "one"}).status == 404
    assert chief.post(path, body).status == 201


def test_a_key_is_listed_without_its_secret_until_it_is_revoked(stack: Stack, world: World) -> None:
    me = stack.client(world.member)
    now = stack.run(lambda uow: uow.clock.now())
    made = me.post("/api-keys", {"name": "laptop", "expires_at": (now + timedelta(days=1)).isoformat()}).json
    (listed,) = me.get("/api-keys").json["items"]
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert made["key"].startswith(listed["prefix"])
    me.delete(f"/api-keys/{made['id']}")
    assert me.get("/api-keys").json["items"] == []


def test_a_key_that_expires_in_the_past_is_refused(stack: Stack, world: World) -> None:
    answer = stack.client(world.member).post("/api-keys", {"name": "x", "expires_at": "2020-01-01T00:00:00Z"})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/expires_at")


def test_keys_are_bounded_in_number(stack: Stack, world: World) -> None:
    me = stack.client(world.member)
    answers = [me.post("/api-keys", {"name": "x"}).status for _ in range(51)]
    assert answers == [201] * 50 + [403]
