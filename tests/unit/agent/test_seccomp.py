"""What the filter says of calls: interpreted here as the kernel does, so that machines that we are not on count too."""

import errno
import struct

import pytest

from agent.seccomp import filter_of

ALLOWED = 0x7FFF0000
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# clone, socket, ioctl, ptrace, read, unshare
NUMBERS = {"x86_64": (56, 41, 16, 101, 0, 272), "aarch64": (220, 198, 29, 117, 63, 97)}


def verdict(machine: str, number: int, *arguments: int, own_processes: bool = True, as_machine: int = 0) -> int:
    """0 where the filter allows a call, else the error that it fails with. Source: linux/bpf_common.h."""
    program = filter_of(machine, own_processes=own_processes)
    assert program is not None
    call = struct.pack("<IIQ6Q", number, as_machine or MACHINES[machine], 0, *arguments, *[0] * (6 - len(arguments)))
    words = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    place = held = 0
    while True:
        code, skip, skip_else, value = words[place]
        place += 1
        if code == 0x06:
            return 0 if value == ALLOWED else value & 0xFFFF
        if code == 0x20:
            (held,) = struct.unpack_from("<I", call, value)
        else:
            holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            place += skip if holds else skip_else


@pytest.mark.parametrize("machine", MACHINES)
def test_a_process_may_be_made_but_no_namespace(machine: str) -> None:
    clone = NUMBERS[machine][0]
    assert verdict(machine, clone, 0x11) == verdict(machine, clone, 0x3D0F00) == 0
    assert verdict(machine, clone, 0x10000011) == verdict(machine, clone, 0x00020011) == errno.EPERM
    assert verdict(machine, NUMBERS[machine][5], 0) == errno.EPERM
    assert verdict(machine, 435) == errno.ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_only_usual_families_of_sockets_are_to_be_had(machine: str) -> None:
    answers = {family: verdict(machine, NUMBERS[machine][1], family) for family in range(46)}
    assert {family for family, answer in answers.items() if not answer} == {0, 1, 2, 10, 16}
    assert set(answers.values()) == {0, errno.EAFNOSUPPORT}


@pytest.mark.parametrize("machine", MACHINES)
def test_nothing_is_pushed_into_a_terminal(machine: str) -> None:
    ioctl = NUMBERS[machine][2]
    assert verdict(machine, ioctl, 0, 0x5412) == verdict(machine, ioctl, 0, 0x541C) == errno.EPERM
    assert verdict(machine, ioctl, 0, 0x5413) == 0


@pytest.mark.parametrize("machine", MACHINES)
def test_a_process_looks_into_others_only_where_all_are_its_own(machine: str) -> None:
    ptrace = NUMBERS[machine][3]
    assert verdict(machine, ptrace) == 0
    assert verdict(machine, ptrace, own_processes=False) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_everyday_calls_pass_and_those_of_another_machine_do_not(machine: str) -> None:
    assert verdict(machine, NUMBERS[machine][4]) == 0
    assert verdict(machine, NUMBERS[machine][4], as_machine=0x40000003) == errno.ENOSYS
    assert verdict(machine, 0x40000000 | NUMBERS[machine][4]) == errno.ENOSYS


def test_of_a_machine_that_is_not_known_nothing_is_guessed() -> None:
    assert filter_of("riscv64", own_processes=True) is None
