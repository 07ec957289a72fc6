"""Replicas as processes of the host, kept in as far as the node's confinement goes."""

import fcntl
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from agent import bubblewrap, processes, sandbox, seccomp
from agent.cgroups import Group, Limits
from agent.executors.base import DEADLY, Exit, Running, Start, StartFailed, Usage
from agent.layout import ReplicaDir
from trellis.vocabulary import Isolation

_EXEC_FAILED = "exec"
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP)


class ProcessExecutor:
    """The default executor."""

    def start(self, start: Start) -> Running:
        """See Executor.start. The job's own program may still fail to start: then it ends with 126 or 127."""
        begin = _start_in_namespaces if start.ground.confinement.level is Isolation.NAMESPACES else _start_forked
        group = start.ground.cgroups.group(start.replica.path.name)
        if group is None:
            return begin(start)
        try:
            group.make(Limits(start.spec.memory_bytes, start.spec.cpu_milli))
            with group.entered():
                running = begin(start)
        except OSError as error:
            group.remove()
            raise StartFailed(f"its control group can't be used: {error.strerror}") from error
        except StartFailed:
            group.remove()
            raise
        running.group = group
        return running

    def poll(self, running: Running) -> Exit | None:
        """See Executor.poll. Kills what a main process that ended left in the background."""
        if not running.ours:
            alive = any(processes.started_at(pid) for pid in running.strays)
            return None if alive else Exit(None)
        everything_gone = _reap(running)
        if running.ended is None:
            return None
        if not everything_gone:
            if running.status is not None and not running.spared:
                running.spared = True  # with bubblewrap the kernel ends the rest: we need not look for it at once
                return None
            # Its main process is gone, so the replica is over: what it left in the background goes with it.
            processes.kill_below(os.getpid())
            if not _reap(running):
                return None
        try:
            return _with_limits(_exit_of(running), running.group)
        finally:
            if running.status is not None:
                os.close(running.status)

    def signal(self, running: Running, signum: int) -> None:
        """See Executor.signal. In namespaces TERM goes past bubblewrap, which would take the job along at once."""
        if not running.ours:
            processes.send(running.strays, signum)
            return
        if signum == signal.SIGKILL:
            processes.kill_below(os.getpid())
            if running.group:  # some may have been started while we looked
                running.group.kill()
            return
        targets = _of_job(running)
        if not targets and running.status is not None:
            targets, signum = [running.pid], signal.SIGKILL
        processes.send(targets, signum)

    def freeze(self, running: Running) -> bool:
        """See Executor.freeze."""
        processes.send(_of_job(running), signal.SIGSTOP)
        there = _of_job(running)
        return bool(there) and all(map(processes.is_still, there))

    def warn(self, running: Running, signum: int) -> bool:
        """See Executor.warn."""
        targets = [pid for pid in _of_job(running) if processes.catches(pid, signum)]
        processes.send(targets, signum)
        return bool(targets)

    def members(self, running: Running) -> list[int]:
        """See Executor.members: all that is below the supervisor."""
        return processes.descendants(os.getpid()) if running.ours else list(running.strays)

    def usage(self, running: Running) -> Usage:
        """See Executor.usage: CPU seconds of those that ended, bytes of those that live."""
        below = processes.descendants(os.getpid()) if running.ended is None else []
        over = bool(below and running.group and running.group.out_of_memory)
        return Usage(running.cpu_s, running.peak_memory_bytes, processes.memory_bytes(below), over)

    def release(self, running: Running) -> None:
        """See Executor.release: there is nothing left, once all of it is gone."""

    def resume(self, start: Start) -> Running | None:  # whatever it is
        """See Executor.resume: it goes with its supervisor, for nobody else would learn how it ends."""
        return None

    def adopt(self, replica: ReplicaDir) -> Running | None:
        """See Executor.adopt: whoever bears the replica's mark in its environment."""
        strays = tuple(_find_strays(replica))
        return Running(strays[0], ours=False, strays=strays) if strays else None


