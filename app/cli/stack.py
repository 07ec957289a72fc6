"""The whole platform on one machine: what is started, in which order, and how it ends."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import app
from app.cli import accounts, platform, state
from app.cli.accounts import Account
from app.cli.binaries import POSTGRES, VALKEY, find_program
from app.cli.cluster import Machine
from app.cli.errors import StackError
from app.cli.files import make_folder, write_private
from app.cli.grants import ADMIN, Grant, Wish
from app.cli.home import FALLBACK, Home, only_one, open_home
from app.cli.platform import Wiring
from app.cli.ports import require_free
from app.cli.postgres import Postgres
from app.cli.progress import Reporter
from app.cli.services import Service, identity, rotate
from app.cli.supervisor import Supervisor
from app.cli.valkey import Valkey
from trellis.simulation import HostPlan

CODE = Path(app.__path__[0]).parent
STEPS = 6
BOOTSTRAP_S = 120.0


@dataclass(frozen=True, slots=True)
class Options:
    """What `trellis up` was asked for. environment: the caller's, read once where the program began.

    plan: a simulated cluster in place of the machines; profile: the file that it was read from.
    """

    home: Path
    environment: Mapping[str, str]
    machines: tuple[Machine, ...] = (Machine("node-1"),)
    port: int = 8420
    flower_port: int = 8421
    plan: HostPlan | None = None
    profile: Path | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """What is started to be nodes, by name."""
        return tuple(machine.name for machine in self.machines) if self.plan is None else (platform.SIMULATED,)

    @property
    def nodes(self) -> str:
        """The nodes, for a person."""
        return f"{self.count:,}{'' if self.plan is None else ' simulated'} node{'s' if self.count != 1 else ''}"

    @property
    def count(self) -> int:
        """How many nodes there are to be."""
        plan = self.plan
        return len(self.machines) if plan is None else sum(len(group.names) for group in plan.nodes)


@dataclass
class Stack:
    """One running stack; `stop` ends what `start` began, also when that failed half-way."""

    options: Options
    reporter: Reporter
    _supervisor: Supervisor = field(init=False)
    _held: ExitStack = field(default_factory=ExitStack)
    _home: Home | None = None
    urls: dict[str, str] = field(default_factory=dict)
    _up: bool = False
    _step: int = 0

    def __post_init__(self) -> None:
        self._supervisor = Supervisor(self._write_state)

    def start(self) -> Grant:
        """Bring everything up, in order. Raises StackError; the caller then calls `stop`."""
        self._next("looking at the ports and the home")
        wiring = self._prepare()
        database, broker = self._start_database(wiring), self._start_broker(wiring)
        wiring = replace(wiring, database=database, broker=broker)
        self._next("bringing the database up to date")
        grant = run_bootstrap(wiring, Wish(self.options.hosts, client_key=not wiring.home.client.exists()))
        self._keep_login(wiring, grant)
        self._next("starting the API")
        self._supervisor.start([platform.api(wiring)])
        self._next(f"starting the scheduler and {self.options.nodes}")
        self._supervisor.start(
            [platform.control(wiring)],
            [platform.beat(wiring)],
            self._nodes(wiring, grant),
            [platform.flower(wiring)],
        )
        self.urls = {"api": wiring.url, "flower": wiring.flower_url}
        self._up = True
        self._write_state(self._supervisor)
        return grant

    def _nodes(self, wiring: Wiring, grant: Grant) -> list[Service]:
        """One service a node; one for all that are simulated."""
        options, tokens = self.options, grant.join_tokens
        if options.plan is None:
            return [platform.node(wiring, machine, tokens[machine.name]) for machine in options.machines]

        def joined(count: int, of: int) -> None:
            self.reporter.step(self._step, STEPS, f"starting the scheduler; {count:,} of {of:,} nodes have joined")

        return [platform.host(wiring, options.plan, tokens[platform.SIMULATED], joined)]

    def stop(self, told: Callable[[str], None] = lambda _: None) -> None:
        """End everything, last started first, and let go of the home."""
        self._up = False
        self._supervisor.stop(told)
        if self._home:
            self._home.state.unlink(missing_ok=True)
            self._home = None
        self._held.close()

    def kill(self) -> None:
        """End everything at once: for somebody who will not wait for `stop`."""
        self._supervisor.kill()

    def _prepare(self) -> Wiring:
        options = self.options
        servers, services = accounts.for_servers(), account_for_services()
        home = open_home(options.home, servers, services, version("trellis"))
        self._held.enter_context(only_one(home))
        self._home = home
        if left := state.stop_leftovers(home.state, timeout_s=10.0):
            self.reporter.say(f"Ended what an earlier run had left behind: {', '.join(left)}.")
        require_free(options.port, "--port")
        require_free(options.flower_port, "--flower-port")
        for log in home.logs.glob("*.log"):
            rotate(log)
        home.secret("secret_key", services)
        given = {key: options.environment[key] for key in _given("DATABASE_URL", options.environment)}
        brokers = {key: options.environment[key] for key in _given("BROKER_URL", options.environment)}
        environment = {**platform.pace_for(options.count, options.environment), **options.environment}
        return Wiring(home, services, CODE, environment, given, brokers, options.port, options.flower_port)

    def _start_database(self, wiring: Wiring) -> dict[str, str]:
        self._next("starting PostgreSQL" if not wiring.database else "using your PostgreSQL")
        if wiring.database:
            return wiring.database
        home, servers = wiring.home, accounts.for_servers()
        postgres = Postgres(
            program=find_program(POSTGRES, servers, home.path / "bin"),
            folder=home.path / "postgres",
            account=servers,
            port=home.port("postgres", (self.options.port, self.options.flower_port)),
            superuser_password=home.secret("postgres_superuser", accounts.current()),
            password=home.secret("database", accounts.current()),
            log=home.logs / "postgres.log",
        )
        postgres.prepare()
        self._supervisor.start([postgres.service()])
        postgres.ensure_database()
        return {"TRELLIS_DATABASE_URL_FILE": str(home.keep_secret("database_url", postgres.url, wiring.account))}

    def _start_broker(self, wiring: Wiring) -> dict[str, str]:
        self._next("starting Valkey" if not wiring.broker else "using your broker")
        if wiring.broker:
            return wiring.broker
        home, servers = wiring.home, accounts.for_servers()
        valkey = Valkey(
            program=find_program(VALKEY, servers, home.path / "bin"),
            folder=home.path / "valkey",
            account=servers,
            port=home.port("valkey", (self.options.port, self.options.flower_port)),
            password=home.secret("broker", accounts.current()),
            log=home.logs / "valkey.log",
        )
        valkey.prepare()
        self._supervisor.start([valkey.service()])
        return {"TRELLIS_BROKER_URL_FILE": str(home.keep_secret("broker_url", valkey.url, wiring.account))}

    def _keep_login(self, wiring: Wiring, grant: Grant) -> None:
        known = json.loads(wiring.home.client.read_text()) if wiring.home.client.exists() else {}
        login = {"url": wiring.url, "api_key": grant.api_key or known["api_key"]}
        write_private(wiring.home.client, json.dumps(login))
        if wiring.home.path == FALLBACK:
            # Commands look for the login in the `.trellis` of the folder they are typed in.
            write_private(make_folder(Path.cwd() / ".trellis") / wiring.home.client.name, json.dumps(login))
        if grant.password:
            self.reporter.say(f"Made the administrator {ADMIN!r} with the password {grant.password} (shown this once).")

    def _next(self, what: str) -> None:
        self._step += 1
        self.reporter.step(self._step, STEPS, what)

    def _write_state(self, supervisor: Supervisor) -> None:
        if self._home:
            entries = tuple(state.entry_of(keeper) for keeper in supervisor.keepers)
            # A full disk must not end the watch over the services; the notes are then old, and `status` checks them.
            with suppress(OSError):
                state.write(self._home.state, state.StackState(self._up, entries, self.urls))


def account_for_services() -> Account:
    """Who our Python processes run as: the servers' account where it can reach Python and the code, else we."""
    wanted = accounts.for_servers()
    needed = (Path(sys.executable), Path(sys.prefix), Path(sys.base_prefix), Path(os.__file__), CODE)
    return wanted if all(accounts.may_enter(path, wanted) for path in needed) else accounts.current()


def run_bootstrap(wiring: Wiring, wish: Wish) -> Grant:
    """Migrate and make what `wish` asks for, in a process of its own. Raises StackError with the end of what it said."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli.bootstrap"],
            input=json.dumps(asdict(wish)), env=wiring.server_environment(), cwd=wiring.code,
            capture_output=True, text=True, check=False, timeout=BOOTSTRAP_S, start_new_session=True,
            **identity(wiring.account),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise StackError(f"The database was not brought up to date within {BOOTSTRAP_S:.0f} s.") from error
    log = wiring.home.logs / "bootstrap.log"
    log.write_text(done.stderr)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise StackError(f"The database could not be brought up to date: {last}. All of it is in {log}.")
    return Grant(**json.loads(done.stdout))


def _given(name: str, environment: Mapping[str, str]) -> list[str]:
    return [key for key in (f"TRELLIS_{name}", f"TRELLIS_{name}_FILE") if environment.get(key)]
