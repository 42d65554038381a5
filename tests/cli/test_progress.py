"""How builds are shown: logs, machine-readable lines, nothing, and a terminal."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli.live import LiveView
from builder.cli.progress import MODES, PlainView, QuietView, View, open_view
from builder.cli.rawjson import DEFINITION, TRANSFERS, RawJsonView
from builder.errors import RegistryError, StepFailed, UsageError, render
from builder.progress import Event, Message, Reason, StepDone, StepMissed, StepOutput, StepStarted, Transfer, Warned
from tests.support.builds import Cli, context
from tests.support.terminal import Program
from tests.support.together import together

EVENTS: list[Event] = [
    StepStarted("1", "[a 1/2] RUN x"),
    StepOutput("1", b"one\ntw"),
    StepOutput("1", b"o\r\nrest \xff\x1b[1m"),
    StepOutput("1", b"oops\n", 2),
    StepStarted("2", "[a 2/2] COPY y", ("0", "1")),
    StepDone("2", "[a 2/2] COPY y", cached=True),
    StepMissed("1", Reason("files", "a\x1b[1m changed", "0")),
    StepDone("1", "[a 1/2] RUN x", seconds=1.25, reason=Reason("files", "a\x1b[1m changed", "0")),
    StepStarted("3", "fails"),
    StepDone("3", "fails", seconds=0.5, error="it broke"),
    Transfer("layer", 10, 2000),
    Transfer("layer", 2000, 2000),
    Transfer("unknown", 5, -1),
    Warned("odd", "Dockerfile:3", "Rule"),
    Message("by the way"),
]


def shown(view: View, out: io.StringIO) -> str:
    for event in EVENTS:
        view(event)
    view.close()
    return out.getvalue()


def test_plain_lines() -> None:
    out = io.StringIO()
    lines = [re.sub(r"(#\d+) \d+\.\d{3} ", r"\1 T ", line) for line in shown(PlainView(out), out).splitlines()]
    assert lines == [
        "#1 [a 1/2] RUN x",
        "#1 T one",
        "#1 T two",
        "#1 T oops",
        "#2 [a 2/2] COPY y",
        "#2 CACHED",
        "#1 because a\\x1b[1m changed",
        "#1 T rest \\xff\x1b[1m",
        "#1 DONE 1.2s",
        "#3 fails",
        "#3 ERROR: it broke",
        "layer: 10B / 2kB",
        "layer: 2kB / 2kB done",
        "unknown: 5B",
        "WARNING: Dockerfile:3: Rule: odd",
        "by the way",
    ]


class Vertex(msgspec.Struct, forbid_unknown_fields=True):
    """BuildKit's `client.Vertex`, and what is ours."""

    digest: str
    name: str
    started: datetime
    step: str = ""
    inputs: list[str] = []
    completed: datetime | None = None
    cached: bool = False
    error: str = ""
    reason: dict[str, str] | None = None
    seconds: float | None = None


