"""What a replica waits for before its program starts: its code, and the environment that it asks for."""

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from agent import clock, environments, verdicts
from agent.containers.engine import Engine
from agent.containers.image import Fetching
from agent.ending import Ending
from agent.executors.base import Exit, Running, StartFailed
from agent.layout import read_json, write_json
from agent.output import RememberingLog
from agent.redaction import Redactor, secrets_in
from agent.rendezvous import LATE, SAY_S, WAITING, WITHIN_S, Seat
from agent.ward import Ward
from agent.workspace import Mount, Places, Program
from trellis.vocabulary import ReplicaState
from trellis.wire import Code, Container

# For how long the code of a job is waited for.
CODE_WITHIN_S = 900.0
LOCK_LOOK_S = 0.2
Timers = Mapping[Callable[[], None], float]


class Preparing:
    """One replica's. `watch` waits for the end of what runs; `obey` looks whether anything was wished meanwhile."""

    def __init__(self, ward: Ward, ending: Ending, watch: Callable[[Running], Exit], obey: Callable[[], None]) -> None:
        self._ward = ward
        self._ending = ending
        self._watch = watch
        self._obey = obey
        self._timers = ward.loop.timers

    def await_code(self, code: Code) -> None:
        """Until the daemon has laid it out, or the replica is to start no more; see `agent.provisioning`.

        Raises StartFailed where it can't be had.
        """
        ward = self._ward
        write_json(ward.replica.wanted, {"project_id": ward.spec.project_id, "digest": code.digest})
        say = partial(ward.log.say, f"waiting for the code: {code.files} files, {code.size_bytes} bytes")
        late = verdicts.start_failed(f"its code did not come within {CODE_WITHIN_S:g} s")
        timers: Timers = {say: SAY_S, partial(self._ending.stop, late, 0): CODE_WITHIN_S}
        began = time.monotonic()
        supplied = self._await(ward.replica.supplied, timers)
        ward.spent_s["waited for its code"] = time.monotonic() - began
        if supplied and supplied["fault"]:
            raise StartFailed(supplied["fault"])

    def await_gang(self, program: Program) -> Program:
        """The program as it runs among the others, once all of them are ready. Raises OSError, ValueError."""
        ward = self._ward
        ward.seat = seat = Seat.take(ward.ground, ward.replica, ward.spec)
        ward.teller.tell(ReplicaState.STARTING, seat.ready)
        timers: Timers = {partial(ward.log.say, WAITING): SAY_S, partial(self._ending.stop, LATE, 0): WITHIN_S}
        told = self._await(ward.replica.world, timers)
        return seat.begin(ward.replica, ward.spec, program, told, ward.log.say) if told else program

    def _await(self, path: Path, timers: Timers) -> Any:
        """What the daemon writes there; None if the replica is to start no more. `timers`: what to do after how long."""
        ward, began = self._ward, time.monotonic()
        self._timers |= {action: began + after_s for action, after_s in timers.items()}
        self._ending.watch_lease()
        ward.teller.poke()
        self._obey()
        while ward.verdict is None and (told := read_json(path)) is None:
            ward.loop.wait()
        for action in (*timers, self._ending.look_at_lease):
            self._timers.pop(action, None)
        return None if ward.verdict else told

    def await_image(self, container: Container) -> None:
        """Until the node has the image, or the replica is to start no more. Raises StartFailed where it can't be had."""
        ward = self._ward
        if not ward.ground.site.socket:
            raise StartFailed("this node has no container engine")
        fetching = Fetching(Engine(ward.ground.site.socket), container)
        ward.loop.on(fetching.fd, partial(self._hear_of, fetching))
        self._ending.watch_lease()
        self._obey()
        fetching.start()
        while ward.verdict is None and not fetching.done:
            ward.loop.wait()
        self._hear_of(fetching)
        self._timers.pop(self._ending.look_at_lease, None)
        ward.loop.forget(fetching.fd)
        fetching.close()
        if ward.verdict is None and fetching.fault:
            raise StartFailed(fetching.fault)

    def _hear_of(self, fetching: Fetching) -> None:
        for words in fetching.told():
            self._ward.log.say(words)
            self._ward.teller.poke_soon()

    def find_environment(self, places: Places, path: str) -> Mount | None:
        """The environment that the file `path` of the code asks for, built if need be; None if it comes to nothing."""
        ward, began = self._ward, clock.boottime()
        self._ending.watch_lease()
        try:
            environment = environments.locate(ward.ground, ward.spec, ward.replica.work)
            while ward.verdict is None:
                fd = environment.lock(fcntl.LOCK_SH)
                if fd is not None and environment.use():
                    ward.held = fd  # until the replica has ended, so that nobody removes it
                    return Mount(str(environment.folder), environment.inside)
                if fd is not None:
                    os.close(fd)
                self._build_or_wait(environment, places, path, began)
        except environments.Unbuildable as error:
            ward.verdict = ward.verdict or verdicts.environment_failed(str(error))
        return None

    def _build_or_wait(self, environment: environments.Environment, places: Places, path: str, began: float) -> None:
        """Build it, or look again a little later where another does. Raises Unbuildable, also where that one failed."""
        if why := environment.failed_since(began):
            raise environments.Unbuildable(why)
        fd = environment.lock(fcntl.LOCK_EX)
        if fd is None:
            self._timers[self._look_again] = time.monotonic() + LOCK_LOOK_S
            self._ward.loop.wait()
            return
        try:
            if not environment.use():
                self._build(environment, places, path)
        finally:
            os.close(fd)

    def _look_again(self) -> None:
        """Only wakes who waits."""

    def _build(self, environment: environments.Environment, places: Places, path: str) -> None:
        ward = self._ward
        program, network = environments.build_program(ward.ground, environment, places, path)
        environment.begin(ward.ground.confinement.uid)
        ward.log.say(f"building the environment of {path}")
        ward.teller.poke_soon()
        hide = Redactor(secrets_in(program.environment))  # the address of an index may hold a password
        began, log = time.monotonic(), RememberingLog(ward.replica.log, environments.WORDS_LAST, hide)
        self._timers[self._give_up_building] = began + environments.WITHIN_S
        self._ending.watch_memory()
        # It gets the job's room and not its devices.
        spec = replace(ward.spec, network=network, gpus=(), slices=())
        ended = self._watch(ward.launch(spec, program, log, began))
        self._end_building()
        log.close()
        for remark in ended.remarks:
            ward.log.say(remark)
        if ended.out_of_memory:  # the job's fault, not the environment's: another may have room to build it
            ward.verdict = ward.verdict or verdicts.out_of_memory(ward.spec.memory_bytes)
        if ward.verdict is None and ended.code:
            why = " | ".join(log.last) or ended.start_error or f"uv ended with exit code {ended.code}"
            environment.fail(why, clock.boottime())
            raise environments.Unbuildable(why)
        if ward.verdict is None:
            environment.finish()
            ward.log.say(f"the environment is built, in {time.monotonic() - began:.1f} s")

    def _end_building(self) -> None:
        self._ward.running = None
        for action in (self._give_up_building, self._ending.look_at_memory, self._ending.kill):
            self._timers.pop(action, None)
        self._ward.drop_outputs()
        self._ward.peak_bytes = 0

    def _give_up_building(self) -> None:
        verdict = verdicts.environment_failed(f"it was not built within {environments.WITHIN_S:g} s")
        self._ending.stop(verdict, 0)
