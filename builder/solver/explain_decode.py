"""Two recipes that are to be compared, decoded as far as they differ: of thirty thousand files a copy takes, few do."""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
from typing import Any

import msgspec

from builder.solver.keys import Recipe


class _Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one match of a source gives, as `FilesSource` describes it."""

    name: Any
    unpack: Any
    items: list[msgspec.Raw]


class _Sources(msgspec.Struct, frozen=True):
    """The part of a copy's recipe that is large, where all its sources are files."""

    sources: list[list[_Match]]


def decode_both(old: bytes, new: bytes) -> tuple[Recipe, Recipe]:
    """Two recipes; of copies, without the files that a match begins or ends with in both. Raises msgspec.MsgspecError
    for what is no JSON."""
    try:
        before, after = (msgspec.json.decode(data, type=_Sources).sources for data in (old, new))
    except msgspec.ValidationError:
        return msgspec.json.decode(old), msgspec.json.decode(new)
    pairs = [
        _decode_sources(one, two) if len(one) == len(two) else (_decoded(one), _decoded(two))
        for one, two in zip(before, after, strict=False)
    ]
    rest = len(pairs)
    return (
        _with_sources(old, [one for one, _ in pairs] + [_decoded(source) for source in before[rest:]]),
        _with_sources(new, [two for _, two in pairs] + [_decoded(source) for source in after[rest:]]),
    )


def _decode_sources(old: list[_Match], new: list[_Match]) -> tuple[list[Recipe], list[Recipe]]:
    """A source's matches, two by two."""
    both = [_decode_matches(one, two) for one, two in zip(old, new, strict=True)]
    return [one for one, _ in both], [two for _, two in both]


def _decode_matches(old: _Match, new: _Match) -> tuple[Recipe, Recipe]:
    start = end = 0
    if old.name == new.name:
        one, two = old.items, new.items
        both = min(len(one), len(two))
        start = next((at for at in range(both) if one[at] != two[at]), both)
        end = next((at for at in range(both - start) if one[-1 - at] != two[-1 - at]), both - start)
    return _decode_match(old, start, end), _decode_match(new, start, end)


def _decoded(source: list[_Match]) -> list[Recipe]:
    return [_decode_match(match, 0, 0) for match in source]


def _decode_match(match: _Match, start: int, end: int) -> Recipe:
    """A match without that many items at its beginning and end."""
    items = match.items[start : len(match.items) - end]
    return {"name": match.name, "unpack": match.unpack, "items": [msgspec.json.decode(item) for item in items]}


def _with_sources(data: bytes, sources: list[list[Recipe]]) -> Recipe:
    """A recipe whose sources are decoded already."""
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    return {name: sources if name == "sources" else msgspec.json.decode(value) for name, value in fields.items()}
