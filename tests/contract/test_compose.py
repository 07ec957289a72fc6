"""The images and compose files say nothing that the code does not know. No engine is needed, and none is used."""

import ast
import importlib.util
import json
import re
import runpy
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from celery.bin.celery import celery as celery_command
from gunicorn.config import Config
from typer.main import get_command

from agent.settings import NodeSettings
from app.cli.server import server as server_commands
from app.core.settings import Settings
from tasks import queues
from tasks.node_command import node as node_command
from tasks.settings import FlowerSettings
from tests.contract.test_architecture import tree_of
from trellis.settings import BrokerSettings, names

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
RABBITMQ = yaml.safe_load((DOCKER / "compose.rabbitmq.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
OTHERS = [
    (name, service) for file in (COMPOSE, RABBITMQ) for name, service in file["services"].items() if "image" in service
]
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
# What the settings of each process are read into.
NODE = {name for name in OURS if name.startswith("node-")}
KINDS: dict[str, Any] = {"beat": BrokerSettings, "flower": FlowerSettings, **dict.fromkeys(NODE, NodeSettings)}
MOUNTED = "/run/secrets/"


def commands() -> Iterator[tuple[str, list[str]]]:
    for name, service in OURS.items():
        yield name, service["command"]
        test = service.get("healthcheck", {}).get("test", [])
        if test[:1] == ["CMD-SHELL"]:
            yield f"{name} health", test[1].split()
        elif test[:1] == ["CMD"] and test[1] != "python":
            yield f"{name} health", test[1:]


def variable_of(module: str, name: str) -> bool:
    """Whether a module of ours, found but not loaded, has a variable of that name."""
    found = importlib.util.find_spec(module)
    assert found is not None, f"there is no module {module}"
    assert found.origin is not None
    bodies = tree_of(Path(found.origin)).body
    assigned = {
        target.id
        for node in bodies
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return name in assigned


def parse(command: Any, words: list[str]) -> None:
    """Read the words as the command would; click raises for those that it does not know, and for what is missing."""
    while inner := getattr(command, "commands", None):
        command, words = inner[words[0]], words[1:]
    command.make_context(command.name, list(words))


@pytest.mark.parametrize(("service", "words"), list(commands()))
def test_every_command_is_one_that_the_code_has(service: str, words: list[str]) -> None:
    program, *rest = words
    if program == "gunicorn":
        arguments = Config().parser().parse_args(rest)
        module, _, variable = arguments.args[0].partition(":")
        assert variable_of(module, variable)
    elif program == "celery":
        assert rest[0] == "-A"
        assert variable_of(rest[1], "app")
        if rest[2] != "flower":  # it hands its words to Tornado, which reads them when it runs
            command = celery_commands()[rest[2]]
            # Its options look into a running application: read, and left at that.
            command.make_parser(click.Context(command)).parse_args(rest[3:])
    else:
        assert program == "trellis"
        assert program in project()["scripts"]
        entry = project()["entry-points"]["trellis.commands"][rest[0]]
        assert entry == {"server": "app.cli.server:server", "node": "tasks.node_command:node"}[rest[0]]
        parse(trellis_commands()[rest[0]], rest[1:])


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def celery_commands() -> dict[str, click.Command]:
    found: dict[str, click.Command] = dict(celery_command.commands)
    return found


def trellis_commands() -> dict[str, Any]:  # Typer brings a Click of its own
    node = typer.Typer()
    node.command()(node_command)
    return {"server": get_command(server_commands), "node": get_command(node)}


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_is_a_setting_of_its_process(name: str) -> None:
    assert set(OURS[name].get("environment", {})) <= names(KINDS.get(name, Settings))


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_a_process_cannot_do_without_is_set(name: str) -> None:
    given = OURS[name].get("environment", {})
    needed = [field.name.upper() for field in fields(KINDS.get(name, Settings)) if field.default is MISSING]
    assert not [word for word in needed if not {f"TRELLIS_{word}", f"TRELLIS_{word}_FILE"} & set(given)]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_secrets_come_as_files_that_are_mounted_and_declared(name: str) -> None:
    service = SERVICES[name]
    text = yaml.safe_dump({key: service.get(key) for key in ("environment", "command", "healthcheck")}, width=10_000)
    used = set(re.findall(rf"{MOUNTED}(\w+)", text))
    assert used == set(service.get("secrets", ()))
    assert used <= set(COMPOSE["secrets"])


def test_no_variable_holds_a_secret_itself() -> None:
    plain = {
        key for service in SERVICES.values() for key in service.get("environment", {}) if not key.endswith("_FILE")
    }
    assert not [key for key in plain if re.search(r"PASS|SECRET|TOKEN|KEY|DATABASE_URL|BROKER_URL", key)]


def test_every_secret_is_made_by_the_script_and_the_urls_hold_the_passwords(tmp_path: Path) -> None:
    make = runpy.run_path(str(DOCKER / "make_secrets.py"))["main"]
    make(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    files = {Path(secret["file"]).name for file in (COMPOSE, RABBITMQ) for secret in file["secrets"].values()}
    assert files == set(made)
    assert made["database_password"] in made["database_url"]
    assert all(
        made["broker_password"] in made[name] for name in ("broker_url", "redis_conf", "rabbitmq_url", "rabbitmq_conf")
    )
    make(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == made
    Settings(made["database_url"], made["broker_url"], made["secret_key"])


def test_the_made_urls_name_services_of_the_files(tmp_path: Path) -> None:
    runpy.run_path(str(DOCKER / "make_secrets.py"))["main"](tmp_path)
    hosts = {
        re.sub(r".*@([\w-]+):.*", r"\1", (tmp_path / f"{name}_url").read_text())
        for name in ("database", "broker", "rabbitmq")
    }
    assert hosts == {"postgres", "redis", "rabbitmq"}
    assert hosts <= set(SERVICES) | set(RABBITMQ["services"])


def test_what_a_service_waits_for_can_say_that_it_is_well() -> None:
    waits = [
        (name, on, how["condition"])
        for name, service in SERVICES.items()
        for on, how in service.get("depends_on", {}).items()
    ]
    assert waits
    for name, on, condition in waits:
        assert on in SERVICES, f"{name} waits for {on}"
        if condition == "service_healthy":
            assert "healthcheck" in SERVICES[on]
        else:
            assert (condition, SERVICES[on]["restart"]) == ("service_completed_successfully", "no")


@pytest.mark.parametrize(("name", "service"), OTHERS)
def test_every_service_says_what_follows_when_it_ends(name: str, service: dict[str, Any]) -> None:
    assert service["restart"] == ("no" if name == "bootstrap" else "unless-stopped")


def test_only_the_api_and_flower_can_be_reached_and_only_from_this_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"api": ["127.0.0.1:8420:8420"], "flower": ["127.0.0.1:8421:8421"]}
    assert not [name for name, service in RABBITMQ["services"].items() if "ports" in service]


def test_nodes_reach_no_database_and_hold_no_secret_of_the_control_plane() -> None:
    assert NODE
    for name in NODE:
        assert OURS[name]["networks"] == ["platform"]
        assert "secrets" not in OURS[name]
    assert SERVICES["postgres"]["networks"] == ["data"]
    assert COMPOSE["networks"]["data"] == {"internal": True}


def test_every_node_has_a_join_token_written_for_it_and_a_home_of_its_own() -> None:
    words = SERVICES["bootstrap"]["command"]
    invited = {word for before, word in pairwise(words) if before == "--node"}
    assert invited == NODE
    for name in NODE:
        assert OURS[name]["environment"]["TRELLIS_NAME"] == name
        assert OURS[name]["environment"]["TRELLIS_JOIN_TOKEN_FILE"] == f"/run/join/{name}"
        assert OURS[name]["volumes"] == [f"{name}:/var/lib/trellis", "join:/run/join:ro"]


def test_volumes_and_networks_are_declared() -> None:
    volumes = {text.partition(":")[0] for service in SERVICES.values() for text in service.get("volumes", ())}
    assert volumes == set(COMPOSE["volumes"])
    networks = {network for service in SERVICES.values() for network in service["networks"]}
    assert networks == set(COMPOSE["networks"])


def test_the_control_worker_listens_to_every_queue_of_the_control_plane() -> None:
    words = SERVICES["control"]["command"]
    assert set(words[words.index("-Q") + 1].split(",")) == {queues.CONTROL, queues.SCHEDULING, queues.DIRECT}


def test_images_are_built_from_stages_that_exist() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    assert {service["build"]["target"] for service in OURS.values()} <= stages
    assert {
        (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).resolve() for service in OURS.values()
    } == {DOCKER / "Dockerfile"}


def test_no_image_names_a_registry() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images = [
        service["image"] for file in (COMPOSE, RABBITMQ) for service in file["services"].values() if "image" in service
    ]
    assert not [image for image in bases + images if "/" in image]


def test_what_the_images_copy_is_there_and_let_through() -> None:
    sources = [
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]  # fmt: skip
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)
    assert all(any(Path(source).match(pattern) for pattern in let_through) for source in sources)


def test_the_wheel_is_built_from_all_that_it_holds() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert all(f"\nCOPY {package} {package}\n" in DOCKERFILE for package in packages)


def test_everything_from_an_index_is_installed_with_its_hash() -> None:
    installs = re.findall(r"pip install (.*?)(?: &&|$)", DOCKERFILE, re.MULTILINE)
    assert installs
    assert all("--require-hashes" in words or "--no-index" in words for words in installs)
    locks = set(re.findall(r"requirements/(\w+\.txt)", DOCKERFILE))
    assert locks == {"build.txt", "server.txt", "node.txt"}
    assert all("--hash=sha256:" in (ROOT / "requirements" / lock).read_text() for lock in locks)


def test_the_server_does_not_run_as_root() -> None:
    stage = DOCKERFILE.partition(" AS server\n")[2].partition("\nFROM ")[0]
    assert "\nUSER trellis\n" in stage
    assert not [name for name, service in OURS.items() if "user" in service]


def test_an_image_started_alone_runs_what_compose_runs() -> None:
    stage = DOCKERFILE.partition(" AS server\n")[2].partition("\nFROM ")[0]
    assert f"CMD {_as_json(SERVICES['api']['command'])}" in stage
    assert f"CMD {_as_json(SERVICES['node-1']['command'])}" in DOCKERFILE


def _as_json(words: list[str]) -> str:
    return json.dumps(words)
