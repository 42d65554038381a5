"""Recipes that are decoded as far as they differ."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from builder.solver.explain_decode import decode_both
from builder.solver.explain_files import compare_files
from builder.solver.keys import encode


def recipe(*sources: Any, destination: str = "/") -> bytes:
    return encode({"step": "copy", "sources": list(sources), "destination": destination})


def files(text: str, name: str = "n") -> dict[str, Any]:
    """A match that has a file for each letter; those after a dot are other files of the same names."""
    items: list[list[Any]] = []
    for word in text.split():
        path, _, digest = word.partition(".")
        items.append([path, 0, 0o644, 0, 0, digest or "0"])
    return {"name": name, "unpack": False, "items": items}


def names(source: Any) -> list[list[str]]:
    return [[item[0] + ("." + item[5] if item[5] != "0" else "") for item in match["items"]] for match in source]


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        ("a b c d", "a b.1 c d", ("b", "b.1")),
        ("a b c d", "a c d", ("b", "")),
        ("a c d", "a b c d", ("", "b")),
        ("a b c", "a b c", ("", "")),
        ("", "a b", ("", "a b")),
        ("a b c d", "a.1 b c d.1", ("a b c d", "a.1 b c d.1")),
    ],
)
def test_files_at_both_ends_are_left_out(old: str, new: str, left: tuple[str, str]) -> None:
    one, two = decode_both(recipe([files(old)]), recipe([files(new)], destination="/n"))
    assert (names(one["sources"][0]), names(two["sources"][0])) == ([left[0].split()], [left[1].split()])
    assert (one["step"], one["destination"], two["destination"]) == ("copy", "/", "/n")
    changes = [(change.path, change.change) for change in compare_files(one["sources"][0], two["sources"][0], ".")]
    assert changes == [(c.path, c.change) for c in compare_files([files(old)], [files(new)], ".")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([[files("a b", "x")]], [[files("a b", "y")]]),
        ([[files("a")]], [[files("a"), files("b", "m")]]),
        ([[files("a")]], [[files("b")], [files("a")]]),
        ([{"commit": "1"}], [[files("a")]]),
        ([[files("a")], {"inline": "x"}], [[files("b")], {"inline": "x"}]),
        ([[{**files("a"), "more": 1}]], [[files("a")]]),
        ([], []),
    ],
)
def test_what_does_not_stand_side_by_side_is_whole(old: list[Any], new: list[Any]) -> None:
    one, two = decode_both(recipe(*old), recipe(*new))
    assert (one["sources"], two["sources"]) == (old, new)


def test_recipes_of_other_steps() -> None:
    assert decode_both(encode({"step": "run", "argv": ["a"]}), recipe()) == (
        {"step": "run", "argv": ["a"]},
        {"step": "copy", "sources": [], "destination": "/"},
    )
    with pytest.raises(msgspec.MsgspecError):
        decode_both(b"{", b"{}")
