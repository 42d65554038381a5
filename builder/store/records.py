"""What the tables of `cache.db` hold, a row each. See `database`, which keeps them."""

from __future__ import annotations

import msgspec

COMMITS = "git-commit-1"
"""Memos of which commit a git reference meant when it was last looked up: `solver.remote`."""
PUSHED = "pushed-1"
"""Memos of the repository of a registry that has a blob: `export.registry`."""
OBSERVED = (COMMITS, PUSHED)
"""Memos of what was seen elsewhere: nothing here could derive it again, and what needs it (a build that is offline, a
push that spares an upload) may come long after."""


def storable(text: str) -> str:
    """The text, if it is Unicode, which is all that SQLite and JSON take; or another for it, in quotes, as no absolute
    path is: paths may have bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return ascii(text)
    return text


class LayerRecord(msgspec.Struct, frozen=True):
    """A stored form of a layer. `origin` is a reference it can be fetched from, '' if it was made here; `uncompressed`
    the size of the tar stream in bytes, 0 while it is unknown."""

    diff_id: str
    digest: str
    media_type: str
    size: int
    origin: str = ""
    uncompressed: int = 0


class StepRecord(msgspec.Struct, frozen=True):
    """What a step made: the diff ID of its layer, the recipe of its key as JSON, when (seconds since the epoch).

    `lineage` names the place in a Dockerfile where it was made.
    """

    key: str
    diff_id: str
    recipe: bytes
    lineage: str
    created: float


class RecipeRecord(msgspec.Struct, frozen=True):
    """What a cache key was computed from, as JSON. `content` is the key of another recipe that says the same file by
    file, '' where there is none or this one does."""

    key: str
    recipe: bytes
    content: str = ""


class Holding(msgspec.Struct, frozen=True):
    """A step (`kind` is '') or memo and what it keeps: a diff ID or a blob's digest. `used` is when it last was, in
    seconds since the epoch, to within an hour."""

    kind: str
    key: str
    holds: str
    used: float
