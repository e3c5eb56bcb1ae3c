"""Makes what is random by nature depend on a seed, while a world runs: ids, salts, and the module `random`."""

from __future__ import annotations

import os
import random
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded(seed: str) -> Iterator[None]:
    """Within it, `uuid.uuid4`, `os.urandom`, `secrets` and `random` give the same in every run."""
    dice = random.Random(f"{seed}/entropy")  # noqa: S311
    state = random.getstate()
    saved = (uuid.uuid4, os.urandom, secrets.token_bytes, secrets.token_hex)
    random.seed(f"{seed}/random")
    uuid.uuid4 = lambda: uuid.UUID(int=dice.getrandbits(128), version=4)
    os.urandom = dice.randbytes
    secrets.token_bytes = lambda nbytes=None: dice.randbytes(nbytes or 32)
    secrets.token_hex = lambda nbytes=None: dice.randbytes(nbytes or 32).hex()
    try:
        yield
    finally:
        uuid.uuid4, os.urandom, secrets.token_bytes, secrets.token_hex = saved
        random.setstate(state)
