"""What a command says is heard up to a limit: a build's log can be as long as its steps like."""

from __future__ import annotations

import sys

import pytest

from builder.cli.echo import MOST, listening
from builder.cli.progress import PlainView
from builder.progress import StepOutput, StepStarted


def test_what_is_said_is_heard_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as (output, errors):
        print("one")
        print("two", file=sys.stderr)
    assert (output.heard, errors.heard) == ("one\n", "two\n")
    assert tuple(capsys.readouterr()) == ("one\n", "two\n")


def test_what_is_too_long_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as (output, errors):
        view = PlainView(sys.stderr)
        view(StepStarted("step", "RUN make"))
        for _ in range(100):
            view(StepOutput("step", b"x" * 1000 + b"\n"))
        print("done")
    assert (output.heard, errors.heard) == ("done\n", None)
    assert len(capsys.readouterr().err) > 100_000 > MOST


def test_nothing_is_kept_where_nothing_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(most=0) as (output, errors):
        print("one")
    assert (output.heard, errors.heard) == (None, "")
    assert capsys.readouterr().out == "one\n"
