"""Simulated hosts: their clocks differ, they die and come back, they stand still and go on."""

from __future__ import annotations

import asyncio

from flowkit.testing.machine import KAFKA, MONGO, Machine
from flowkit.testing.stage import EPOCH
from tests.testing.stages import Set


def test_no_two_clocks_agree() -> None:
    scene = Set()
    clocks = [scene.machine(f"C{n}").clock for n in range(5)]

    assert all(abs(clock.wall() - EPOCH) <= 1.5 for clock in clocks)
    assert len({clock.wall() for clock in clocks}) == len({clock.mono() for clock in clocks}) == 5


def test_a_crashed_machine_comes_back_as_a_new_process() -> None:
    scene = Set()
    boots: list[tuple[int, float]] = []

    def boot(machine: Machine) -> None:
        boots.append((machine.incarnation, scene.stage.now))

    machine = scene.machine("C0", boot=boot)

    async def play() -> None:
        before = machine.process
        await asyncio.sleep(1)
        machine.crash(5.0)
        machine.crash(1.0)
        assert not machine.alive
        await asyncio.sleep(10)
        assert machine.alive
        assert machine.process is not before

    scene.play(play)

    assert boots == [(1, 0.0), (2, 6.0)]


def test_a_second_freeze_prolongs_the_first() -> None:
    scene = Set()
    machine = scene.machine("W0")

    async def play() -> None:
        machine.freeze(5)
        await asyncio.sleep(3)
        machine.freeze(5)
        await asyncio.sleep(3)
        assert machine.frozen
        await asyncio.sleep(3)
        assert not machine.frozen

    scene.play(play)

    assert [(f.since, f.until) for f in machine.freezes] == [(0, 5), (3, 8)]


def test_a_machine_that_dies_frozen_comes_back_thawed() -> None:
    scene = Set()
    machine = scene.machine("W0")

    async def play() -> None:
        machine.freeze(50)
        machine.crash(1.0)
        await asyncio.sleep(2)
        assert machine.alive
        assert not machine.frozen
        await asyncio.sleep(100)

    scene.play(play)


def test_healing_ends_cuts_and_freezes_and_raises_the_dead() -> None:
    scene = Set()
    frozen, cut, dead = (scene.machine(name) for name in ("W0", "W1", "W2"))

    async def play() -> None:
        frozen.freeze(50)
        cut.cut(KAFKA, 50, one_way=False)
        cut.cut(MONGO, 50, one_way=True)
        dead.crash(50)
        await asyncio.sleep(1)
        for machine in scene.machines.values():
            machine.heal()
        assert not frozen.frozen
        assert dead.alive
        assert not cut.is_cut(KAFKA)
        assert not cut.is_cut(MONGO)
        await asyncio.sleep(100)
        assert dead.incarnation == 2

    scene.play(play)