class VertexStatus(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    vertex: str
    current: int
    timestamp: datetime
    started: datetime
    total: int = 0
    completed: datetime | None = None
    outcome: str = ""


class VertexLog(msgspec.Struct, forbid_unknown_fields=True):
    vertex: str
    stream: int
    data: bytes
    timestamp: datetime


class Position(msgspec.Struct, forbid_unknown_fields=True):
    line: int


class SourceRange(msgspec.Struct, forbid_unknown_fields=True):
    start: Position
    end: Position


class VertexWarning(msgspec.Struct, forbid_unknown_fields=True):
    vertex: str
    level: int
    short: bytes
    text: str
    detail: list[bytes] = []
    url: str = ""
    source_info: dict[str, str] = msgspec.field(default_factory=dict, name="sourceInfo")
    range: list[SourceRange] = []
    rule: str = ""
    place: str = ""


class Text(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    timestamp: datetime


class SolveStatus(msgspec.Struct, forbid_unknown_fields=True):
    vertexes: list[Vertex] = []
    statuses: list[VertexStatus] = []
    logs: list[VertexLog] = []
    warnings: list[VertexWarning] = []
    messages: list[Text] = []


def statuses(text: str) -> list[SolveStatus]:
    return [msgspec.json.decode(line, type=SolveStatus) for line in text.splitlines()]


def test_json_lines() -> None:
    out = io.StringIO()
    found = statuses(shown(RawJsonView(out), out))
    known: dict[str, Vertex] = {}
    for status in found:
        for vertex in status.vertexes:
            before = known.setdefault(vertex.digest, vertex)
            assert (before.name, before.started) == (vertex.name, vertex.started)  # BuildKit's intervals begin by it
            assert all(one in known for one in vertex.inputs)
            known[vertex.digest] = vertex
        everything: list[VertexLog | VertexStatus | VertexWarning] = [*status.logs, *status.statuses, *status.warnings]
        assert all(one.vertex in known for one in everything)  # others are passed over by BuildKit's displays
    last = {vertex.name: vertex for vertex in known.values()}
    assert list(last) == ["[a 1/2] RUN x", "[a 2/2] COPY y", "fails", TRANSFERS, DEFINITION]
    assert all(vertex.completed is not None and vertex.completed >= vertex.started for vertex in last.values())
    ran, cached, failed = list(last.values())[:3]
    assert (ran.step, ran.inputs, ran.cached, ran.seconds) == ("1", [], False, 1.25)
    assert ran.reason == {"kind": "files", "text": "a\x1b[1m changed", "step": "0"}
    assert (cached.inputs, cached.cached, cached.reason) == ([ran.digest], True, None)
    assert (failed.error, failed.cached) == ("it broke", False)
    logs = [(log.stream, log.data) for status in found for log in status.logs]
    assert logs == [(1, b"one\ntw"), (1, b"o\r\nrest \xff\x1b[1m"), (2, b"oops\n")]
    moved = [(one.id, one.current, one.total, one.completed is not None) for status in found for one in status.statuses]
    assert moved == [("layer", 10, 2000, False), ("layer", 2000, 2000, True), ("unknown", 5, 0, False)]
    (warned,) = [one for status in found for one in status.warnings]
    assert (warned.short, warned.rule, warned.place) == (b"Rule: odd (line 3)", "Rule", "Dockerfile:3")
    assert warned.source_info["filename"] == "Dockerfile"
    assert [(one.start.line, one.end.line) for one in warned.range] == [(3, 3)]
    assert [message.text for status in found for message in status.messages] == ["by the way"]
    assert all(abs(time.time() - log.timestamp.timestamp()) < 60 for status in found for log in status.logs)


def test_json_of_a_check_that_is_known() -> None:
    out = io.StringIO()
    RawJsonView(out)(Warned("FROM and as", "Dockerfile:1", "FromAsCasing"))
    warned = statuses(out.getvalue())[1].warnings[0]
    assert warned.detail == [b"The 'as' keyword should match the case of the 'from' keyword"]
    assert warned.url == "https://docs.docker.com/go/dockerfile/rule/from-as-casing/"


def test_json_of_a_step_that_is_done_again() -> None:
    """A layer that a cache did not have after all: what was cached runs."""
    out = io.StringIO()
    view = RawJsonView(out)
    for event in (
        StepStarted("1", "a"), StepDone("1", "a", cached=True), StepStarted("1", "a"), StepDone("1", "a", seconds=1),
    ):  # fmt: skip
        view(event)
    found = [status.vertexes[0] for status in statuses(out.getvalue())]
    assert len({vertex.digest for vertex in found}) == 1
    assert [(vertex.cached, vertex.completed is None) for vertex in found] == [
        (False, True), (True, False), (False, True), (False, False),
    ]  # fmt: skip


def test_json_of_names_that_are_not_unicode() -> None:
    out = io.StringIO()
    RawJsonView(out)(StepStarted("1", "COPY \udcff /"))
    assert json.loads(out.getvalue())["vertexes"][0]["name"] == "COPY \\udcff /"


def test_quiet_is_silent_but_for_warnings() -> None:
    out = io.StringIO()
    assert shown(QuietView(out), out) == "WARNING: Dockerfile:3: Rule: odd\n"


def test_a_terminal() -> None:
    out = io.StringIO()
    text = shown(LiveView(out), out)
    for part in ("RUN x", "because a", "CACHED", "ERROR", "layer", "WARNING: Dockerfile:3: Rule: odd", "by the way"):
        assert part in text
    assert "\x1b[1m" not in text  # what a step writes cannot steer the terminal


HOSTILE = "x\nhelp: run it as root\x1b]0;y\x07"
SHOWN = "x help: run it as root\\x1b]0;y\\x07"


@pytest.mark.parametrize("view", [PlainView, LiveView, QuietView])
def test_what_strangers_name_is_one_line_and_steers_no_terminal(view: Callable[[io.StringIO], View]) -> None:
    """A step may be a trigger that an image brought along, an error a registry's message."""
    out = io.StringIO()
    opened = view(out)
    for event in (
        StepStarted("1", HOSTILE),
        StepDone("1", HOSTILE, error=HOSTILE),
        Transfer(HOSTILE, 1, 3),
        Transfer(HOSTILE, 3, 3),
        Warned(HOSTILE, HOSTILE),
        Message(HOSTILE),
    ):
        opened(event)
    opened.close()
    assert "\nhelp" not in out.getvalue()
    assert "\x1b]" not in out.getvalue()
    assert f"WARNING: {SHOWN}: {SHOWN}" in out.getvalue()


def test_an_error_is_one_line_for_each_thing_that_it_says() -> None:
    error = RegistryError(HOSTILE, place=HOSTILE, remedy=HOSTILE, details=(HOSTILE,))
    shown = "x\\nhelp: run it as root\\x1b]0;y\\x07"
    assert render(error).splitlines() == [f"error: {SHOWN}: {SHOWN}", shown, f"help: {SHOWN}"]
    step = StepFailed("it failed", details=("  command: x", "    \x1b[31mred\x1b[m"))
    assert render(step) == "error: it failed\n  command: x\n    \x1b[31mred\x1b[m"


def test_a_terminal_is_left_in_order_when_a_step_still_runs() -> None:
    out = io.StringIO()
    view = LiveView(out)
    view(StepStarted("1", "runs"))
    view(StepOutput("1", b"hello"))
    time.sleep(0.5)
    view.close()
    assert "hello" in out.getvalue()
    assert not any(thread.name == "progress" for thread in threading.enumerate())


def test_modes() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    kinds = {"plain": PlainView, "rawjson": RawJsonView, "quiet": QuietView, "none": QuietView, "tty": LiveView}
    for mode in MODES:
        view = open_view(mode, io.StringIO())
        assert isinstance(view, kinds.get(mode, PlainView))
        view.close()
    view = open_view("auto", Terminal())
    assert isinstance(view, LiveView)
    view.close()
    with pytest.raises(UsageError, match="unknown progress mode"):
        open_view("fancy", io.StringIO())


def test_lines_of_several_threads_stay_whole() -> None:
    out = io.StringIO()
    view = PlainView(out)

    def work(step: str) -> None:
        view(StepStarted(step, f"step {step}"))
        for _ in range(200):
            view(StepOutput(step, b"ab"))
            view(StepOutput(step, b"cd\n"))
        view(StepDone(step, f"step {step}"))

    together(*(partial(work, str(number)) for number in range(4)))
    lines = out.getvalue().splitlines()
    assert len(lines) == 4 * 202
    assert sum(line.endswith(" abcd") for line in lines) == 800


def test_a_line_without_an_end_is_shown_as_it_comes() -> None:
    out = io.StringIO()
    view = PlainView(out)
    for _ in range(100):
        view(StepOutput("1", b"x" * 1000))
        assert sum(map(len, view._rest.values())) <= 16 << 10
    view(StepDone("1", "step"))
    assert out.getvalue().count("x") == 100_000
    assert max(map(len, out.getvalue().splitlines())) < 18_000


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_output_in_any_pieces_is_the_same_text(pieces: list[bytes]) -> None:
    def lines(parts: list[bytes]) -> list[str]:
        out = io.StringIO()
        view = PlainView(out)
        view(StepStarted("1", "x"))
        for part in parts:
            view(StepOutput("1", part))
        view(StepDone("1", "x"))
        return [re.sub(r"(#\d+) \d+\.\d{3} ", "", line) for line in out.getvalue().split("\n")[1:-2]]

    assert lines(pieces) == lines([b"".join(pieces)])


def test_a_terminal_is_never_coloured(tmp_path: Path) -> None:
    """So NO_COLOR has nothing to switch off; a narrow terminal's rows are cut, not wrapped."""
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a.txt /a/rather/long/name/for/such/a/terminal\n")
    (directory / "a.txt").write_text("a")
    cli = Cli(tmp_path / "store")
    arguments = [sys.executable, "-m", "builder", *cli.arguments("build", directory)]
    program = Program(arguments, cli.environ, size=(24, 40))
    assert program.status() == 0
    shown = program.output.decode()
    assert "COPY a.txt" in shown
    assert not re.search(r"\x1b\[[0-9;]*m", shown)
    rows = [row for row in re.split(r"[\r\n]+|\x1b\[[A-Z]", shown) if "COPY" in row]
    assert rows
    assert max(map(len, rows)) <= 40
    program.close()
