"""What import contracts cannot say of the code's shape, read from the sources themselves."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from app.core.events import ANNOUNCED, KINDS
from app.core.states import MACHINES
from app.scheduling.cycle import WAKING
from tasks.reactions import REACTIONS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("trellis", "scheduler", "agent", "gateway", "app", "tasks")
LONGEST_MODULE, LONGEST_TEST = 600, 700
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODELS = sorted((ROOT / "app").glob("*/models.py"))
# Words that say nothing of what a module holds.
VAGUE = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc", "data", "info"}
ENVIRONMENT = {
    "TRELLIS_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/none",
    "TRELLIS_BROKER_URL": "redis://127.0.0.1:1/0",
    "TRELLIS_SECRET_KEY": "a secret key that is long enough for this",
}
# Refuses every module that is neither of the standard library nor of the packages in OWN.
_ALONE = """
import sys
class Alone:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in OWN:
            raise ModuleNotFoundError(f"{name} is not of the standard library")
sys.meta_path.insert(0, Alone())
"""


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def run(program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def loaded_by(modules: list[str], own: set[str]) -> subprocess.CompletedProcess[str]:
    lines = "\n".join(f"import {module}" for module in modules)
    return run(f"OWN = {own!r}\n{_ALONE}\n{lines}\nprint('ok')")


def names_of(package: str) -> list[str]:
    modules = (path.relative_to(ROOT).with_suffix("") for path in MODULES if path.is_relative_to(ROOT / package))
    return [".".join(module.parts).removesuffix(".__init__") for module in modules]


def test_the_scheduler_loads_with_the_standard_library_alone() -> None:
    done = loaded_by(names_of("scheduler"), {"scheduler", "trellis"})
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_tables_know_only_the_core() -> None:
    allowed = ("app.core.", "trellis.", "sqlalchemy")
    strangers = {
        f"{shown(path)} imports {name}"
        for path in MODELS
        for name in imports_of(path)
        if not name.startswith(allowed) and name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert not strangers


def test_models_of_other_domains_are_imported_by_rules_only() -> None:
    """A row of another domain is an id, so no `models` imports another domain's."""
    assert not [shown(path) for path in MODELS for name in imports_of(path) if name.endswith(".models")]


def test_no_relationship_crosses_from_one_table_to_another_unloaded() -> None:
    lazy = [
        f"{shown(path)}:{node.lineno}"
        for path in MODELS
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "relationship"
        and not any(
            k.arg == "lazy" and isinstance(k.value, ast.Constant) and k.value.value == "raise" for k in node.keywords
        )
    ]
    assert not lazy


@pytest.mark.parametrize("package", ["app", "tasks"])
def test_a_state_is_assigned_in_the_unit_of_work_alone(package: str) -> None:
    # app/cli keeps processes, not rows: its keepers have a state of their own.
    paths = [path for path in (ROOT / package).rglob("*.py") if not path.is_relative_to(ROOT / "app" / "cli")]
    found = [shown(path) for path in paths for node in ast.walk(tree_of(path)) if _assigns_state(node)]
    assert set(found) <= {"app/core/uow.py"}


def _assigns_state(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        words = [word.value for word in node.args if isinstance(word, ast.Constant)]
        setting = isinstance(node.func, ast.Name) and node.func.id == "setattr" and "state" in words
        # update(...).values(state=...) would go round the table as well
        storing = isinstance(node.func, ast.Attribute) and node.func.attr == "values"
        return setting or (storing and any(keyword.arg == "state" for keyword in node.keywords))
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Attribute) and target.attr == "state" for target in targets)


@pytest.mark.parametrize("package", ["app", "tasks"])
def test_commit_is_called_in_the_unit_of_work_alone(package: str) -> None:
    found = [
        shown(path)
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit"
    ]
    assert set(found) <= {"app/core/uow.py"}


def test_no_module_is_longer_than_its_hard_stop() -> None:
    limits = [(path, LONGEST_MODULE) for path in MODULES]
    limits += [(path, LONGEST_TEST) for path in (ROOT / "tests").rglob("*.py")]
    long = {shown(path): lines for path, limit in limits if (lines := path.read_bytes().count(b"\n")) > limit}
    assert not long


def test_what_another_module_may_call_has_a_docstring() -> None:
    silent = [
        f"{shown(path)}:{node.lineno} {node.name}"
        for path in MODULES
        for node in _public(tree_of(path))
        if ast.get_docstring(node) is None and node.name not in _verbs_beside(path)
    ]
    assert not silent


def _verbs_beside(path: Path) -> set[str]:
    """What `base` of the same folder tells once for all that do it."""
    base = path.with_name("base.py")
    return {node.name for node in _public(tree_of(base)) if ast.get_docstring(node)} if base.exists() else set()


