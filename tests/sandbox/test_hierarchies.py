"""Control groups are found in version 1, in version 2 and in a mixture, and what is missing is said with its reason."""

from __future__ import annotations

import os
from pathlib import Path

from flowkit.sandbox.hierarchies import LEAF, Controller, Missing, find

V1 = "30 24 0:26 / /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{options}\n"
V2 = "31 24 0:27 {top} /sys/fs/cgroup{at} rw,relatime - cgroup2 cgroup2 rw\n"


def machine(root: Path, groups: str, mounts: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/mountinfo").write_text("22 1 254:0 / / rw - ext4 /dev/vda rw\n" + mounts)
    return root


def version_2(root: Path, path: str, *, controllers: str, handed_down: str = "", inner: bool = True) -> Path:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.subtree_control").write_text(handed_down)
    if inner:
        (folder / "cgroup.type").write_text("domain\n")
    return folder


def names(found: list[Controller | Missing], kind: type) -> set[str]:
    return {one.name for one in found if isinstance(one, kind)}


def test_version_1_has_a_folder_for_each(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        "4:memory:/box\n3:cpu,cpuacct:/\n2:pids:/box\n1:name=systemd:/\n",
        V1.format(name="memory", options="memory") + V1.format(name="cpu", options="cpu,cpuacct")
        + V1.format(name="pids", options="pids"),
    )  # fmt: skip
    for name in ("memory/box", "cpu", "pids/box"):
        (root / "sys/fs/cgroup" / name).mkdir(parents=True)

    found = {one.name: one for one in find(root)}

    assert found["memory"] == Controller("memory", 1, root / "sys/fs/cgroup/memory/box")
    assert found["cpu"] == Controller("cpu", 1, root / "sys/fs/cgroup/cpu")
    assert found["cpuacct"] == Controller("cpuacct", 1, root / "sys/fs/cgroup/cpu")
    assert found["pids"] == Controller("pids", 1, root / "sys/fs/cgroup/pids/box")


def test_version_2_moves_the_worker_into_a_leaf_and_hands_controllers_down(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/unit\n", V2.format(top="/", at=""))
    folder = version_2(root, "unit", controllers="cpu memory pids io")
    leaf = folder / LEAF
    leaf.mkdir()
    (leaf / "cgroup.procs").write_text("")

    find(root)

    assert (leaf / "cgroup.procs").read_text() == str(os.getpid())
    assert (folder / "cgroup.subtree_control").read_text() == "+pids"  # the last of them: this is no kernel


def test_a_worker_that_cannot_hand_controllers_down_goes_back_and_says_why(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/unit\n", V2.format(top="/", at=""))
    folder = version_2(root, "unit", controllers="memory")
    (folder / "cgroup.subtree_control").unlink()
    (folder / "cgroup.subtree_control").mkdir()  # nobody can write to that

    found = find(root)

    assert names(found, Missing) == {"memory", "pids", "cpu", "cpuacct"}
    assert "Delegate=yes" in next(one.reason for one in found if isinstance(one, Missing))
    assert (folder / "cgroup.procs").read_text() == str(os.getpid())


def test_version_2_that_hands_down_already_is_used_as_it_is(tmp_path: Path) -> None:
    root = machine(tmp_path, f"0::/unit/{LEAF}\n", V2.format(top="/", at=""))
    folder = version_2(root, "unit", controllers="cpu memory pids", handed_down="cpu memory pids")
    (folder / LEAF).mkdir()

    found = find(root)

    assert names(found, Controller) == {"memory", "pids", "cpu", "cpuacct"}
    assert {one.folder for one in found if isinstance(one, Controller)} == {folder}


def test_a_mount_that_shows_only_a_part_is_understood(tmp_path: Path) -> None:
    root = machine(tmp_path, f"0::/pod/box/{LEAF}\n", V2.format(top="/pod/box", at=""))
    folder = version_2(root, "", controllers="memory", handed_down="memory")
    (folder / LEAF).mkdir()

    found = {one.name: one for one in find(root)}

    assert found["memory"] == Controller("memory", 2, folder)
    assert isinstance(found["pids"], Missing)


def test_a_mixture_takes_each_controller_where_it_is(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        f"4:memory:/\n0::/{LEAF}\n",
        V1.format(name="memory", options="memory") + V2.format(top="/", at="/unified"),
    )
    (root / "sys/fs/cgroup/memory").mkdir(parents=True)
    version_2(root, "unified", controllers="pids cpu", handed_down="pids cpu", inner=False)
    (root / "sys/fs/cgroup/unified" / LEAF).mkdir()

    found = {one.name: one for one in find(root)}

    assert found["memory"] == Controller("memory", 1, root / "sys/fs/cgroup/memory")
    assert found["pids"] == Controller("pids", 2, root / "sys/fs/cgroup/unified")


def test_what_is_missing_has_its_reason(tmp_path: Path) -> None:
    found = find(machine(tmp_path, "0::/\n", ""))

    assert names(found, Missing) == {"memory", "pids", "cpu", "cpuacct"}
    assert all(isinstance(one, Missing) and "mounted" in one.reason for one in found)
