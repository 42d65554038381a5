"""What templates compute with: Go's values, their fields, and how Go and JSON print them."""

from __future__ import annotations

from typing import Any


class Record(dict[str, Any]):
    """A Go structure: its fields are known, so that asking for another is an error. `omit` are the fields that JSON
    leaves out when they are empty."""

    omit: frozenset[str] = frozenset()

    @classmethod
    def of(cls, fields: dict[str, Any], omit: frozenset[str] = frozenset()) -> Record:
        record = cls(fields)
        record.omit = omit
        return record


class Slice(list[Any]):
    """A Go slice that may be nil: then it is empty to a template, and null as JSON."""

    nil = False

    @classmethod
    def of(cls, values: list[Any] | None) -> Slice:
        made = cls(values or ())
        made.nil = values is None
        return made


class Map(dict[str, Any]):
    """A Go map of values of one type; `zero` is what `index` finds for a key that it does not have. It may be nil, as a
    `Slice` may."""

    nil = False
    zero: Any = ""

    @classmethod
    def of(cls, values: dict[str, Any] | None, zero: Any = "") -> Map:
        made = cls(values or ())
        made.nil, made.zero = values is None, zero
        return made


class Duration(int):
    """A Go time.Duration: nanoseconds to JSON and to computing, `1m30s` as text."""


class TemplateFailure(Exception):
    """A template cannot be carried out on its data."""


class _Missing:
    """The value of a key that a map does not have."""

    def __repr__(self) -> str:
        return "<no value>"


MISSING = _Missing()


def field(value: Any, name: str) -> Any:
    """`.name` of a value."""
    if isinstance(value, dict):
        if name in value:
            return value[name]
        if isinstance(value, Record):
            known = ", ".join(value)
            raise TemplateFailure(f"there is no field {name!r}; there are {known}")
        return MISSING
    if value is None or value is MISSING:
        raise TemplateFailure(f"there is no field {name!r} of nothing")
    raise TemplateFailure(f"there is no field {name!r} of {text_of(value)!r}")


def truth(value: Any) -> bool:
    """Go's rule: false, 0, nil and what is empty are false; a structure is true."""
    return isinstance(value, Record) or (value is not MISSING and bool(value))


def is_nil(value: Any) -> bool:
    return value is None or value is MISSING or (isinstance(value, (Slice, Map)) and value.nil)


def plain(value: Any) -> Any:
    """Data as JSON shows it: without the empty fields that a structure leaves out."""
    if is_nil(value):
        return None
    if isinstance(value, Record):
        return {key: plain(item) for key, item in value.items() if key not in value.omit or _filled(item)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _filled(value: Any) -> bool:
    return value is not None and value is not False and value not in ("", 0, [], {})


def text_of(value: Any, *, top: bool = False) -> str:
    """A value as Go's `%v` prints it; at the `top` of an action a nil is `<no value>` only if it is missing."""
    if isinstance(value, str):
        return value
    if value is MISSING:
        return "<no value>" if top else "<nil>"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Duration):
        from builder.dockerfile.values import format_duration

        return "-" * (value < 0) + format_duration(abs(value))
    if isinstance(value, Record):
        return "{" + " ".join(text_of(item) for item in value.values()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{text_of(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(text_of(item) for item in value) + "]"
    return str(value)


def _float(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
