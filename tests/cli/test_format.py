"""Tables, times and sizes as Docker prints them; filters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from builder.cli.filters import LISTING, glob_pattern, moment_of, parse_filters
from builder.cli.format import ago, human_duration, moment, print_rows, rfc3339, size, table
from builder.errors import UsageError
from builder.store.describe import parse_time


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60 + 59, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (731 * 86400, "2 years"),
    ],
)
def test_durations_are_dockers(seconds: float, words: str) -> None:
    assert human_duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1234567, "1.23MB"), (12_300_000, "12.3MB"), (7_050_000_000, "7.05GB")],
)
def test_sizes_are_dockers(count: int, text: str) -> None:
    assert size(count) == text


def test_an_image_without_a_time_has_no_age() -> None:
    assert ago(None) == "N/A"
    assert ago(parse_time("0001-01-01T00:00:00Z")) == "N/A"
    assert ago(datetime.now(UTC) - timedelta(hours=3)) == "3 hours ago"


@pytest.fixture
def in_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def change(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield change
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "text", "printed"),
    [
        ("XYZ-2", "2024-02-01T12:00:00Z", "2024-02-01 14:00:00 +0200 XYZ"),
        ("XYZ-2", "9999-12-31T23:59:59Z", "9999-12-31 23:59:59 +0000 UTC"),
        ("UTC", "9999-12-31T23:59:59Z", "9999-12-31 23:59:59 +0000 UTC"),
        ("UTC", "9999-12-31T23:59:59-12:00", "9999-12-31 23:59:59 -1200 UTC-12:00"),
        ("XYZ-2", "0001-01-01T00:00:00Z", "N/A"),
    ],
)
def test_times_are_local_if_they_can_be(zone: str, text: str, printed: str, in_zone: Callable[[str], None]) -> None:
    in_zone(zone)
    assert moment(parse_time(text)) == printed


@pytest.mark.parametrize(
    ("zone", "text", "printed"),
    [
        ("XYZ-2", "2024-02-01T12:00:00.987654321Z", "2024-02-01T14:00:00+02:00"),
        ("UTC", "2024-02-01T12:00:00.987654321+01:00", "2024-02-01T11:00:00Z"),
        ("XYZ-2", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ("XYZ2", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_exact_times_are_dockers(zone: str, text: str, printed: str, in_zone: Callable[[str], None]) -> None:
    in_zone(zone)
    when = parse_time(text)
    assert when is not None
    assert rfc3339(when) == printed


@pytest.mark.parametrize("text", ["2024-02-30T00:00:00Z", "yesterday", "", None, "2024-01-01"])
def test_what_is_no_time_is_none(text: str | None) -> None:
    assert parse_time(text) is None


def test_times_have_zones_and_nanoseconds() -> None:
    assert parse_time("2024-05-06T07:08:09.123456789+02:00") == datetime(2024, 5, 6, 5, 8, 9, 123456, UTC)


def test_columns_are_as_wide_as_the_widest_cell_and_at_least_ten() -> None:
    assert (
        table(["A\tB\tC", "long value here\tx\ty"]) == "A                 B         C\nlong value here   x         y\n"
    )


ROW = {"ID": "sha256:abcdef", "Tag": "3.20"}
HEADERS = {"ID": "IMAGE ID", "Tag": "TAG"}


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ('{{slice .ID 7}} {{index (split .Tag ".") 1}}', "abcdef 20\n"),
        ("{{range split .Tag `.`}}{{println .}}{{end}}", "3\n20\n\n"),
        ("table {{lower .ID}}\\t{{upper .Tag}}", "IMAGE ID        TAG\nsha256:abcdef   3.20\n"),
        ("table {{json .Tag}}\\t{{truncate .ID 6}}", 'TAG       IMAGE ID\n"3.20"    sha256\n'),
        ("table {{join (split .Tag `.`) `-`}}\\t{{title .ID}}", "TAG       IMAGE ID\n3-20      Sha256:Abcdef\n"),
        ("table {{pad .Tag 1 0}}", " TAG\n 3.20\n"),
        ("table {{.Tag}}\\t{{slice .ID 9}}", "TAG       \n3.20      cdef\n"),
        ("table {{index (split .Tag `.`) 1}}", "\n20\n"),
    ],
)
def test_titles_stand_above_tables_only_and_stay_as_they_are(
    form: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_rows([ROW], form, HEADERS, "{{.ID}}")
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ("table{{.ID}}\\t{{.Tag}}", "IMAGE ID        TAG\n\\x1b[2Ja\\nb\\t   1\n"),
        ("", "IMAGE ID\n\\x1b[2Ja\\nb\\t\n"),
        ("{{.ID}}", "\x1b[2Ja\nb\t\n"),
        ("json", '{"ID":"\\u001b[2Ja\\nb\\t","Tag":"1"}\n'),
    ],
)
def test_tables_show_no_control_characters(form: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"ID": "\x1b[2Ja\nb\t", "Tag": "1"}], form, {"ID": "IMAGE ID", "Tag": "TAG"}, "{{.ID}}")
    assert capsys.readouterr().out == printed


def test_a_format_is_only_refused_for_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], "table {{.ID}}\\t{{.Nope}}", HEADERS, "")
    assert capsys.readouterr().out == "IMAGE ID   \n"
    with pytest.raises(UsageError):
        print_rows([ROW], "{{.Nope}}", HEADERS, "")


def test_times_of_filters() -> None:
    now = datetime.now(UTC)
    assert abs(moment_of("1h30m") - (now - timedelta(minutes=90))) < timedelta(seconds=5)
    assert moment_of("2024-05-01T12:00:00Z") == datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert moment_of("1700000000") == datetime.fromtimestamp(1700000000, UTC)
    assert moment_of("2024-05-01").tzinfo is not None
    assert moment_of("999999999999h").year == 1
    for wrong in ("soon", "2024-13-01", "9" * 40):
        with pytest.raises(UsageError):
            moment_of(wrong)


@pytest.mark.parametrize("text", ["x", "=y", "dangling=", "nope=1"])
def test_wrong_filters_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_filters([text], LISTING)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("alpine*", "alpine:3", True),
        ("al?ine", "alpine", True),
        ("*", "user/app", False),
        ("*/*", "user/app", True),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("a.c", "abc", False),
    ],
)
def test_patterns_stop_at_slashes(pattern: str, name: str, matches: bool) -> None:
    assert bool(glob_pattern(pattern).fullmatch(name)) == matches


@pytest.mark.parametrize("pattern", ["[", "[a", "[z-a]"])
def test_wrong_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        glob_pattern(pattern)
