"""How builds are shown: logs, machine-readable lines, nothing, and a terminal."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli.live import LiveView
from builder.cli.progress import MODES, JsonView, PlainView, QuietView, View, open_view, size, warning
from builder.errors import UsageError
from builder.progress import Event, Message, Reason, StepDone, StepMissed, StepOutput, StepStarted, Transfer, Warned
from tests.support.builds import Cli, context
from tests.support.terminal import Program

EVENTS: list[Event] = [
    StepStarted("1", "[a 1/2] RUN x"),
    StepOutput("1", b"one\ntw"),
    StepOutput("1", b"o\r\nrest \xff\x1b[1m"),
    StepOutput("1", b"oops\n", 2),
    StepStarted("2", "[a 2/2] COPY y"),
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


def test_json_lines() -> None:
    out = io.StringIO()
    found = [json.loads(line) for line in shown(JsonView(out), out).splitlines()]
    assert [line["event"] for line in found] == [type(event).__name__ for event in EVENTS]
    assert all(abs(line["time"] - time.time()) < 60 for line in found)
    assert found[2]["data"] == "o\r\nrest \\xff\x1b[1m"
    assert found[6]["reason"] == found[7]["reason"] == {"kind": "files", "text": "a\x1b[1m changed", "step": "0"}
    assert found[9]["error"] == "it broke"


def test_quiet_is_silent_but_for_warnings() -> None:
    out = io.StringIO()
    assert shown(QuietView(out), out) == "WARNING: Dockerfile:3: Rule: odd\n"


def test_a_terminal() -> None:
    out = io.StringIO()
    text = shown(LiveView(out), out)
    for part in ("RUN x", "because a", "CACHED", "ERROR", "layer", "WARNING: Dockerfile:3: Rule: odd", "by the way"):
        assert part in text
    assert "\x1b[1m" not in text  # what a step writes cannot steer the terminal


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

    kinds = {"plain": PlainView, "rawjson": JsonView, "quiet": QuietView, "none": QuietView, "tty": LiveView}
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

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = out.getvalue().splitlines()
    assert len(lines) == 4 * 202
    assert sum(line.endswith(" abcd") for line in lines) == 800


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


def test_warnings() -> None:
    assert warning(Warned("text")) == "WARNING: text"
    assert warning(Warned("text", "Dockerfile:1")) == "WARNING: Dockerfile:1: text"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"), (1, "1B"), (999, "999B"), (1000, "1kB"), (1234, "1.23kB"), (999_499, "999kB"), (999_999, "1MB"),
        (1_500_000, "1.5MB"), (12_345_678, "12.3MB"), (5_000_000_000, "5GB"), (10**12, "1TB"), (10**16, "1e+04TB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


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