def _public(parent: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in parent.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            # A property is a value with a name, as a field is: its class tells of it.
            if not any(ast.unparse(mark) in ("property", "cached_property") for mark in node.decorator_list):
                yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def test_every_module_says_what_it_is() -> None:
    silent = [
        shown(path) for path in MODULES if path.stat().st_size and ast.get_docstring(tree_of(path)) is None
    ]  # fmt: skip
    assert not silent


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [shown(path) for path in MODULES if path.stem in VAGUE]


def test_modules_are_named_in_lower_case_words() -> None:
    odd = [
        shown(path)
        for path in MODULES
        if path.stem != "__init__" and not path.stem.strip("_").replace("_", "").isalnum()
    ]
    assert not odd + [shown(path) for path in MODULES if path.stem.lower() != path.stem]


@pytest.mark.parametrize("package", ["app", "tasks"])
def test_an_init_holds_no_code_so_that_a_part_never_loads_the_whole(package: str) -> None:
    inits = sorted((ROOT / package).rglob("__init__.py"))
    assert not [
        shown(path) for path in inits if len(tree_of(path).body) > (ast.get_docstring(tree_of(path)) is not None)
    ]


def test_every_announced_kind_is_heard_and_every_heard_kind_is_announced() -> None:
    assert set(REACTIONS) == ANNOUNCED


def test_what_is_announced_or_wakes_the_scheduler_is_a_kind_of_event() -> None:
    assert ANNOUNCED <= KINDS
    assert set(WAKING) <= KINDS


def test_what_wakes_a_cycle_is_what_a_lost_message_would_have_asked_for() -> None:
    planned = {
        kind for kind, heard in REACTIONS.items() if any(to.task.startswith("tasks.scheduling.") for to in heard)
    }
    assert planned == set(WAKING)


def test_every_emitted_kind_is_written_down_and_every_written_kind_is_emitted() -> None:
    emitted = {
        node.args[0].value
        for path in (ROOT / "app").rglob("*.py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "emit"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    of_moves = {kind for kind in KINDS if kind.partition(".")[2] in _states()}
    assert emitted <= KINDS
    assert KINDS - of_moves <= emitted


def _states() -> set[str]:
    return {str(state) for machine in MACHINES.values() for state in machine.moves}


def test_a_control_worker_knows_every_task_that_a_reaction_or_a_tick_names() -> None:
    program = (
        "import json; from tasks.control import app; from tasks.beat import app as beat; "
        "print(json.dumps([sorted(app.tasks), sorted(e['task'] for e in beat.conf.beat_schedule.values())]))"
    )
    known, ticks = _json(program)
    sent = {to.task for heard in REACTIONS.values() for to in heard if not to.task.startswith("tasks.node.")}
    assert sent | set(ticks) <= set(known)


def test_a_node_knows_every_task_that_is_sent_to_nodes() -> None:
    sent = {to.task for heard in REACTIONS.values() for to in heard if to.task.startswith("tasks.node.")}
    source = (ROOT / "tasks" / "node.py").read_text()
    assert all(f'"{name}"' in source for name in sent)


def test_tasks_have_names_that_can_be_read_in_flower() -> None:
    (names,) = _json("import json; from tasks.control import app; print(json.dumps([sorted(app.tasks)]))")
    ours = [name for name in names if not name.startswith("celery.")]
    assert ours
    assert all(name.startswith(("tasks.", "trellis.")) and name.count(".") == 2 for name in ours)


def test_a_task_takes_ids_alone() -> None:
    """No task of the control plane takes more than ids: rows, specs and secrets stay in the database."""
    strange = [
        f"{shown(path)}:{node.lineno} {argument.arg}"
        for path in sorted((ROOT / "tasks").glob("*.py"))
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef) and any("task" in ast.unparse(mark) for mark in node.decorator_list)
        for argument in node.args.args
        if argument.arg != "uow" and not argument.arg.endswith(("_id", "_ids", "pairs"))
    ]
    assert not strange


def test_a_node_loads_no_code_of_the_server() -> None:
    program = (
        "import sys, tasks.node, tasks.node_command\n"
        "server = ('app', 'scheduler', 'flask', 'sqlalchemy', 'marshmallow', 'psycopg')\n"
        "print(sorted(name for name in server if name in sys.modules))"
    )
    done = run(program)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_beat_loads_no_code_of_the_server() -> None:
    done = run(
        "import sys, tasks.beat; print([name for name in ('app', 'flask', 'sqlalchemy') if name in sys.modules])"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_who_keeps_a_stack_running_loads_no_code_of_the_platform() -> None:
    """The supervisor lives as long as the stack, and `trellis status` is typed often: what they need is little."""
    program = (
        "import sys, app.cli.commands\n"
        "platform = ('sqlalchemy', 'alembic', 'flask', 'marshmallow', 'celery', 'scheduler', 'agent')\n"
        "print(sorted(name for name in platform if name in sys.modules))"
    )
    done = run(program)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def _json(program: str) -> list[list[str]]:
    done = run(program)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found
