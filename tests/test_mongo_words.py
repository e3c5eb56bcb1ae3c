"""What is said where MongoDB does not answer: what went wrong, once, and what to do."""

from __future__ import annotations

import pytest
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError

from flowkit.adapters.mongo_security import said_by, what_to_do


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "localhost:1: [Errno 111] Connect call failed (configured timeouts: connectTimeoutMS: 20000.0ms), "
            "Timeout: 10.0s, Topology Description: <TopologyDescription id: 1, servers: [...]>",
            "localhost:1: [Errno 111] Connect call failed",
        ),
        ("not authorized, full error: {'ok': 0.0, 'errmsg': 'not authorized'}", "not authorized"),
        ("", "ServerSelectionTimeoutError"),
    ],
)
def test_what_the_driver_appends_is_left_out(said: str, shown: str) -> None:
    assert said_by(ServerSelectionTimeoutError(said)) == shown


def test_only_who_may_not_is_asked_about_rights() -> None:
    assert what_to_do(ServerSelectionTimeoutError("Connect call failed")) == "is it running, and is the address right?"
    assert "may this user create indexes" in what_to_do(OperationFailure("not authorized", code=13))
