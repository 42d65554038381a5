"""`--filter KEY=VALUE` of the image commands, as a predicate over summaries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from builder.errors import UsageError
from builder.oci.reference import Reference
from builder.store.describe import Describer, Summary, parse_time
from builder.store.images import Images

Predicate = Callable[[Summary], bool]
LISTING = frozenset({"dangling", "label", "label!", "before", "since", "reference", "until"})
PRUNING = frozenset({"dangling", "label", "label!", "until"})
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


def parse_filters(texts: Iterable[str], known: frozenset[str]) -> dict[str, list[str]]:
    """The values of each key. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if key == "label" and value.startswith("="):  # cannot be: a label has a name
            equals = ""
        if not equals or not value:
            raise UsageError(f"invalid filter {text!r}", remedy="write --filter KEY=VALUE")
        if key not in known:
            raise UsageError(f"there is no filter {key!r}", remedy=f"the filters are {', '.join(sorted(known))}")
        found.setdefault(key, []).append(value)
    return found


def predicate(filters: dict[str, list[str]], images: Images, describer: Describer) -> Predicate:
    """Whether a summary passes all filters; of several references one must match, of labels all. Raises StoreError
    when `before` or `since` name no image, UsageError for a wrong value."""
    tests: list[Predicate] = []
    for key, values in filters.items():
        if key == "dangling":
            wanted = truth(values[-1], key)
            tests.append(lambda row, wanted=wanted: (row.reference is None) == wanted)  # type: ignore[misc]
        elif key in ("label", "label!"):
            tests += [_label(value, key == "label") for value in values]
        elif key == "reference":
            tests.append(_named([glob_pattern(value) for value in values]))
        elif key == "until":
            limit = min(moment_of(value) for value in values)
            tests.append(lambda row, limit=limit: row.created is not None and row.created < limit)  # type: ignore[misc]
        else:
            tests += [_relative(describer.summary(images.find(value)).created, key) for value in values]
    return lambda row: all(test(row) for test in tests)


def truth(text: str, key: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise UsageError(f"invalid filter {key}={text}", remedy=f"write {key}=true or {key}=false")


def moment_of(text: str) -> datetime:
    """A time: how long ago (`24h`, `1h30m`), a date or time (local unless it has a zone), or seconds since 1970."""
    if _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        try:
            return datetime.now(UTC) - timedelta(seconds=seconds)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return datetime.fromtimestamp(float(text), UTC)
        return parse_time(text) or datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"invalid time {text!r}", remedy="write for example 24h, 2024-05-01, or 2024-05-01T12:00:00Z"
        ) from None


def _label(text: str, wanted: bool) -> Predicate:
    key, equals, value = text.partition("=")

    def test(row: Summary) -> bool:
        has = key in row.labels and (not equals or row.labels[key] == value)
        return has == wanted

    return test


def _relative(limit: datetime | None, key: str) -> Predicate:
    def test(row: Summary) -> bool:
        if row.created is None or limit is None:
            return False
        return row.created < limit if key == "before" else row.created > limit

    return test


def _named(patterns: list[re.Pattern[str]]) -> Predicate:
    return lambda row: any(matches(row.reference, pattern) for pattern in patterns)


def matches(reference: Reference | None, pattern: re.Pattern[str]) -> bool:
    """Whether a name, as people write it or in full, with its tag or without, is matched, as in moby's list."""
    if reference is None:
        return False
    names = (reference.familiar, reference.familiar_name, str(reference), reference.name)
    return any(pattern.fullmatch(name) for name in names)


def glob_pattern(pattern: str) -> re.Pattern[str]:
    """Go's path.Match: `*` and `?` stop at slashes."""
    out = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "[":
            end = pattern.find("]", position + 1)
            if end < 0:
                raise UsageError(f"invalid pattern {pattern!r}: '[' is not closed")
            inside = pattern[position:end].replace("\\", "\\\\")
            out += f"[{'^' + inside[1:] if inside[0] in '^!' else inside}]"
            position = end + 1
        else:
            out += re.escape(character)
    try:
        return re.compile(out)
    except re.error as error:
        raise UsageError(f"invalid pattern {pattern!r}: {error}") from None