def _start_in_namespaces(start: Start) -> Running:
    confinement = start.ground.confinement
    options, command = bubblewrap.arguments(start.ground, start.replica, start.spec, start.program)
    if any("\0" in word for word in command):
        raise StartFailed("the command holds a NUL character")
    filter_ = seccomp.filter_of(own_processes=True) if confinement.filtered else None
    words, calls = _file(os.fsencode("\0".join([*options, ""]))), _file(filter_ or b"")
    status, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    # High numbers first: a descriptor that is still to be copied must not be overwritten.
    sources = [_high(fd) for fd in (nothing, start.stdout, start.stderr, words, told, calls)]
    actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(sources)]
    filtering = ["--seccomp", "5"] if filter_ else []
    argv = [confinement.bwrap, "--args", "3", "--json-status-fd", "4", *filtering, "--", *command]
    try:
        pid = os.posix_spawn(
            confinement.bwrap, argv, {}, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULT_SIGNALS
        )
    except OSError as error:
        raise StartFailed(f"bubblewrap can't be started: {error.strerror}") from error
    finally:
        for fd in (*sources, words, told, nothing, calls):
            os.close(fd)
    return Running(pid, status=status)


def _file(content: bytes) -> int:
    """A descriptor at the beginning of a file that holds this, and is nowhere on disk."""
    fd = os.memfd_create("trellis", os.MFD_CLOEXEC)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _high(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)


def _start_forked(start: Start) -> Running:
    heard, told = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_job(start, told, parent)
    os.close(told)
    with os.fdopen(heard, "rb") as pipe:
        fault = json.loads(pipe.read() or b"null")  # ends when the job's program is in place, or with what failed
    if fault is not None and fault["step"] != _EXEC_FAILED:
        os.waitpid(pid, 0)
        raise StartFailed(f"this node can't keep its isolation level: {fault['message']}")
    if fault is not None:
        os.write(start.stderr, f"{start.program.argv[0]}: {fault['message']}\n".encode())
    return Running(pid)


def _become_job(start: Start, told: int, parent: int) -> NoReturn:
    step = "set-up"
    code = 126
    try:
        for signum in _DEFAULT_SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in enumerate((nothing, start.stdout, start.stderr)):
            os.dup2(source, target)
        os.chdir(start.replica.work)
        sandbox.enter(start.ground, start.spec, start.program.places, parent)
        step = _EXEC_FAILED
        os.execvpe(start.program.argv[0], start.program.argv, start.program.environment)  # noqa: S606  # as it must be
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        code = 127 if missing else 126
        message = str(getattr(error, "strerror", None) or error)
        os.write(told, json.dumps({"step": step, "message": message}).encode())
    finally:
        os._exit(code)


def _of_job(running: Running) -> list[int]:
    """The job's own processes. In namespaces bubblewrap and its first process only wait, for the job below them."""
    below = processes.descendants(os.getpid())
    if running.status is None:
        return below
    keepers = {running.pid, *processes.descendants(running.pid)[:1]}
    return [pid for pid in below if pid not in keepers]


def _reap(running: Running) -> bool:
    """Collect who ended; True if no child is left."""
    while True:
        try:
            pid, status, spent = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return False
        # One by one: what the kernel sums up of all children is of every replica that this process has served.
        running.cpu_s += spent.ru_utime + spent.ru_stime
        running.peak_memory_bytes = max(running.peak_memory_bytes, spent.ru_maxrss * 1024)
        if pid == running.pid:
            running.ended = status


def _exit_of(running: Running) -> Exit:
    status = running.ended or 0
    if os.WIFSIGNALED(status):
        return Exit(128 + os.WTERMSIG(status), os.WTERMSIG(status))
    code = os.WEXITSTATUS(status)
    if running.status is not None and code and not _told_exit_code(running.status):
        return Exit(code, None, "the sandbox could not be built; its own words are the last lines of the log")
    return Exit(code, code - 128 if code - 128 in DEADLY else None)


def _with_limits(ended: Exit, group: Group | None) -> Exit:
    """Add what its control group knows, and let go of that."""
    if group is None:
        return ended
    remarks = []
    if group.refused:
        times = "once" if group.refused == 1 else f"{group.refused} times"
        remarks.append(f"was refused a process or thread {times}, as it had all it may")
    ended = replace(ended, out_of_memory=bool(group.out_of_memory and ended.code), remarks=tuple(remarks))
    group.kill()
    group.remove()
    return ended


def _told_exit_code(status: int) -> bool:
    """Whether bubblewrap saw the job's own exit code: else the one we have is bubblewrap's."""
    try:
        return b'"exit-code"' in os.read(status, 65536)
    except BlockingIOError:
        return False


def _find_strays(replica: ReplicaDir) -> list[int]:
    """Processes that carry the replica's mark in their environment.

    In namespaces there is never one: the kernel ends all of those with bubblewrap, and bubblewrap with its parent.
    """
    mark = f"TRELLIS_ARTIFACTS_DIR={replica.artifacts}".encode()
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if mark in environment.split(b"\0"):
            found.append(int(name))
    return found
