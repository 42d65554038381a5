"""The functions of templates: those of Go's text/template and of Docker's formatter."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from builder.cli.template_values import MISSING, Map, Record, TemplateFailure, is_nil, plain, text_of, truth

_DIGITS = 6  # of a width: Go takes none above a million
_VERB = re.compile(r"%([-+# 0]*)(\d+)?(?:\.(\d+))?(.?)", re.DOTALL)


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
