"""The filter's judgement on both machines, asked of the filter itself; the kernel's is asked by the escapes."""

from __future__ import annotations

import errno

import pytest

from flowkit.sandbox import bpf, seccomp
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.syscalls import MACHINES, NEWEST, NUMBERS, Machine
from tests.sandbox.machine import asked, judge

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
DENIED, NOT_THERE = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
GETPID = {"x86_64": 39, "aarch64": 172}
OPENAT = {"x86_64": 257, "aarch64": 56}


@pytest.fixture(params=MACHINES.values(), ids=MACHINES)
def machine(request: pytest.FixtureRequest) -> Machine:
    found: Machine = request.param
    return found


def ask(machine: Machine, name: str | int, *args: int, internet: bool = False, own_ipc: bool = True) -> int:
    number = machine.number(name) if isinstance(name, str) else name
    assert number is not None
    code = seccomp.build(internet=internet, own_ipc=own_ipc, machine=machine.name)
    return judge(code, asked(number, *args, arch=machine.audit_arch))


def test_all_that_is_refused_is_refused_and_the_usual_is_not(machine: Machine) -> None:
    for name in seccomp.REFUSED:
        if machine.number(name) is not None:
            assert ask(machine, name) == DENIED, name
    for number in (GETPID[machine.name], OPENAT[machine.name]):
        assert ask(machine, number) == ALLOW


def test_every_number_is_told_apart(machine: Machine) -> None:
    numbers = [number for name in NUMBERS if (number := machine.number(name)) is not None]
    assert len(numbers) == len(set(numbers))

    judged = {number: ask(machine, number) for number in range(NEWEST + 1)}

    special = {"clone", "clone3", "personality", "ioctl", "socket", "socketpair", *seccomp.SHARED_IPC}
    refused = {machine.number(name) for name in seccomp.REFUSED} - {None}
    assert {number for number, answer in judged.items() if answer == DENIED} >= refused
    others = {number for number in judged if number not in refused} - {machine.number(name) for name in special}
    assert {judged[number] for number in others} == {ALLOW}


def test_what_is_newer_or_another_machine_s_is_not_let_through(machine: Machine) -> None:
    code = seccomp.build(machine=machine.name)

    assert ask(machine, NEWEST + 1) == NOT_THERE
    assert ask(machine, 0x40000000 | 39) == NOT_THERE
    assert ask(machine, "clone3") == NOT_THERE
    assert judge(code, asked(GETPID[machine.name], arch=0x40000003)) == KILL


def test_clone_makes_threads_and_children_but_no_namespaces_and_no_siblings(machine: Machine) -> None:
    assert ask(machine, "clone", 0x3D0F00) == ALLOW  # a thread of glibc
    assert ask(machine, "clone", 0x1200011) == ALLOW  # fork
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x8000):
        assert ask(machine, "clone", flag | 17) == DENIED


def test_sockets_are_judged_by_family_and_kind(machine: Machine) -> None:
    assert ask(machine, "socketpair", 1, 1) == ALLOW
    assert ask(machine, "socketpair", 2, 1) == DENIED
    for family in (1, 2, 10, 16, 17, 38, 40):
        assert ask(machine, "socket", family, 1) == DENIED
    assert ask(machine, "socket", 2, 1 | 0o2000000 | 0o4000, internet=True) == ALLOW
    assert ask(machine, "socket", 10, 1, internet=True) == ALLOW
    assert ask(machine, "socket", 2, 2, internet=True) == DENIED
    assert ask(machine, "socket", 2, 3, internet=True) == DENIED
    assert ask(machine, "socket", 1, 1, internet=True) == DENIED


def test_ioctls_are_judged_by_the_bits_that_the_kernel_looks_at(machine: Machine) -> None:
    assert ask(machine, "ioctl", 0, 0x5401) == ALLOW
    assert ask(machine, "ioctl", 0, 0x5412) == DENIED
    assert ask(machine, "ioctl", 0, 0x5412 | 1 << 32) == DENIED


def test_shared_ipc_is_refused_where_it_is_the_machine_s(machine: Machine) -> None:
    for name in seccomp.SHARED_IPC:
        assert ask(machine, name) == ALLOW
        assert ask(machine, name, own_ipc=False) == DENIED


def test_the_filter_is_short_enough_for_the_kernel(machine: Machine) -> None:
    assert len(seccomp.build(machine=machine.name, own_ipc=False)) // 8 < bpf.LONGEST // 8


def test_another_machine_is_said() -> None:
    with pytest.raises(CannotStart, match="no filter of system calls for riscv64"):
        seccomp.build(machine="riscv64")
