"""An order arrives as it was given."""

from __future__ import annotations

import os
import socket

import pytest

from flowkit.sandbox.inside.order import (
    ORDER,
    Order,
    read_order,
    receive_ends,
    receive_place,
    send,
    tell,
    write_order,
    write_place,
)
from flowkit.sandbox.orders import check
from flowkit.sandbox.runtime import Program


def test_an_order_comes_back_with_its_filter_and_its_files() -> None:
    order = Order(
        ["/bin/x", "", "ä\udcff"], {"A": "1\n", "B": ""}, rlimits=[(1, 2, 3), (4, 5, 6)], script=True, network=True,
        disk_bytes=7, folder="/f", own_tmp=False, landlock=(["/usr"], [], ["/dev/null"]),
    )  # fmt: skip

    descriptor = write_order(order, b"filter", {"a/b": b"\0\1", "empty": b""})

    with open(descriptor, "rb") as file:
        read = read_order(file)
        assert file.read(read.filter_bytes) == b"filter"
        assert [file.read(size) for _, size in read.files] == [b"\0\1", b""]
    assert vars(read) == vars(order) | {"filter_bytes": 6, "files": [("a/b", 2), ("empty", 0)]}


def test_a_zero_byte_in_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="zero byte"):
        write_order(Order(["/bin/x\0y"], {}, rlimits=[]), b"", {})


def test_places_and_ends_come_with_their_descriptors() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        given = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
        send(here, write_place(5, root=True, keeper=6), tuple(given))
        send(here, ORDER, tuple(given))
        for descriptor in given:
            os.close(descriptor)

        place, ends = receive_place(there), receive_ends(there)

        assert place is not None and ends is not None
        assert (place.uid, place.root, place.keeper, len(place.doors)) == (5, True, 6, 2)
        for descriptor in (*place.all(), *ends.all()):
            os.close(descriptor)


def test_a_parent_that_has_gone_is_noticed_and_not_an_error() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.close()
    with there:
        assert receive_place(there) is None
        tell(there, "began")


def test_no_place_that_machines_have_is_taken_from_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: True)  # it need not be this machine
    for place in ("/work", "/app", "/srv", "/opt", "/code", "/workspace", "/mnt", "/data"):
        check(Program(("/usr/bin/true",), readable=(f"{place}/flowkit/sandbox",)))
