"""Packages that code requires: installed once for each set, from one place, and out of the worker's way."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flowkit.sandbox.environments import Environments, kept
from flowkit.sandbox.errors import CannotStart


def wheel(folder: Path, name: str, version: str, source: str, requires: str = "") -> None:
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as made:
        made.writestr(f"{name}.py", source)
        made.writestr(f"{name}.pth", f"import os; os.environ['PTH_RAN'] = '{name}'\n")
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    wheel(folder, "greeting", "1.0", "WORD = 'hi'\n")
    wheel(folder, "greeting", "2.0", "WORD = 'hello'\n")
    wheel(folder, "polite", "1.0", "import greeting\nTEXT = greeting.WORD + ' there'\n", requires="greeting<2")
    return folder


async def test_a_set_is_installed_with_what_it_needs_and_written_down(tmp_path: Path, index: Path) -> None:
    environments = Environments(tmp_path / "cache", index=str(index), max_bytes=1)  # one in use stays all the same

    async with environments.use(["polite"]) as packages:
        assert _run(packages, "import os, polite; print(polite.TEXT, os.environ.get('PTH_RAN'))") == "hi there None"
        lock = json.loads((packages.parent / "lock.json").read_text())
        (one,) = kept(tmp_path / "cache")

    assert one.home == packages.parent and one.size == int((one.home / "size").read_text()) > 0
    assert lock["requirements"] == ["polite"]
    assert [(one["name"], one["version"]) for one in lock["installed"]] == [("polite", "1.0"), ("greeting", "1.0")]
    assert all(one["hashes"]["sha256"] for one in lock["installed"])


async def test_those_who_come_at_once_make_one_and_another_order_is_the_same_set(tmp_path: Path, index: Path) -> None:
    made = 0

    class Counting(Environments):
        async def _make(self, home: Path, requirements: object) -> None:
            nonlocal made
            made += 1
            await super()._make(home, requirements)  # type: ignore[arg-type]

    first = Counting(tmp_path / "cache", index=str(index))
    second = Counting(tmp_path / "cache", index=str(index))  # as in another process

    async def use(environments: Environments, requirements: list[str]) -> Path:
        async with environments.use(requirements) as packages:
            return packages

    paths = await asyncio.gather(
        *(use(first, ["polite", "greeting==1.0"]) for _ in range(3)),
        *(use(second, ["greeting==1.0", "Polite"]) for _ in range(3)),
    )

    assert made == 1
    assert len(set(paths)) == 1


@pytest.mark.parametrize("requirements", [["nowhere"], ["polite", "greeting>=2"]])
async def test_what_cannot_be_had_fails_for_good_and_leaves_nothing(
    tmp_path: Path, index: Path, requirements: list[str]
) -> None:
    environments = Environments(tmp_path / "cache", index=str(index))

    with pytest.raises(CannotStart) as refused:
        async with environments.use(requirements):
            raise AssertionError("never entered")

    assert refused.value.code == "requirements"
    assert requirements[0] in str(refused.value)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


async def test_one_that_takes_too_long_is_given_up(tmp_path: Path, index: Path) -> None:
    environments = Environments(tmp_path / "cache", index=str(index), install_sec=0.01)

    with pytest.raises(CannotStart, match=r"took longer than 0\.01 s") as refused:
        async with environments.use(["greeting"]):
            raise AssertionError("never entered")

    assert refused.value.code == "install_failed"


@pytest.mark.slow
async def test_the_longest_unused_go_but_never_one_in_use(tmp_path: Path, index: Path) -> None:
    cache = tmp_path / "cache"
    environments = Environments(cache, index=str(index), most=1)

    def names() -> set[str]:
        return {path.name for path in cache.iterdir() if path.is_dir()}

    keys = [environments.key_of([name]) for name in ("greeting==1.0", "greeting==2.0")]
    async with environments.use(["greeting==1.0"]) as packages:
        async with environments.use(["greeting==2.0"]):
            assert names() == set(keys)
        assert (packages / "greeting.py").exists()
    async with environments.use(["polite"]):
        assert names() == {environments.key_of(["polite"])}


async def test_the_longest_unused_go_where_there_are_too_many_bytes(tmp_path: Path) -> None:
    environments = Environments(tmp_path, index="unused", max_bytes=300_000)
    for age, name in enumerate(("newest", "in-use", "oldest")):
        _set_of(tmp_path / name, 120_000, age)
    (tmp_path / ".oldest.gone-1-1").mkdir()
    (tmp_path / ".lost.making").mkdir()
    used = environments._open(".in-use.used")
    fcntl.flock(used, fcntl.LOCK_SH)

    assert [one.home.name for one in kept(tmp_path)] == ["oldest", "in-use", "newest"]
    assert all(120_000 <= one.size < 150_000 for one in kept(tmp_path))
    environments._sweep(0)
    assert [one.home.name for one in kept(tmp_path)] == ["in-use", "newest"]
    environments._max_bytes = 0
    environments._sweep(0)
    assert [one.home.name for one in kept(tmp_path)] == ["in-use"]
    os.close(used)
    environments._sweep(0)

    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def _set_of(home: Path, size: int, age: int) -> None:
    (home / "packages").mkdir(parents=True)
    (home / "packages" / "data").write_bytes(b"x" * size)
    (home / "done").touch()
    os.utime(home, (1000 - age, 1000 - age))


def _run(packages: Path, code: str) -> str:
    begin = f"import sys; sys.path[:0] = [{str(packages)!r}]; "
    done = subprocess.run(
        [os.path.realpath(sys.executable), "-I", "-S", "-c", begin + code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
