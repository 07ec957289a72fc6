from tests.support.builders import PASSWORD
from tests.support.stack import Stack
from tests.support.world import World


def test_signing_in_gives_a_token_that_says_who_one_is(stack: Stack, world: World) -> None:
    answer = stack.client().post("/auth/token", {"username": world.member.username, "password": PASSWORD})
    assert answer.status == 200, answer.text
    me = stack.client(credential=answer.json["access_token"]).get("/auth/whoami")
    assert me.json["name"] == world.member.username
    assert [(p["id"], p["role"]) for p in me.json["projects"]] == [(str(world.project.id), "member")]
