"""Pages of a list, walked to the end and abused on the way."""

import pytest

from tests.support.builders import a_user
from tests.support.stack import Stack
from tests.support.world import World


@pytest.mark.parametrize("sort", ["username", "created_at"])
def test_pages_show_every_row_once(stack: Stack, world: World, sort: str) -> None:
    for _ in range(12):
        stack.add(a_user())
    admin, seen, cursor = stack.client(world.admin), [], None
    while True:
        query = {"limit": "5", "sort": sort} | ({"cursor": cursor} if cursor else {})
        page = admin.get("/users", query_string=query).json
        seen += [user["id"] for user in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert len(seen) == len(set(seen)) == 17
    whole = admin.get("/users", query_string={"limit": "500", "sort": sort}).json["items"]
    assert seen == [user["id"] for user in whole]


def test_a_cursor_is_of_one_list_one_order_and_one_reader(stack: Stack, world: World) -> None:
    admin = stack.client(world.admin)
    cursor = admin.get("/users", query_string={"limit": "1"}).json["next_cursor"]
    for path, query in (
        ("/users", {"cursor": cursor, "sort": "created_at"}),
        ("/projects", {"cursor": cursor}),
        ("/users", {"cursor": cursor[:-2]}),
        ("/users", {"cursor": "A" + cursor[1:]}),
        ("/users", {"cursor": "!"}),
    ):
        answer = admin.get(path, query_string=query)
        assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/cursor"), (path, query)
    queues = {"limit": "1", "sort": "name"}
    theirs = stack.client(world.admin).get("/projects", query_string=queues).json["next_cursor"]
    assert stack.client(world.member).get("/projects", query_string=queues | {"cursor": theirs}).status == 422


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"limit": "0"}, "/limit"), ({"limit": "501"}, "/limit"), ({"limit": "x"}, "/limit"),
        ({"limit": "1e2"}, "/limit"),
        ({"sort": "password_hash"}, "/sort"), ({"sort": "id; DROP TABLE users"}, "/sort"), ({"serach": "x"}, "/serach"),
    ],
)  # fmt: skip
def test_a_parameter_that_means_nothing_is_refused(
    stack: Stack, world: World, query: dict[str, str], pointer: str
) -> None:
    answer = stack.client(world.admin).get("/users", query_string=query)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, pointer)
