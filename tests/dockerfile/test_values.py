"""Durations, sizes, numbers and booleans as Go reads them; excerpts; nearby names; check options."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.excerpt import excerpt
from builder.dockerfile.instructions import Range
from builder.dockerfile.lines import CheckOptions, parse_check_directive, parse_check_options
from builder.dockerfile.text import did_you_mean, nearest, quote, quoted
from builder.dockerfile.values import (
    format_duration,
    parse_boolean,
    parse_duration,
    parse_integer,
    parse_size,
    parse_unsigned,
)
from builder.errors import DockerfileError

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0), ("+0", 0), ("5s", 5 * SECOND), ("-5s", -5 * SECOND), ("1h15m30.918273645s", 4530918273645),
        ("1.5h", 5400 * SECOND), (".5s", SECOND // 2), ("1.s", SECOND), ("3us", 3000), ("3µs", 3000), ("3μs", 3000),
        ("100ms", SECOND // 10), ("7ns", 7), ("0.3333333333333333333h", 1200 * SECOND - 1),
        ("9223372036s", 9223372036 * SECOND),
    ],
)  # fmt: skip
def test_duration(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "3", "-", "s", ".", "-.", ".s", "+.s", "1d", "1s 2s", "1e3s", "9999999999s", "x"])
def test_duration_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"), (7, "7ns"), (1500, "1.5µs"), (250_000_000, "250ms"), (1_000_001, "1.000001ms"), (SECOND, "1s"),
        (3 * SECOND // 2, "1.5s"), (330 * SECOND, "5m30s"), (3600 * SECOND, "1h0m0s"), (90061 * SECOND, "25h1m1s"),
        (4530918273645, "1h15m30.918273645s"),
    ],
)  # fmt: skip
def test_duration_written(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text
    assert parse_duration(text) == nanoseconds


def test_missing_unit_is_said() -> None:
    with pytest.raises(ValueError, match="missing unit"):
        parse_duration("1m30")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32", 32),
        ("32b", 32),
        ("32k", 32768),
        ("32KiB", 32768),
        ("32 mb", 32 << 20),
        ("1.5G", 3 << 29),
        ("2t", 2 << 40),
    ],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "32kk", "32bk", "32kib2", "1,5g", "inf", "99999999p"])
def test_size_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def test_numbers() -> None:
    assert parse_integer("+7") == 7
    assert parse_integer("-2147483648") == -(2**31)
    assert parse_unsigned("0755", 8) == 0o755
    for text in ("", "1_0", "0x1", " 1", "2147483648", "9" * 10000, "\u0661"):
        with pytest.raises(ValueError, match=r"number|range"):
            parse_integer(text)


def test_booleans() -> None:
    assert [parse_boolean(text) for text in ("1", "T", "True", "0", "f", "FALSE")] == [True] * 3 + [False] * 3
    with pytest.raises(ValueError, match="true or false"):
        parse_boolean("yes")


@given(st.text(max_size=12))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for read in (parse_boolean, parse_duration, parse_integer, parse_size, parse_unsigned):
        with contextlib.suppress(ValueError):
            read(text)


def test_nearest() -> None:
    assert nearest("FOO", ["RUN", "FROM"], fold=True) == "FROM"
    assert nearest("RNU", ["ENV", "RUN"]) == "RUN"
    assert nearest("run", ["RUN"], fold=True) == ""
    assert nearest("something", ["from", "chown"]) == ""
    assert did_you_mean("chownn", ["chmod", "chown"]) == " (did you mean chown?)"


def test_quote() -> None:
    assert quote("a\tb\0") == '"a\\tb\\x00"'
    assert quote('say "x"') == "'say \"x\"'"
    assert len(quote("x" * 1000)) < 80


def test_excerpt() -> None:
    text = "one\ntwo\nthree\tx\x1b[31m\nfour\nfive\nsix\n"
    assert excerpt(text, Range(3, 4)) == (
        "   1 |     one",
        "   2 |     two",
        "   3 | >>> three   x�[31m",
        "   4 | >>> four",
        "   5 |     five",
        "   6 |     six",
    )
    assert excerpt(text.encode(), Range(1, 1))[0] == "   1 | >>> one"
    assert excerpt(text, Range(9, 9)) == ()
    assert excerpt("", Range(1, 1)) == ()
    long = excerpt("\n".join(map(str, range(1, 100))), Range(3, 90))
    assert len(long) < 16
    assert long[0].endswith("1")
    assert long[-1].endswith("92")
    assert len(excerpt("x" * 100000, Range(1, 1))[0]) < 200


def test_check_options() -> None:
    assert parse_check_directive("skip=A, B") == CheckOptions(skip=("A", ""))
    assert parse_check_options(" skip = A, B ; error = true") == CheckOptions(skip=("A", "B"), error=True)
    assert parse_check_options(" ") == CheckOptions()
    assert parse_check_directive("skip=all;experimental=X,Y;error=true ignored") == CheckOptions(
        skip_all=True, experimental=("X", "Y"), error=True
    )
    assert parse_check_options("experimental=all").experimental_all
    for text in ("skip", "other=x", "error=maybe"):
        with pytest.raises(DockerfileError, match="invalid check option"):
            parse_check_options(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", '""'),
        ("a é 漢 😀", '"a é 漢 😀"'),
        ('a"b\\c', r'"a\"b\\c"'),
        ("\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        ("\0\x1b\x7f", r'"\x00\x1b\x7f"'),
        ("\x85\u200b\u2028\ufeff\U000e0001", r'"\u0085\u200b\u2028\ufeff\U000e0001"'),
        ("</a>&", '"</a>&"'),
        (b"a\xffb".decode("utf-8", "surrogateescape"), r'"a\xffb"'),
    ],
)
def test_quoted_as_go_does(text: str, shown: str) -> None:
    assert quoted(text) == shown
