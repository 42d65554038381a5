"""Roots that are made before their commands come."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.sandbox.client import Sandbox
from builder.sandbox.command import Command, Mount
from tests.sandbox.outcome import PATH, Run


@pytest.fixture
def own(run: Run) -> Iterator[Sandbox]:
    """A sandbox with a process ahead."""
    with Sandbox() as sandbox:
        assert run("true", by=sandbox).result.exit_status == 0
        yield sandbox


def foresee(sandbox: Sandbox, **fields: Any) -> None:
    """Say what comes, and wait until its layers are open."""
    opened = sandbox.foresee(Command((), root="next", **fields))
    try:
        poll = select.poll()
        poll.register(opened, select.POLLIN)
        assert poll.poll(10_000)
        assert os.read(opened, 1) == b""
    finally:
        os.close(opened)


def test_its_layers_may_have_got_other_names(
    run: Run, own: Sandbox, busybox: Path, overlay: Callable[[], tuple[str, str]], tmp_path: Path
) -> None:
    first = run("echo one > /one; mkdir /etc/new", by=own)
    upper, work = overlay()
    foresee(own, lowers=(str(first.upper), str(busybox)), upper=upper, work=work, directory="/work")
    first.upper.rename(tmp_path / "snapshot")
    fields: dict[str, Any] = {"upper": upper, "work": work, "directory": "/work", "root": "next", "by": own}
    found = run("cat /one; ls /etc; pwd; echo two > /two", lowers=(str(first.upper), str(busybox)), **fields)
    assert (found.result.exit_status, found.err) == (0, "")
    assert found.out == "one\nnew\n/work\n"
    assert sorted(os.listdir(upper)) == ["two", "work"]
    assert sorted(os.listdir(tmp_path / "snapshot")) == ["etc", "one"]


@pytest.mark.parametrize("status", [0, 3])
def test_while_a_command_runs(
    run: Run, own: Sandbox, busybox: Path, overlay: Callable[[], tuple[str, str]], tmp_path: Path, status: int
) -> None:
    """It is made when that has ended, over what that has written; not ahead if that fails."""
    first, (upper, work) = overlay(), overlay()
    lowers = (first[0], str(busybox))
    signal = tmp_path / "signal"
    signal.mkdir()
    opened: list[int] = []

    def meanwhile() -> None:
        opened.append(own.foresee(Command((), root="next", lowers=lowers, upper=upper, work=work)))
        poll = select.poll()
        poll.register(opened[0], select.POLLIN)
        assert not poll.poll(100)
        (signal / "go").touch()

    wait = f"while ! test -e /tmp/go; do sleep 0.01; done; mkdir /etc/new; exit {status}"
    shown = Mount("/tmp", "bind", source=str(signal))
    ended = run(wait, upper=first[0], work=first[1], mounts=(shown,), meanwhile=meanwhile, by=own)
    assert ended.result.exit_status == status
    assert os.read(opened[0], 1) == b""
    os.close(opened[0])
    found = run("ls /etc", lowers=lowers, upper=upper, work=work, root="next", by=own)
    assert (found.result.exit_status, found.out, found.err) == (0, "new\n", "")


@pytest.mark.parametrize("fields", [{}, {"root": "another"}, {"network": "none"}, {"mounts": (Mount("/m", "tmpfs"),)}])
def test_another_command_comes(
    run: Run, own: Sandbox, busybox: Path, overlay: Callable[[], tuple[str, str]], fields: dict[str, Any]
) -> None:
    upper, work = overlay()
    foresee(own, lowers=(str(busybox),), upper=upper, work=work)
    assert run("echo on > /f; cat /f", by=own, **fields).out == "on\n"
    assert run("echo again", by=own).out == "again\n"


@pytest.mark.parametrize(
    "fields",
    [{"directory": "/etc"}, {"uid": 7}, {"hosts": "1.2.3.4 a\n"}, {"mounts": (Mount("/m", "tmpfs"),)}],
)
def test_a_command_of_another_shape_is_refused(
    run: Run, own: Sandbox, busybox: Path, overlay: Callable[[], tuple[str, str]], fields: dict[str, Any]
) -> None:
    """Rather than given a root that is not its own."""
    upper, work = overlay()
    foresee(own, lowers=(str(busybox),), upper=upper, work=work)
    result = run("true", by=own, upper=upper, work=work, root="next", **fields).result
    assert result.setup_failed
    assert result.error == "the command is not the one that was foreseen"
    assert run("true", by=own).result.exit_status == 0


def test_a_root_that_cannot_be_made(
    run: Run, own: Sandbox, busybox: Path, overlay: Callable[[], tuple[str, str]], tmp_path: Path
) -> None:
    upper, work = overlay()
    foresee(own, lowers=(str(tmp_path / "none"), str(busybox)), upper=upper, work=work)
    result = run("true", by=own, upper=upper, work=work, root="next").result
    assert result.setup_failed
    assert f"{tmp_path}/none: No such file" in result.error
    assert run("true", by=own).result.exit_status == 0


def test_nobody_is_ahead(run: Run, busybox: Path, overlay: Callable[[], tuple[str, str]]) -> None:
    upper, work = overlay()
    with Sandbox() as own:
        foresee(own, lowers=(str(busybox),), upper=upper, work=work)
        assert run("echo on", by=own, upper=upper, work=work, root="next").out == "on\n"


def test_nothing_comes(own: Sandbox, busybox: Path, overlay: Callable[[], tuple[str, str]]) -> None:
    upper, work = overlay()
    foresee(own, lowers=(str(busybox),), upper=upper, work=work)
    own.close()
    os.close(own.foresee(Command((), upper=upper, work=work)))  # which is closed


def test_what_a_root_depends_on_is_its_shape() -> None:
    base: dict[str, Any] = {"upper": "u", "work": "w", "environment": (PATH,)}
    shape = Command(("a",), **base).shape()
    free: dict[str, Any] = {
        "environment": (), "lowers": ("l",), "upper": "v", "work": "x", "groups": (1,), "hostname": "h",
        "ulimits": (("nofile", 1, 1),), "terminal": (1, 1), "root": "r",
    }  # fmt: skip
    assert Command(("b",), **free).shape() == shape
    others: dict[str, Any] = {
        "mounts": (Mount("/m", "tmpfs"),), "directory": "/d", "uid": 1, "gid": 1,
        "network": "none", "security": "insecure", "hosts": "h", "resolv_conf": "r", "shm_size": 1, "memory": 1,
        "cpus": 1.0,
    }  # fmt: skip
    assert {*free, *others, "arguments"} == set(Command.__slots__)
    for name, value in others.items():
        assert Command(("a",), **{**base, name: value}).shape() != shape
