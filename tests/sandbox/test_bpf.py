"""The assembler says what it was told to, in the kernel's form, and refuses jumps that cannot be made."""

from __future__ import annotations

import struct

import pytest

from flowkit.sandbox.bpf import Assembler
from tests.sandbox.machine import judge


def test_a_program_answers_by_its_branches() -> None:
    code = Assembler()
    code.load(0)
    code.if_equal(7, otherwise="other")
    code.answer(1)
    code.label("other")
    code.if_at_least(100, then="large")
    code.mask(0xF)
    code.if_any_bit(0x8, then="bit")
    code.answer(2)
    code.label("bit")
    code.answer(3)
    code.label("large")
    code.answer(4)
    program = code.assemble()

    answers = [judge(program, struct.pack("=I", word)) for word in (7, 1, 8, 16 + 8, 100, 2**32 - 1)]

    assert answers == [1, 2, 3, 3, 4, 4]


def test_a_jump_that_is_too_far_or_goes_back_is_refused() -> None:
    far = Assembler()
    far.if_equal(1, then="end")
    for _ in range(256):
        far.answer(0)
    far.label("end")
    back = Assembler()
    back.label("here")
    back.if_equal(1, then="here")

    for code in (far, back):
        with pytest.raises(ValueError, match="instructions ahead"):
            code.assemble()


def test_labels_are_told_apart() -> None:
    code = Assembler()
    code.label("a")

    with pytest.raises(ValueError, match="two labels"):
        code.label("a")
