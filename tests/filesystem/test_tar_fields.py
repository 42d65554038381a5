"""Fields of headers, against what expressions say of them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import LayerError
from builder.filesystem.tar_fields import nanoseconds, usual_numbers

NUMBERS = rb"([0-7]{7})\0([0-7]{7})\0([0-7]{7})\0([0-7]{11})\0([0-7]{11})\0"
USUAL = b"0000644\0" + b"0001750\0" * 2 + b"00000001750\0" + b"14621234567\0"
TIME = rb"([+-]?)(\d{1,18})(?:\.(\d*))?"


@given(st.data())
def test_usual_numbers(data: st.DataObject) -> None:
    numbers = bytearray(USUAL)
    for place in data.draw(st.lists(st.integers(0, len(USUAL) - 1), max_size=3)):
        numbers[place] = data.draw(st.sampled_from(b"\0 0178-+_a"))
    match = re.match(NUMBERS, numbers)
    expected = tuple(int(group, 8) for group in match.groups()) if match else None
    assert usual_numbers(bytes(100) + bytes(numbers) + bytes(364)) == expected


@given(st.from_regex(TIME, fullmatch=True) | st.text("+-.0123456789 _e\u0663", max_size=25).map(str.encode))
def test_times(value: bytes) -> None:
    match = re.fullmatch(TIME, value)
    if match is None:
        with pytest.raises(LayerError, match="mtime"):
            nanoseconds(value, "place")
        return
    sign, seconds, fraction = match.groups()
    expected = int(seconds) * 10**9 + int((fraction or b"")[:9].ljust(9, b"0"))
    assert nanoseconds(value, "place") == (-expected if sign == b"-" else expected)
