"""Builds in a process of their own, for users that are not root, and interrupts."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest

import builder
from builder.api.build import build as core_build
from builder.api.options import BuildOptions
from builder.api.worker import call_apart, report_apart
from builder.progress import ignore
from tests.support.builds import busybox_context, needs_sandbox

build_apart = partial(report_apart, core_build)


def test_a_build_in_a_worker(root: Path, directory: Path) -> None:
    """What users that are not root get, as root."""
    options = BuildOptions(context=str(directory), tags=("app:1",), root=str(root), environ={})
    events: list[builder.Event] = []
    result = build_apart(options, events.append, None)
    assert result.image.tags == ("app:1",)
    assert any(isinstance(event, builder.StepDone) for event in events)
    with pytest.raises(builder.ContextError, match="does not exist"):
        build_apart(msgspec.structs.replace(options, context="/none"), ignore, None)
    options = msgspec.structs.replace(options, dockerfile="-")
    with pytest.raises(builder.DockerfileError, match="Dockerfile:1") as caught:
        build_apart(options, ignore, io.BytesIO(b"FORM scratch\n"))
    assert caught.value.remedy


class Breaking(io.RawIOBase):
    """A stream that ends with an error after its first half."""

    def __init__(self, half: bytes, error: Exception) -> None:
        self._half, self._error = half, error

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._half:
            raise self._error
        data, self._half = self._half, b""
        return data


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("error", [ConnectionResetError("reset by peer"), ValueError("cut short")], ids=repr)
def test_half_of_a_stream_is_not_built(root: Path, apart: bool, error: Exception) -> None:
    stream = Breaking(b"FROM scratch\nLABEL a=b\n", error)
    options = BuildOptions(context="-", root=str(root), environ={})
    with pytest.raises(type(error), match=str(error)):
        (build_apart if apart else core_build)(options, ignore, stream)  # type: ignore[arg-type]
    assert builder.images(root) == []


def test_a_worker_that_does_not_read_its_stream(root: Path) -> None:
    options = BuildOptions(context=str(root / "none"), root=str(root), environ={})
    with pytest.raises(builder.ContextError, match="does not exist"):
        build_apart(options, ignore, io.BytesIO(b"x" * (4 << 20)))


def test_a_worker_that_ends_in_the_middle_of_a_message() -> None:
    telling = "__import__('sys')._getframe(1).f_locals['telling']"
    with pytest.raises(builder.BuilderError, match="the worker process ended with status 7") as caught:
        call_apart(eval, f"({telling}.write(__import__('pickle').dumps('x' * 999)[:500]), __import__('os')._exit(7))")
    assert caught.value.remedy


def test_what_a_worker_cannot_send(tmp_path: Path) -> None:
    assert call_apart(os.path.basename, "/a/b") == "b"
    with pytest.raises(FileNotFoundError):
        call_apart(os.listdir, str(tmp_path / "none"))
    with pytest.raises(builder.BuilderError, match="cannot pickle"):
        call_apart(threading.Lock)
    with pytest.raises(builder.BuilderError, match="ended with status 7"):
        call_apart(os._exit, 7)


@needs_sandbox
@pytest.mark.parametrize("apart", [False, True])
def test_an_interrupt_ends_a_build(tmp_path: Path, root: Path, apart: bool) -> None:
    """As a notebook interrupts its kernel: a signal to the process, that Python turns into KeyboardInterrupt."""
    directory = busybox_context(tmp_path / "context", "RUN echo started; sleep 60\n")
    options = BuildOptions(context=str(directory), root=str(root), environ={})

    def on_event(event: builder.Event) -> None:
        if isinstance(event, builder.StepOutput):
            os.kill(os.getpid(), signal.SIGINT)

    build = build_apart if apart else core_build
    started = time.monotonic()
    with pytest.raises((KeyboardInterrupt, builder.Interrupted)):
        build(options, on_event, None)
    assert time.monotonic() - started < 30


@needs_sandbox
def test_an_interrupt_ends_a_build_that_writes_much(tmp_path: Path, root: Path) -> None:
    """The worker is not killed: it ends its steps, and records how the build ended."""
    directory = busybox_context(tmp_path / "context", "RUN yes\n")
    options = BuildOptions(context=str(directory), root=str(root), environ={})

    def on_event(event: builder.Event) -> None:
        if isinstance(event, builder.StepOutput):
            time.sleep(0.5)  # the pipe fills
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build_apart(options, on_event, None)
    assert time.monotonic() - started < 8
    assert [build.outcome for build in builder.Store(root).builds()] == ["interrupted"]
