"""The document of a cache: what is written is read again, and of what anybody else wrote nothing that cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import StoreError
from builder.solver.cache_records import (
    LARGEST_DOCUMENT,
    LARGEST_RECIPE,
    Document,
    MountRecord,
    decode_cache,
    encode_cache,
    place,
)
from builder.solver.keys import encode, key_of
from builder.store.records import StepRecord

DIFF_ID = "sha256:" + "a" * 64
KEY = "b" * 64


def record(recipe: dict[str, Any], **fields: Any) -> StepRecord:
    given = {"key": key_of(recipe), "diff_id": DIFF_ID, "recipe": encode(recipe), "lineage": "0" * 16, "created": 1.5}
    return StepRecord(**{**given, **fields})


def test_round_trip() -> None:
    run = record({"step": "run", "parent": [DIFF_ID], "argv": ["ä"]})
    copy = record({"step": "copy", "facts": [], "data": "\udc80"}, lineage="", created=1_700_000_000.123456)
    document = Document((DIFF_ID,), (run, copy), frozenset({copy.key}), (MountRecord("npm", "0" * 32),))
    found = decode_cache(encode_cache(document), "x")
    assert set(found.records) == {run, copy}
    assert (found.layers, found.free, found.mounts) == (document.layers, document.free, document.mounts)
    bare = decode_cache(encode_cache(document, recipes=False), "x")
    assert {one.key for one in bare.records} == {run.key, copy.key}
    assert {one.recipe for one in bare.records} == {b""}
    assert bare.free == {copy.key}
    assert encode_cache(document) == encode_cache(Document((DIFF_ID,), (copy, run), document.free, document.mounts))


def test_large_recipes_travel_by_their_keys() -> None:
    small = record({"step": "copy", "parent": []})
    large = record({"step": "copy", "sources": ["x" * LARGEST_RECIPE]})
    data = encode_cache(Document((), (small, large), frozenset({large.key})))
    assert len(data) < LARGEST_RECIPE
    found = {one.key: one for one in decode_cache(data, "x").records}
    assert found[large.key].recipe == b""
    assert found[small.key].recipe == small.recipe
    many = tuple(record({"step": "copy", "n": n, "x": "y" * 60_000}) for n in range(LARGEST_DOCUMENT // 50_000))
    assert len(encode_cache(Document((), many))) < LARGEST_DOCUMENT
    with pytest.raises(StoreError, match="are more than 8 MiB"):
        encode_cache(Document((), tuple(record({"n": n}) for n in range(60_000))))


def test_places_are_the_same_on_every_machine() -> None:
    here = place("/here/Dockerfile|/here|linux/amd64|s|COPY a /", "/here/Dockerfile|/here")
    assert here == place("/there|/x|linux/amd64|s|COPY a /", "/there|/x")
    assert here != place("/there|/x|linux/amd64|s|COPY b /", "/there|/x")
    assert place(here, "/elsewhere") == here
    assert place("/here|s", "/other") == ""
    assert len(place("/here|s\udc80", "/here")) == 16


GOOD: dict[str, Any] = {"diff_id": DIFF_ID, "created": 1.0, "key": KEY}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"version": 1}', "cannot be read"),
        ({"version": 0, "records": []}, "of version 0"),
        ({"version": 2, "anything": 1}, "of version 2, and this builder reads version 1"),
        ({"version": "1", "records": []}, "cannot be read"),
        ({"version": 1, "records": [], "layers": ["sha256:x"]}, "no diff ID"),
        ({"version": 1, "records": [], "layers": [DIFF_ID.upper()]}, "no diff ID"),
        ({"version": 1, "records": [], "mounts": [{"id": "x", "name": "../" + "0" * 29}]}, "without a proper name"),
        ({"version": 1, "records": [], "mounts": [{"id": "\x1b[2J", "name": "0" * 32}]}, "without a proper name"),
        ({"version": 1, "records": [{**GOOD, "key": "B" * 64}]}, "makes no sense"),
        ({"version": 1, "records": [{**GOOD, "key": ""}]}, "makes no sense"),
        ({"version": 1, "records": [{**GOOD, "recipe": {}}]}, "makes no sense"),
        ({"version": 1, "records": [{**GOOD, "key": "", "recipe": [1]}]}, "makes no sense"),
        ({"version": 1, "records": [{**GOOD, "diff_id": "sha512:" + "a" * 128}]}, "makes no sense"),
        ({"version": 1, "records": [{**GOOD, "diff_id": DIFF_ID + "\n"}]}, "makes no sense"),
        ({"version": 1, "records": [{**GOOD, "created": -1}]}, "makes no sense"),
        ({"version": 1, "records": [{**GOOD, "created": 1e30}]}, "makes no sense"),
        ({"version": 1, "records": [{**GOOD, "created": "now"}]}, "cannot be read"),
        ({"version": 1, "records": [{**GOOD, "place": "x" * 16}]}, "makes no sense"),
        ({"version": 1, "records": [{**GOOD, "place": "0" * 17}]}, "makes no sense"),
        ('{"version":1,"records":' + "[" * 100_000, "cannot be read"),
        ('{"version":1,"records":[{"created":1e999}]}', "cannot be read"),
        (" " * (LARGEST_DOCUMENT + 1), "larger than 8 MiB"),
    ],
)
def test_what_cannot_be_is_refused(document: str | dict[str, Any], message: str) -> None:
    data = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(StoreError, match=message) as caught:
        decode_cache(data.encode(), "reg/cache:1")
    assert caught.value.place == "reg/cache:1"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_RECORD = st.fixed_dictionaries(
    {},
    optional={
        "diff_id": st.just(DIFF_ID) | _JSON,
        "created": st.floats() | _JSON,
        "key": st.just(KEY) | _JSON,
        "recipe": _JSON,
        "place": st.just("0" * 16) | _JSON,
        "free": _JSON,
    },
)
_DOCUMENT = st.fixed_dictionaries(
    {"version": st.just(1) | _JSON, "records": st.lists(_RECORD, max_size=3) | _JSON},
    optional={"layers": st.lists(st.just(DIFF_ID)) | _JSON, "mounts": _JSON},
)


@given(_DOCUMENT.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_anything_is_a_document_or_one_error(data: bytes) -> None:
    try:
        document = decode_cache(data, "x")
    except StoreError:
        return
    again = decode_cache(encode_cache(document), "x")
    assert set(again.records) == set(document.records)
    assert again.layers == document.layers
