"""`--filter KEY=VALUE` of `du` and `prune --cache`, as a predicate over what is in the build cache.

The keys and operators are those of `docker buildx prune --filter`: `id`, `type` and `description` with `=`, `!=` or
`~=` (a regular expression), what is true or false of a record, and `until`. What `parents` asks no record here says:
what a step stands on is part of its recipe, and may be several records.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from builder.cli.filters import moment_of, truth
from builder.errors import UsageError
from builder.store.cached import CACHE_MOUNT, TYPES, CacheRecord, Choice

_TEXTS: dict[str, Callable[[CacheRecord], str]] = {
    "id": lambda record: record.id,
    "type": lambda record: record.type,
    "description": lambda record: record.description,
}
_FLAGS: dict[str, Callable[[CacheRecord], bool]] = {
    "inuse": lambda record: record.in_use,
    "shared": lambda record: record.shared,
    "private": lambda record: not record.shared,
    "mutable": lambda record: record.type == CACHE_MOUNT,
    "immutable": lambda record: record.type != CACHE_MOUNT,
}
RECORDS = frozenset({key + operator for key in _TEXTS for operator in ("", "!", "~")} | _FLAGS.keys())
"""The keys that choose what is in the build cache, and nothing else."""
CACHE = RECORDS | {"until"}


def choice(filters: dict[str, list[str]]) -> Choice:
    """Whether a record passes all filters. Raises UsageError for a wrong value."""
    tests: list[Choice] = []
    for key, values in filters.items():
        if key == "until":
            limit = min(moment_of(value).timestamp() for value in values)
            tests.append(lambda record, limit=limit: record.used < limit)  # type: ignore[misc]
        elif key in _FLAGS:
            tests += [_flag(_FLAGS[key], truth(value, key)) for value in values]
        else:
            tests += [_text(key.rstrip("!~"), key[len(key.rstrip("!~")) :], value) for value in values]
    return lambda record: all(test(record) for test in tests)


def _flag(test: Callable[[CacheRecord], bool], wanted: bool) -> Choice:
    return lambda record: test(record) == wanted


def _text(key: str, operator: str, value: str) -> Choice:
    """As in buildx `id=` looks for a part of an ID, as people write it: a regular expression, too."""
    text = _TEXTS[key]
    if key == "type" and operator != "~" and value not in TYPES:
        raise UsageError(f"there is no build cache of type {value!r}", remedy=f"the types are {' and '.join(TYPES)}")
    if operator == "~" or (key == "id" and not operator):
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise UsageError(f"invalid filter {key}{operator}={value}: {error}") from None
        return lambda record: pattern.search(text(record)) is not None
    return lambda record: (text(record) == value) == (operator == "")
