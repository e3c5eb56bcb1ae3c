"""What a program says is covered before it is cut: half a secret is one too."""

from __future__ import annotations

import pytest

from flowkit.core.redaction import Redactor
from tests.sandbox.stand import Notes, supervision

SECRET = "sk-q7Rk2Vx9Lm4Tz8Wc1Np6Hs3Jd5Fb0Gy"
DIGITS = "928374650182736"
PIECE = 10

RAISES = {
    "the name of an exception": "raise type('N' * 110 + s, (Exception,), {})('x')",
    "the code of an error": "import flowkit; raise flowkit.Permanent('c' * 100 + s, 'x')",
    "a message": "raise ValueError('m' * 8_180 + s)",
    "a message that the program cuts itself": "raise ValueError('m' * (65_536 - 20) + s)",
    "a message that is nearly all secrets": "raise ValueError(s * 3_000)",
    "a traceback": "raise ValueError(s + 't' * 16_360)",
    "a traceback that the program cuts itself": "raise ValueError(s + 't' * (65_536 - 40))",
    "a next node": "import flowkit; return flowkit.Next(['n' * 240 + s], 1)",
    "a frame": """
import json, os, struct, time
    body = json.dumps({'do': 'x' * 20 + s}).encode()
    os.write(3, struct.pack('>I', len(body)) + body)
    time.sleep(5)""",
    "progress": "import sys; sys.modules['flowkit_channel'].progress(1, 2, 'p' * 8_180 + s)",
}


@pytest.mark.parametrize("body", RAISES.values(), ids=RAISES)
async def test_no_half_of_a_secret_is_left_where_a_text_was_cut(body: str) -> None:
    notes = Notes()
    source = f"s = '{{{{{{secret::KEY}}}}}}'\ndef main(inputs):\n    {body.strip()}\n"
    run = supervision(source, notes=notes, secrets={"KEY": SECRET}, redactor=Redactor([SECRET]))

    outcome = await run.run(lambda: 0.0)

    said = repr((outcome.result, outcome.failure, notes.__dict__))
    left = [SECRET[at : at + PIECE] for at in range(len(SECRET) - PIECE + 1) if SECRET[at : at + PIECE] in said]
    assert left == []
    assert outcome.failure is not None or "progress" in body or "Next" in body


async def test_numbers_whose_digits_are_a_secret_are_left_out() -> None:
    notes = Notes()
    source = """
s = int('{{{secret::KEY}}}')
def main(inputs):
    import sys, flowkit
    sys.modules['flowkit_channel'].progress(s, 2, 'x')
    raise flowkit.Retry('later', after_sec=s)
"""
    run = supervision(source, notes=notes, secrets={"KEY": DIGITS}, redactor=Redactor([DIGITS]))

    outcome = await run.run(lambda: 0.0)

    assert outcome.failure is not None
    assert (outcome.failure.message, outcome.failure.retry_after) == ("later", None)
    assert DIGITS not in repr((outcome.failure, notes.__dict__))
