"""Texts that the database and the records take."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.store.records import storable

TEXTS = st.text(st.sampled_from("a'\\x/ü\udce9\ud800"), max_size=4)


@pytest.mark.parametrize(
    ("text", "stored"), [("/a b/ü|x", "/a b/ü|x"), ("caf\udce9", "'caf\\udce9'"), ("'caf\\udce9'", "'caf\\udce9'")]
)
def test_paths(text: str, stored: str) -> None:
    assert storable(text) == stored


@given(TEXTS, TEXTS)
def test_paths_stay_apart(one: str, other: str) -> None:
    one, other = f"/{one}", f"/{other}"
    assert json.loads(json.dumps(storable(one)).encode()) == storable(one)
    assert (storable(one) == storable(other)) == (one == other)
