"""What the helper and the guard of a chroot do when something goes wrong, and what those that ended tell them."""

from __future__ import annotations

import _socket
import errno
import fcntl
import marshal
import os
import select
import threading
import time
from pathlib import Path

import pytest

from builder.sandbox import cgroups, chroot_copy, chroot_guard, namespaces, running, syscalls
from builder.sandbox.chroot_copy import remove_tree
from builder.sandbox.command import Command, Mount, Profile, Result
from builder.sandbox.helper import Helper
from builder.sandbox.messages import read_value, report, send_descriptors, write_value
from builder.sandbox.running import Running
from builder.sandbox.step import Reports
from tests.sandbox.outcome import Run

PROFILE = Profile("default", "sandbox", 0, 0, 0.0)


class Group:
    """In place of a control group."""

    here = 0

    def __init__(self, name: str, profile: Profile) -> None:
        Group.here += 1

    def remove(self) -> bool:
        Group.here -= 1
        return True


class Waits:
    """In place of a step: waits for its command."""

    def __init__(self, helper: Helper, profile: Profile, commands: _socket.socket, group: Group) -> None:
        self.commands = commands

    def run(self) -> None:
        self.commands.recv(1)


def refuse(*_: object) -> int:
    raise OSError(errno.EAGAIN, "no more processes")


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Helper:
    """A helper without namespaces."""
    monkeypatch.setattr(Group, "here", 0)
    monkeypatch.setattr(cgroups, "ControlGroup", Group)
    monkeypatch.setattr(cgroups, "needed", lambda profile: True)
    monkeypatch.setattr(running, "Step", Waits)
    monkeypatch.setattr(namespaces, "fork_into_pid_namespace", lambda own: os.fork())
    made = Helper.__new__(Helper)
    made.pid_namespace, made.count, made.name, made.shared = -1, 0, "test", ()
    made.spare, made.leaving, made.running, made.poll = None, [], {}, select.poll()
    return made


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_of_a_process_that_cannot_be_forked(quiet: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "fork_into_pid_namespace", refuse)
    before = descriptors()
    for _ in range(3):
        with pytest.raises(OSError, match="no more processes"):
            Running(quiet, PROFILE, "x")
    assert descriptors() == before
    assert Group.here == 0


@pytest.mark.parametrize("with_spare", [False, True])
def test_nothing_is_left_of_a_process_that_cannot_be_watched(
    quiet: Helper, monkeypatch: pytest.MonkeyPatch, with_spare: bool
) -> None:
    control, theirs = _socket.socketpair()
    command = os.open(os.devnull, os.O_RDONLY)
    before = descriptors()
    quiet.spare = quiet._fork(PROFILE) if with_spare else None
    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="no more processes"):
        quiet._start(PROFILE, "", [command, theirs.fileno()])
    assert descriptors() == before
    assert len(quiet.leaving) == 1
    deadline = time.monotonic() + 5
    while quiet.leaving and time.monotonic() < deadline:
        quiet._forget_what_is_gone()
    assert quiet.leaving == []
    assert Group.here == 0
    control.close()
    theirs.close()
    os.close(command)


def test_a_request_is_taken_before_descriptors_are_closed(quiet: Helper) -> None:
    """In whatever order they are reported: the new command could get the number of one that is closed."""
    turns = iter([[(7, 1), (8, 1), (-1, 1)], [(-1, 1)]])
    events: list[object] = []

    class Poll:
        def register(self, *_: object) -> None: ...

        def poll(self) -> list[tuple[int, int]]:
            return next(turns)

    class Ended:
        ended = 7

    def accept() -> bool:
        events.append("accept")
        return events.count("accept") < 2

    def finish(one: Running) -> None:
        events.append(one)
        quiet.running.clear()

    one = Ended()
    quiet.running = {7: one, 8: one}  # type: ignore[dict-item]
    quiet.poll, quiet.socket = Poll(), _socket.socket()  # type: ignore[assignment]
    requests = quiet.socket.detach()
    os.close(requests)
    quiet._accept, quiet._finish = accept, finish  # type: ignore[method-assign,assignment]
    quiet.serve()
    assert events == ["accept", one, "accept"]


