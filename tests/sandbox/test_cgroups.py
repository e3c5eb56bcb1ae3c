"""Groups of programs are bounded, counted and removed, and what dead owners left is cleared away."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from pathlib import Path

import pytest

from flowkit.sandbox.cgroups import Cgroups, Group, sweep
from flowkit.sandbox.hierarchies import Controller, _mounts
from flowkit.sandbox.runtime import Limits

LIMITS = Limits(memory_mb=64, cpu=0.5, pids=10)


@pytest.fixture
def group(tmp_path: Path) -> Group:
    """One of version 2, in a folder that is no kernel's: what would be written is read back."""
    folder = tmp_path / "p0"
    made = Group({name: (2, folder) for name in ("memory", "pids", "cpu", "cpuacct")})
    made.make()
    for file in ("memory.max", "memory.oom.group", "memory.swap.max", "pids.max", "cpu.max", "cgroup.kill"):
        (folder / file).write_text("")
    (folder / "memory.peak").write_text("1234\n")
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 3\n")
    (folder / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    return made


def test_version_2_is_bounded_and_read(group: Group, tmp_path: Path) -> None:
    group.bound(LIMITS)

    read = {path.name: path.read_text() for path in (tmp_path / "p0").iterdir()}
    assert read["memory.max"] == str(64 * 1024 * 1024)
    assert (read["memory.oom.group"], read["memory.swap.max"], read["pids.max"]) == ("1", "0", "10")
    assert read["cpu.max"] == "50000 100000"
    assert (group.peak_memory_bytes(), group.oom_kills(), group.cpu_sec()) == (1234, 3, 1.5)


def test_version_2_is_killed_by_one_word(group: Group, tmp_path: Path) -> None:
    group.kill()

    assert (tmp_path / "p0/cgroup.kill").read_text() == "1"


async def test_a_real_group_of_version_2_is_joined_killed_and_removed() -> None:
    mount = next((one for one in _mounts(Path("/")) if one.kind == "cgroup2" and os.access(one.point, os.W_OK)), None)
    if mount is None:
        pytest.skip("no control groups of version 2 are mounted that this user may write to")
    group = Group({"pids": (2, Path(mount.point) / f"flowkit-test-{os.getpid()}")})
    group.make()
    (door,) = group.doors()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"import os, time; os.write({door}, b'0'); print('in', flush=True); time.sleep(60)",
        stdout=asyncio.subprocess.PIPE, pass_fds=[door],
    )  # fmt: skip
    assert child.stdout is not None and await child.stdout.readline() == b"in\n"
    assert not group.try_remove()

    group.kill()

    assert await child.wait() == -9
    await group.remove()


async def test_a_group_that_cannot_be_removed_is_said(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.sandbox.cgroups._REMOVAL_SEC", 0.05)

    with pytest.raises(OSError, match="cannot be ended"):
        await group.remove()


def test_what_a_dead_owner_left_is_cleared_and_what_a_live_one_has_is_not(tmp_path: Path) -> None:
    dead, alive = tmp_path / "flowkit-1-aa", tmp_path / "flowkit-2-bb"
    (dead / "p0").mkdir(parents=True)
    (alive / "p0").mkdir(parents=True)
    lock = os.open(alive, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    sweep(tmp_path)

    assert not dead.exists()
    assert (alive / "p0").exists()
    os.close(lock)


def test_an_owner_sweeps_when_it_opens_and_leaves_nothing_when_it_closes(tmp_path: Path) -> None:
    (tmp_path / "flowkit-1-aa" / "p0").mkdir(parents=True)
    groups = Cgroups([Controller("memory", 1, tmp_path)])

    groups.open()
    group = groups.create()

    assert [path.name.split("-")[1] for path in tmp_path.iterdir()] == [str(os.getpid())]
    assert group.try_remove()
    groups.close()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def first(tmp_path: Path) -> Cgroups:
    """Those of version 1, each in a folder that is no kernel's; nobody is in them."""
    groups = Cgroups([Controller(name, 1, tmp_path / name) for name in ("memory", "pids", "cpuacct")])
    for name in groups.controllers:
        (tmp_path / name).mkdir()
    groups.open()
    return groups


def _fill(group: Group, **more: str) -> None:
    files = {"memory.usage_in_bytes": "4096", "memory.max_usage_in_bytes": "9", "memory.oom_control": "oom_kill 0",
             "memory.limit_in_bytes": "", "memory.memsw.limit_in_bytes": "", "pids.current": "0", "pids.max": "",
             "cpuacct.usage": "7", "cpu.cfs_period_us": ""}  # fmt: skip
    for file, text in (files | more).items():
        if (place := group._places.get(file.split(".")[0])) is not None:
            Path(place[1], file).write_text(text)


async def test_a_group_that_is_as_new_is_used_again(first: Cgroups) -> None:
    group = first.create(again=True)
    _fill(group)
    group.bound(LIMITS)

    await group.remove()

    assert first.create(again=False) is not group
    assert first.create(again=True) is group
    assert (group.cpu_sec(), group.peak_memory_bytes()) == (0.0, 0)
    memory = Path(group._places["memory"][1], "memory.limit_in_bytes")
    memory.write_text("as it was")
    group.bound(LIMITS)
    assert memory.read_text() == "as it was"  # the limits are those that it has
    group.bound(Limits(memory_mb=128))
    assert memory.read_text() == str(128 * 1024 * 1024)
    first.close()


@pytest.mark.parametrize(
    ("file", "text"),
    [("pids.current", "1"), ("memory.usage_in_bytes", "2000000"), ("memory.oom_control", "oom_kill 1")],
)
def test_a_group_in_which_something_is_left_is_not_used_again(first: Cgroups, file: str, text: str) -> None:
    group = first.create(again=True)
    _fill(group, **{file: text})

    assert not group.renew()
    first.close()


def test_groups_of_version_2_are_not_used_again(group: Group) -> None:
    assert not group.renew()
