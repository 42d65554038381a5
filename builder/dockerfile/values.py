"""How the values of flags are written: Go's booleans, integers, durations and sizes, and comma separated fields.

Every function raises ValueError with a message that says what is wrong.
"""

from __future__ import annotations

import re

from builder.dockerfile.text import quote

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_INTEGER = r"[+-]?[0-9]+"
_UNSIGNED = r"[0-9]+"
_DURATION = r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)"
_NANOSECONDS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_SIZE = r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?) ?([A-Za-z]*)"
_MULTIPLES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def parse_boolean(text: str) -> bool:
    """As strconv.ParseBool."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"{quote(text)} is not true or false")


def parse_integer(text: str, bits: int = 32) -> int:
    """A signed decimal integer of so many bits, as strconv.ParseInt with base 10."""
    if not re.fullmatch(_INTEGER, text):
        raise ValueError(f"{quote(text)} is not a whole number")
    value = _small_int(text, 10)
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise ValueError(f"{quote(text)} is out of range")
    return value


def parse_unsigned(text: str, base: int = 10, bits: int = 32) -> int:
    """An unsigned integer without prefix or sign, as strconv.ParseUint."""
    if not re.fullmatch(_UNSIGNED, text) or (base == 8 and re.search("[89]", text)):
        raise ValueError(f"{quote(text)} is not {'an octal' if base == 8 else 'a whole'} number")
    value = _small_int(text, base)
    if value >> bits:
        raise ValueError(f"{quote(text)} is out of range")
    return value


def _small_int(text: str, base: int) -> int:
    """int() for texts of any length: Python refuses to convert thousands of digits."""
    digits = text.lstrip("+-").lstrip("0")[:40] or "0"
    return int(digits, base) * (-1 if text.startswith("-") else 1)


def parse_duration(text: str) -> int:
    """Nanoseconds, as time.ParseDuration: `1h30m`, `1.5s`, `-2ms`, `0`."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    total, position = 0, 0
    while position < len(rest):
        match = re.compile(_DURATION).match(rest, position)
        if not match or not (match[1] or match[2]):
            if re.fullmatch(r"[0-9]*\.?[0-9]*", rest[position:]) and re.search("[0-9]", rest[position:]):
                raise ValueError(f"missing unit in duration {quote(text)}")
            raise ValueError(f"invalid duration {quote(text)}")
        unit = _NANOSECONDS[match[3]]
        fraction = (match[2] or "")[:18]
        total += _small_int(match[1] or "0", 10) * unit
        total += _small_int(fraction or "0", 10) * unit // 10 ** len(fraction)
        if total >= 1 << 63:
            raise ValueError(f"invalid duration {quote(text)}")
        position = match.end()
    if not rest:
        raise ValueError(f"invalid duration {quote(text)}")
    return -total if text.startswith("-") else total


def format_duration(nanoseconds: int) -> str:
    """A duration that is not negative, as Go's `Duration.String` writes it: `0s`, `250ms`, `1h0m1.5s`."""
    if 0 < nanoseconds < 10**9:
        unit, size = next(
            (unit, size) for unit, size in (("ms", 10**6), ("µs", 10**3), ("ns", 1)) if nanoseconds >= size
        )
        return _decimal(nanoseconds, size) + unit
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, 10**9) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(number: int, size: int) -> str:
    """`number / size` without zeros at its end; `size` is a power of ten."""
    whole, rest = divmod(number, size)
    digits = str(size + rest)[1:].rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def parse_size(text: str) -> int:
    """Bytes, as docker/go-units RAMInBytes: `10`, `1.5g`, `512MiB`, `64 kb`; the units are powers of 1024."""
    match = re.fullmatch(_SIZE, text)
    suffix = match[2].lower() if match else ""
    if not match or (suffix and suffix != "b" and not re.fullmatch("[kmgtp](b|ib)?", suffix)):
        raise ValueError(f"{quote(text)} is not a size")
    value = float(match[1]) * _MULTIPLES.get(suffix[:1], 1)
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{quote(text)} is not a size")
    return int(value)


def csv_fields(text: str) -> list[str]:
    """The fields of one comma separated line (RFC 4180; a quote only at the start of a field)."""
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not text:
        raise ValueError("it is empty")
    fields: list[str] = []
    position = 0
    while True:
        if text[position : position + 1] == '"':
            field, position = _quoted_field(text, position + 1)
        else:
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            field, position = text[position:end], end
            if '"' in field:
                raise ValueError(f"bare quote in field {quote(field)}")
        fields.append(field)
        if position == len(text):
            return fields
        position += 1


def _quoted_field(text: str, position: int) -> tuple[str, int]:
    """A field behind its opening quote, and where the comma after it stands."""
    field = ""
    while True:
        end = text.find('"', position)
        if end < 0:
            raise ValueError("missing quote at the end of a field")
        field += text[position:end]
        following = text[end + 1 : end + 2]
        if following == '"':
            field += '"'
            position = end + 2
        elif following in ("", ","):
            return field, end + 1
        else:
            raise ValueError("text behind a closing quote")