def test_a_request_that_fails_otherwise_than_foreseen_is_answered(
    quiet: Helper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect ends that command, and not the helper with all others."""

    def fail(*_: object) -> Group:
        raise ValueError("cannot convert float NaN to integer")

    monkeypatch.setattr(cgroups, "ControlGroup", fail)
    requests, quiet.socket = _socket.socketpair()
    control, theirs = _socket.socketpair()
    command = os.open(os.devnull, os.O_RDONLY)
    profile = Profile("default", "sandbox", 0, 0, float("nan"))
    send_descriptors(requests, marshal.dumps((profile.pack(), "")), [command, theirs.fileno(), command, command])
    theirs.close()
    assert quiet._accept()
    result = Result.unpack(marshal.loads(control.recv(65536)))
    assert (result.error, result.setup_failed) == ("unexpected ValueError: cannot convert float NaN to integer", True)
    assert control.recv(1) == b""
    for one in (requests, quiet.socket, control):
        one.close()
    os.close(command)


# --- reports


def pair() -> tuple[_socket.socket, _socket.socket]:
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def test_reports_of_one_that_came_to_its_root() -> None:
    ours, theirs = pair()
    points = tuple(f"/{'x' * 4000}/{i}" for i in range(100))
    root, names = os.open("/", os.O_PATH), write_value(points)
    send_descriptors(theirs, b"r", [root, names])
    os.close(root)
    os.close(names)
    theirs.send(b"s" + report("no such file"))
    theirs.close()
    found = Reports(ours)
    assert (found.mount_points, found.error, found.setup_failed) == (points, "no such file", False)
    os.close(found.root)


def test_reports_of_one_that_did_not_take_its_command() -> None:
    ours, theirs = pair()
    ours.send(b"command")
    theirs.send(b"f" + report("there is no group"))
    theirs.close()
    found = Reports(ours)
    assert (found.root, found.error, found.setup_failed) == (-1, "there is no group", True)


def test_reports_of_one_that_said_nothing() -> None:
    ours, theirs = pair()
    theirs.close()
    found = Reports(ours)
    assert (found.root, found.mount_points, found.error) == (-1, (), "")


@pytest.mark.parametrize("text", ["", "short", "x" * 1000, "\U0001f9ea" * 100_000, "\udcff" * 5000])
def test_reports_fit_into_any_pipe(text: str) -> None:
    said = report(text)
    assert len(said) <= 4096 - len(b"set-up:")
    assert said.decode(errors="surrogateescape")[:499] == text[:499]
    assert said.decode(errors="surrogateescape")[-499:] == text[-499:]


def test_values_are_as_large_as_they_are() -> None:
    value = tuple("x" * 1000 for _ in range(3000))
    assert read_value(write_value(value)) == value


def test_an_error_longer_than_a_pipe(run: Run) -> None:
    """Also where the command could write no file of any size."""
    outcome = run(("a" * 80_000,), ulimits=(("fsize", 0, 0),))
    assert outcome.result.error.startswith('exec: "aaaa')
    assert not outcome.result.setup_failed
    assert len(outcome.result.error) < 2000


def test_mount_points_longer_than_a_pipe(run: Run) -> None:
    target = "/abcdefgh" * 160
    outcome = run("echo hi", mounts=(Mount(target, "tmpfs"),))
    assert outcome.out == "hi\n"
    assert target in outcome.result.mount_points


# --- the guard


def test_the_guard_answers_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = _socket.socketpair()
    monkeypatch.setattr(chroot_guard, "CONTROL", theirs.detach())
    monkeypatch.setattr(chroot_guard, "COMMAND", os.memfd_create("command"))

    def fail(*_: object) -> object:
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(chroot_guard, "read_command", fail)
    chroot_guard.main()
    result = Result.unpack(marshal.loads(ours.recv(65536)))
    assert (result.error, result.setup_failed) == ("unexpected RecursionError: maximum recursion depth exceeded", True)


@pytest.mark.parametrize("is_confined", [True, False])
def test_a_command_waits_for_its_turn_until_it_is_unwanted(monkeypatch: pytest.MonkeyPatch, is_confined: bool) -> None:
    command = Command(("true",), upper="/u", work="/w")
    monkeypatch.setattr(chroot_guard.Restraint, "__init__", lambda self, _: setattr(self, "is_confined", is_confined))
    restraint = chroot_guard.Restraint(command)
    ours, theirs = _socket.socketpair()
    alone, again = (os.open("/proc/self/ns/net", os.O_RDONLY) for _ in range(2))
    try:
        fcntl.flock(alone, fcntl.LOCK_EX)
        threading.Timer(0.1, fcntl.flock, (alone, fcntl.LOCK_UN)).start()
        turn = chroot_guard._await_turn(restraint, theirs)
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(turn)
        fcntl.flock(alone, fcntl.LOCK_EX)
        threading.Timer(0.1, ours.shutdown, (_socket.SHUT_WR,)).start()
        assert chroot_guard._await_turn(restraint, theirs) == -1
    finally:
        os.close(alone)
        os.close(again)


@pytest.mark.parametrize("of", ["many files", "a large file"])
def test_a_copy_ends_when_it_is_unwanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str) -> None:
    """It can take minutes."""
    for name in ("upper", "work", "layer"):
        (tmp_path / name).mkdir()
    for number in range(20):
        (tmp_path / f"layer/{number}").touch()
    command = Command(("true",), lowers=(f"{tmp_path}/layer",), upper=f"{tmp_path}/upper", work=f"{tmp_path}/work")
    monkeypatch.setattr(syscalls, "prctl", lambda *_: 0)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    ours, theirs = _socket.socketpair()
    calls: list[int] = []

    def hang_up(*arguments: object) -> int:
        calls.append(len(calls))
        if len(calls) == 3:
            ours.close()
        return 1 if len(calls) < 100 else 0

    if of == "many files":
        monkeypatch.setattr(chroot_copy, "copy_file", hang_up)
    else:
        monkeypatch.setattr(fcntl, "ioctl", refuse)
        monkeypatch.setattr(os, "sendfile", hang_up)
    result = chroot_guard._run(command, theirs)
    assert result.cancelled
    assert len(calls) == 3
    assert os.listdir(tmp_path / "work") == []
    theirs.close()


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A tree deeper than Python's stack, and longer than a path can be."""
    place = tmp_path / "deep"
    place.mkdir()
    here = os.open(place, os.O_RDONLY)
    name = "d" * 20
    for _ in range(1100):
        os.mkdir(name, dir_fd=here)
        os.close(os.open("f", os.O_CREAT, dir_fd=here))
        os.symlink(tmp_path, "link", dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    return place


def test_trees_are_removed_however_deep(deep: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    remove_tree(str(deep))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_links_are_removed_and_not_followed(tmp_path: Path, busybox: Path) -> None:
    (tmp_path / "link").symlink_to(busybox)
    remove_tree(str(tmp_path / "link"))
    remove_tree(str(tmp_path / "link"))
    assert list(tmp_path.iterdir()) == []
    assert (busybox / "bin").exists()
