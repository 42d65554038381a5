"""What templates compute with: the functions of Go's text/template and of Docker's formatter, and Go's way to print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_DIGITS = 6  # of a width: Go takes none above a million
_VERB = re.compile(r"%([-+# 0]*)(\d+)?(?:\.(\d+))?(.?)", re.DOTALL)


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


def _json(value: Any) -> str:
    return json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False)


def _pretty_json(value: Any) -> str:
    return json.dumps(plain(value), indent=2, ensure_ascii=False)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, (list, tuple, dict)) and not isinstance(value, Record):
        return len(value)
    raise TemplateFailure(f"{text_of(value)!r} has no length")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Record):
            raise TemplateFailure("index needs a list or a map, not a structure")
        if isinstance(value, dict):
            value = value.get(key, _zero(value))
        elif isinstance(value, (list, tuple)):
            value = _element(value, key)
        elif value is None or value is MISSING:
            raise TemplateFailure("index of nothing")
        else:
            raise TemplateFailure(f"index cannot look into {text_of(value)!r}")
    return value


def _zero(values: dict[str, Any]) -> Any:
    """What stands for a key that a map does not have: the zero value of its type, where that is known."""
    if isinstance(values, Map):
        return values.zero
    return "" if values and isinstance(next(iter(values.values())), str) else MISSING


def _element(value: Any, key: Any) -> Any:
    if not isinstance(key, int) or isinstance(key, bool):
        raise TemplateFailure(f"{text_of(key)!r} is not a list's index")
    if not 0 <= key < len(value):
        raise TemplateFailure(f"index {key} is outside of a list of {len(value)}")
    return value[key]


def _slice(value: Any, *bounds: int) -> Any:
    start, end = (*bounds, *(0, len(value))[len(bounds) :])
    if not 0 <= start <= end <= len(value):
        raise TemplateFailure(f"the slice {start}:{end} is outside of {len(value)}")
    return value[start:end]


def _join(values: Any, separator: str) -> str:
    if values is None or values is MISSING:
        return ""
    if not isinstance(values, (list, tuple)):
        raise TemplateFailure(f"join needs a list, not {text_of(values)!r}")
    return separator.join(text_of(value) for value in values)


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def _pad(text: str, before: int, after: int) -> str:
    return text if not text else " " * before + text + " " * after


def _truncate(text: str, length: int) -> str:
    return text[:length]


def _print(*values: Any) -> str:
    """Go's Sprint: spaces only between two values that are no strings."""
    out = ""
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            out += " "
        out += text_of(value)
    return out


def _println(*values: Any) -> str:
    return " ".join(text_of(value) for value in values) + "\n"


def _printf(form: str, *values: Any) -> str:
    remaining = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not remaining:
            raise TemplateFailure(f"printf: too few values for {form!r}")
        return _formatted(remaining.pop(0), flags, width or "", precision, verb)

    text = _VERB.sub(one, form)
    if remaining:
        raise TemplateFailure(f"printf: too many values for {form!r}")
    return text


def _formatted(value: Any, flags: str, width: str, precision: str | None, verb: str) -> str:
    if len(width) > _DIGITS or len(precision or "") > _DIGITS:
        raise TemplateFailure(f"printf: {width or precision} is too wide")
    if verb in "sv" and verb:
        text = text_of(value)
        text = text if precision is None else text[: int(precision)]
    elif verb == "q" and isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    elif verb == "t" and isinstance(value, bool):
        text = text_of(value)
    elif verb in "dxXo" and verb and isinstance(value, int) and not isinstance(value, bool):
        text = format(value, ("+" if "+" in flags else "") + verb)
    elif verb in "xX" and verb and isinstance(value, str):
        text = value.encode().hex()
    elif verb in "feg" and verb and isinstance(value, (int, float)) and not isinstance(value, bool):
        text = format(float(value), ("+" if "+" in flags else "") + f".{precision or 6}{verb}")
    else:
        raise TemplateFailure(f"printf: %{verb} does not fit {text_of(value)!r}")
    if not width:
        return text
    if "-" in flags:
        return text.ljust(int(width))
    if "0" in flags and verb not in "svqt":
        return text.zfill(int(width))
    return text.rjust(int(width))


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateFailure("eq needs two values")
    return any(_same(first, other) for other in others)


def _same(first: Any, second: Any) -> bool:
    if is_nil(first) or is_nil(second):
        return is_nil(first) and is_nil(second)
    if isinstance(first, (list, dict)) or isinstance(second, (list, dict)):
        raise TemplateFailure("lists and maps cannot be compared but with nil")
    return isinstance(first, bool) == isinstance(second, bool) and bool(first == second)


def _less(first: Any, second: Any) -> bool:
    if isinstance(first, str) and isinstance(second, str):
        return first < second
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return first < second
    raise TemplateFailure(f"{text_of(first)!r} and {text_of(second)!r} cannot be compared")


def _string(function: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: function(text_of(value))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json, "prettyjson": _pretty_json, "len": _length, "index": _index, "slice": _slice, "join": _join,
    "split": _split, "pad": _pad, "truncate": _truncate, "print": _print, "println": _println, "printf": _printf,
    "lower": _string(str.lower), "upper": _string(str.upper), "title": _string(str.title),
    "not": lambda value: not truth(value), "eq": _equal, "ne": lambda a, b: not _same(a, b), "lt": _less,
    "le": lambda a, b: _less(a, b) or _same(a, b), "gt": lambda a, b: _less(b, a),
    "ge": lambda a, b: not _less(a, b),
}  # fmt: skip

ON_TITLES: dict[str, Callable[..., Any]] = {
    "json": lambda title: title, "split": lambda title, _: title, "join": lambda title, _: title,
    "title": lambda title: title, "lower": lambda title: title, "upper": lambda title: title,
    "truncate": lambda title, _: title,
}  # fmt: skip
"""What the functions of the same name do with a column's title: docker/cli's HeaderFunctions. `pad` is none of them, so
that titles stand above their columns."""
