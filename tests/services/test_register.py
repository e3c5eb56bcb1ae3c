"""Which unit gets a node: the one with the least to do, of those that were heard of."""

from __future__ import annotations

import pytest

from flowkit.services import register
from flowkit.services.door import Refusal
from flowkit.services.register import Register


class Clock:
    now = 1000.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(register, "time", Clock)
    Clock.now = 1000.0
    return Clock


def test_the_unit_with_the_least_to_do_is_chosen(clock: type[Clock]) -> None:
    units = Register()
    for name in ("a", "b", "c"):
        units.add(name, f"http://{name}", "")
    units.note("a", {"queued_tasks": 3})
    units.note("b", {"queued_tasks": 1})
    third = units.choose()
    assert third is not None
    third.sent = 2  # what it was sent counts before it reports

    chosen = units.choose()

    assert (third.id, chosen and chosen.id) == ("c", "b")
    assert [npu.id for npu in (units.choose(["b"]), units.choose(["b", "c"])) if npu] == ["c", "a"]
    assert units.choose(["a", "b", "c"]) is None


def test_who_is_silent_gets_nothing_and_is_forgotten_after_an_hour(clock: type[Clock]) -> None:
    units = Register()
    units.add("a", "http://a", "")
    clock.now += 11

    assert units.choose() is None
    assert units.views()[0]["status"] == "silent"
    units.note("a", {"queued_tasks": 0})
    assert units.views()[0]["status"] == "idle"
    clock.now += 3601
    units.add("b", "http://b", "")
    assert [view["id"] for view in units.views()] == ["b"]


def test_an_unknown_unit_is_told_to_introduce_itself_and_there_is_an_end_to_them(
    clock: type[Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register, "MOST", 1)
    units = Register()
    with pytest.raises(Refusal, match="POST /npu/add first") as unknown:
        units.note("a", {})
    units.add("a", "http://a", "")
    units.add("a", "http://elsewhere", "t")
    with pytest.raises(Refusal, match="registered here already") as full:
        units.add("b", "http://b", "")

    assert (unknown.value.status, full.value.status) == (404, 503)
    assert units.views()[0]["address"] == "http://elsewhere"
