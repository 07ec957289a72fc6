"""The pages that follow from the code say what the code says, and the others name what is there."""

import json
import re
import shlex
import tomllib
from dataclasses import fields
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from typer.main import get_command

from app.http.constraints import ConstraintsSchema
from app.jobs.schemas import JobSubmitSchema
from docs.generate import PROCESSES, documents, meanings_of
from trellis.cli.extras import load
from trellis.cli.root import app

ROOT = Path(__file__).resolve().parents[2]
MADE = documents()
WRITTEN = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
    if path.relative_to(ROOT / "docs" if path.is_relative_to(ROOT / "docs") else ROOT) not in MADE
)


@pytest.mark.parametrize("place", sorted(MADE), ids=str)
def test_a_page_that_follows_from_the_code_is_up_to_date(place: Path) -> None:
    page = ROOT / "docs" / place
    assert page.exists(), f"run `make docs`: {page} is missing"
    assert page.read_text() == MADE[place], "run `make docs`"


@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_every_setting_has_a_sentence(process: str) -> None:
    kind = PROCESSES[process]
    assert {field.name for field in fields(kind)} == set(meanings_of(kind))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = [unquote(link.partition("#")[0]) for link in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", page.read_text())]
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(
        r"`((?:trellis|scheduler|agent|app|tasks|migrations|docker|tests|docs|examples|requirements)/[\w./-]+)`",
        page.read_text(),
    )
    there = [name for name in named if "YYYY" not in name]  # the form of a name, not a name
    assert not [name for name in there if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_make_targets_that_a_page_names_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^ *)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets


def test_records_are_numbered_without_a_gap_and_have_the_same_parts() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    parts = ("## Context", "## Decision", "## Alternatives", "## Consequences")
    assert not [record.name for record in records if any(part not in record.read_text() for part in parts)]


def commands_in(page: Path) -> list[list[str]]:
    """The `trellis ...` lines of a page's shell blocks, and what stands so between single backticks."""
    text = page.read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    lines = re.findall(r"^(?:\w+=\S+ )*(?:\.venv/bin/)?trellis (\w.*)$", blocks, re.MULTILINE)
    lines += re.findall(r"(?<!`)`trellis (\w[^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [shlex.split(line, comments=True) for line in lines]


PAGES = ("README.md", "docs/guides/placement.md", "docs/guides/jobs.md")
SHOWN = [words for page in PAGES for words in commands_in(ROOT / page)]


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_every_command_that_is_shown_can_be_typed(words: list[str]) -> None:
    registered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["trellis.commands"]
    command: Any = get_command(app)
    if words[0] in registered:
        command = load(EntryPoint(words[0], registered[words[0]], "trellis.commands"))
    else:
        command = command.commands[words[0]]
    rest = words[1:]
    while (inner := getattr(command, "commands", {})) and rest:
        command, rest = inner[rest[0]], rest[1:]
    command.make_context(words[0], rest)


@pytest.mark.parametrize(
    "text", re.findall(r"```json\n(.*?)```", (ROOT / "docs/guides/placement.md").read_text(), re.DOTALL)
)
def test_every_submission_that_the_guide_shows_is_one(text: str) -> None:
    spec = JobSubmitSchema().load(json.loads(text))
    assert (spec.command, spec.parts()[0].replicas >= 1) == (tuple(json.loads(text)["command"]), True)


def test_the_guide_names_all_that_constraints_can_say() -> None:
    page = (ROOT / "docs/guides/placement.md").read_text()
    assert not [name for name in ConstraintsSchema().fields if f"`{name}`" not in page]


def test_the_readme_shows_the_two_commands_and_says_what_was_not_run() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.index("make run") < text.index("make test")
    assert "never built" in text
