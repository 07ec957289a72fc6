"""Jobs in containers: which names of images are some, and what goes with them."""

import pytest

from tests.unit.jobs.test_schemas import faults, loaded
from trellis.vocabulary import ExecutorKind, PullPolicy

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "image",
    [
        "python", "python:3.12-slim", "docker.io/library/python:3.12", "registry.example:5000/team/tool_a.b:V1.0",
        f"tool@{DIGEST}", f"ghcr.io/a/b:1@{DIGEST}", "localhost/x", "a__b/c--d",
    ],
)  # fmt: skip
def test_a_name_that_engines_read_is_one(image: str) -> None:
    spec = loaded(image=image, pull="always")
    assert (spec.image, spec.pull, spec.executor) == (image, PullPolicy.ALWAYS, ExecutorKind.CONTAINER)


@pytest.mark.parametrize(
    "image",
    [
        "", " ", "-v", "--privileged", "/etc/passwd", "../x", "a/../b", "dir:/tmp/x", "oci-archive:/tmp/x.tar", "docker://x",
        "containers-storage:x", "dir:x", "oci:x:1", "docker-archive:x", "Tool", "x:", "x@", "x@sha256:12", f"x@md5:{'0' * 32}", "x y", "x\ny", "x\0", "x:1\n", "http://x/y",
        "x?fromSrc=/etc", "x&repo=y", "x#y", "x%2f..", "a//b", "a/", "é", "x:" + "a" * 129, "a/" * 300 + "a", 7, None, ["x"],
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_name_of_an_image_is_refused_and_named(image: object) -> None:
    assert "/image" in next(iter(faults(image=image)))


def test_what_is_of_containers_goes_with_an_image() -> None:
    assert faults(pull="always") == {"/pull": "is of a container: name its image"}
    assert faults(security={"read_only_root": False}) == {"/security": "is of a container: name its image"}
    assert faults(executor="container") == {"/image": "is missing: a container runs one"}
    assert "/executor" in faults(image="x", executor="process")
    packages = {"bundle": "0198c0de-0000-7000-8000-000000000000", "requirements": "requirements.txt"}
    assert "/requirements" in faults(image="x", **packages)


@pytest.mark.parametrize(
    "more",
    [
        {"privileged": True}, {"capabilities": ["SYS_ADMIN"]}, {"user": "root"}, {"user": 0}, {"seccomp": "unconfined"},
        {"apparmor": "unconfined"}, {"read_only_root": "no"}, {"devices": ["/dev/sda"]}, {"no_new_privileges": False},
    ],
    ids=str,
)  # fmt: skip
def test_no_right_can_be_asked_for(more: dict[str, object]) -> None:
    (pointer,) = faults(image="x", security=more)
    assert pointer == f"/security/{next(iter(more))}"


@pytest.mark.parametrize("name", ["volumes", "mounts", "entrypoint", "host_config", "container", "privileged", "user"])
def test_nothing_of_the_engine_can_be_reached_by_a_field(name: str) -> None:
    assert list(faults(**{"image": "x", name: "/etc"})) == [f"/{name}"]


def test_a_role_may_have_an_image_of_its_own() -> None:
    spec = loaded(roles=[{"name": "a", "image": "x"}, {"name": "b"}])
    assert ([role.image for role in spec.roles], spec.in_containers) == (["x", ""], True)
    assert not loaded().in_containers


def test_a_job_without_an_image_keeps_no_word_of_it() -> None:
    assert not loaded(roles=[{"name": "a"}]).stored().keys() & {"image", "pull", "read_only_root"}
    assert "image" not in loaded(roles=[{"name": "a"}]).stored()["roles"][0]
