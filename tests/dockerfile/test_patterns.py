"""Wildcards against an oracle: the regular expression that BuildKit would make of the pattern."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile.patterns import replace, trim

PATTERNS = st.lists(st.sampled_from(["*", "?", "a", "b", ".", "\n", r"\*", r"\?", r"\\", r"\/"]), max_size=5)
VALUES = st.text(alphabet="aab.*?\\/\n", max_size=10)


def expression(pattern: list[str], greedy: bool) -> str:
    known = {"*": ".*" if greedy else ".*?", "?": ".", r"\/": "/"}
    return "".join(known.get(item, item if item.startswith("\\") else re.escape(item)) for item in pattern)


@settings(max_examples=400, deadline=None)
@given(PATTERNS, VALUES, st.booleans())
def test_prefix(pattern: list[str], value: str, greedy: bool) -> None:
    match = re.match(expression(pattern, greedy), value)
    expected = value[match.end() :] if match else value
    if "".join(pattern).startswith("#"):
        return
    assert trim(("#" if greedy else "") + "".join(pattern), value, suffix=False) == expected


@settings(max_examples=400, deadline=None)
@given(PATTERNS, VALUES, st.booleans())
def test_suffix(pattern: list[str], value: str, greedy: bool) -> None:
    match = re.match(expression(pattern[::-1], greedy), value[::-1])
    expected = value[: len(value) - match.end()] if match else value
    assert trim(("%" if greedy else "") + "".join(pattern), value, suffix=True) == expected


@settings(max_examples=400, deadline=None)
@given(PATTERNS, VALUES)
def test_replacement(pattern: list[str], value: str) -> None:
    found = re.compile(expression(pattern, True))
    joined = "".join(pattern)
    assert replace(joined, value, "<>", everywhere=False) == found.sub("<>", value, count=1)
    # Go leaves out an empty match directly behind another match, which Python replaces
    out, last = "", 0
    for match in found.finditer(value):
        if match.end() == match.start() == last and match.start() > 0 and out.endswith("<>"):
            continue
        out += value[last : match.start()] + "<>"
        last = match.end()
    assert replace(joined, value, "<>", everywhere=True) == out + value[last:]
