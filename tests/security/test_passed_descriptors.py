"""Two commands that work together: one passes the other a descriptor of its root, over a socket that both can reach.

Descriptors outlive the command that opened them, and lead `..` where that command itself could not go.
"""

from __future__ import annotations

import errno
import os
import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from builder.sandbox import landlock
from builder.sandbox.chroot import ChrootSandbox
from builder.sandbox.command import Mount
from tests.sandbox.outcome import Outcome, Run
from tests.security.attempts import Call, program, results
from tests.support.builds import BASE, PROJECT, Cli, Done, busybox_context, needs_sandbox
from tests.support.together import together

pytestmark = [
    needs_sandbox,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="runs a program that is built for x86-64"),
]
needs_landlock = pytest.mark.skipif(not landlock.is_able(), reason="needs Linux 6.12 with Landlock")

TRIES = 8
DIRECTORY, NEW_FILE = os.O_RDONLY | os.O_DIRECTORY, os.O_CREAT | os.O_WRONLY


def address(name: str) -> bytes:
    """A Unix socket's, abstract for `@NAME`."""
    return struct.pack("<H", socket.AF_UNIX) + name.encode().replace(b"@", b"\0")


def message(control: bytes, to: bytes = b"") -> tuple[bytes | int | tuple[bytes | int, ...], ...]:
    """A `struct msghdr` of one byte."""
    return (to or 0, len(to), (b"x", 1), 1, control, len(control), 0)


def pause(seconds: float) -> Call:
    return (35, struct.pack("<QQ", int(seconds), int(seconds % 1 * 1e9)), 0)


def sender(to: str, path: str = "/", flags: int = DIRECTORY, *, tries: int = TRIES) -> list[tuple[str, Call]]:
    """Opens a path and passes that on, as soon as somebody is there who takes it; then ends."""
    passed = struct.pack("<QIIiI", 20, socket.SOL_SOCKET, socket.SCM_RIGHTS, 3, 0)
    sends = [(f"{what} {i}", call) for i in range(tries) for what, call in (
        ("pause", pause(0.1)), ("send", (46, 4, message(passed, address(to)), 0)),
    )]  # fmt: skip
    return [("open", (2, path.encode(), flags, 0o600)), ("socket", (41, socket.AF_UNIX, socket.SOCK_DGRAM, 0)), *sends]


def receiver(at: str, path: str, *, after: float, patience: int = 1) -> list[tuple[str, Call]]:
    """Waits for a descriptor, and makes a file from there when its sender has long ended."""
    limit = struct.pack("<QQ", patience, 0)
    return [
        ("socket", (41, socket.AF_UNIX, socket.SOCK_DGRAM, 0)),
        ("limit", (54, 3, socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit, len(limit))),
        ("bind", (49, 3, address(at), len(address(at)))),
        ("receive", (47, 3, message(bytes(24)), 0)),
        ("pause", pause(after)),
        ("write", (257, 4, path.encode(), NEW_FILE, 0o600)),
    ]


class Pair:
    """What a sender and a receiver, run at the same time, came to. Both begin when both are there, if they are given a
    directory to meet in."""

    def __init__(
        self,
        run: Run,
        sends: list[tuple[str, Call]],
        receives: list[tuple[str, Call]],
        *,
        meeting: Path | None = None,
        mounts: tuple[Mount, ...] = (),
        **fields: object,
    ) -> None:
        self.run, self.fields, self.mounts, self.wait = run, fields, mounts, ":"
        if meeting is not None:
            meeting.mkdir()
            self.mounts = (*mounts, Mount("/meeting", source=str(meeting), read_only=False))
            there = "test $(ls /meeting | wc -l) = 2 || test $((n += 1)) = 1000"
            self.wait = f"touch /meeting/$NAME; until {there}; do sleep 0.02; done"
        self.outcomes: dict[str, Outcome] = {}
        steps = {"sender": sends, "receiver": receives}
        together(*(partial(self._step, *step) for step in steps.items()))
        self.calls = {
            name: results(bytes.fromhex(self.outcomes[name].out), [what for what, _ in calls])
            for name, calls in steps.items()
            if self.outcomes[name].out
        }

    def _step(self, name: str, calls: list[tuple[str, Call]]) -> None:
        content = program([call for _, call in calls])
        mounts = (Mount("/attempt", "file", content=content, mode=0o755), *self.mounts)
        command = f"NAME={name}; {self.wait}; /attempt | od -An -v -tx1"
        self.outcomes[name] = self.run(command, mounts=mounts, **self.fields)

    @property
    def sent(self) -> set[int]:
        return {value for name, value in self.calls["sender"].items() if name.startswith("send")}


@pytest.fixture
def name() -> str:
    """An abstract socket's that nobody else uses."""
    return f"@builder-{os.getpid()}-{os.urandom(4).hex()}"


@pytest.fixture(scope="module")
def chroot() -> Iterator[ChrootSandbox]:
    with closing(ChrootSandbox()) as sandbox:
        yield sandbox


@needs_landlock
def test_abstract_sockets_of_another_command(run: Run, name: str, tmp_path: Path) -> None:
    pair = Pair(run, sender(name), receiver(name, "poison", after=0), meeting=tmp_path / "meeting")
    assert pair.calls["receiver"]["bind"] == 0
    assert pair.sent <= {errno.EPERM, errno.ECONNREFUSED}
    assert errno.EPERM in pair.sent
    assert pair.calls["receiver"]["receive"] == errno.EAGAIN


def test_a_commands_own_abstract_sockets(run: Run, name: str) -> None:
    both: list[tuple[str, Call]] = [
        ("server", (41, socket.AF_UNIX, socket.SOCK_DGRAM, 0)),
        ("bind", (49, 3, address(name), len(address(name)))),
        ("client", (41, socket.AF_UNIX, socket.SOCK_DGRAM, 0)),
        ("connect", (42, 4, address(name), len(address(name)))),
    ]
    mounts = (Mount("/attempt", "file", content=program([call for _, call in both]), mode=0o755),)
    outcome = run("/attempt | od -An -v -tx1", mounts=mounts)
    assert results(bytes.fromhex(outcome.out), [what for what, _ in both])["connect"] == 0


@needs_landlock
def test_abstract_sockets_of_another_command_in_a_chroot(
    run: Run, chroot: ChrootSandbox, name: str, tmp_path: Path
) -> None:
    """What was opened in a chroot leads out of it for a process in another chroot."""
    way_out = f"{'../' * 40}{tmp_path}/poison".replace("//", "/")
    receives = receiver(name, way_out, after=0.1, patience=4)  # they cannot meet: mounts are copied
    pair = Pair(run, sender(name, tries=40), receives, by=chroot)
    assert not (tmp_path / "poison").exists()
    assert errno.EPERM in pair.sent
    assert pair.calls["receiver"]["receive"] == errno.EAGAIN


def test_a_root_cannot_be_written_to_after_its_command(run: Run, tmp_path: Path) -> None:
    """A cache mount is another place for a socket."""
    (tmp_path / "shared").mkdir()
    cache = Mount("/c", source=str(tmp_path / "shared"), read_only=False)
    receives = receiver("/c/socket", "poison", after=TRIES * 0.1 + 0.5)
    pair = Pair(run, sender("/c/socket"), receives, meeting=tmp_path / "meeting", mounts=(cache,))
    assert pair.calls["receiver"]["receive"] <= 0
    assert pair.calls["receiver"]["write"] == errno.EROFS
    assert pair.outcomes["sender"].result.exit_status == 0
    assert "poison" not in pair.outcomes["sender"].changed()


def test_a_file_that_stays_open_for_writing_fails_its_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    cache = Mount("/c", source=str(tmp_path / "shared"), read_only=False)
    sends = sender("/c/socket", "/file", NEW_FILE)
    receives = receiver("/c/socket", "poison", after=TRIES * 0.1 + 0.5)
    pair = Pair(run, sends, receives, meeting=tmp_path / "meeting", mounts=(cache,))
    assert pair.calls["receiver"]["receive"] <= 0
    result = pair.outcomes["sender"].result
    assert result.exit_status is None
    assert "open for writing" in result.error
    assert result.setup_failed


# --- by the real command, in a chroot

# A filter of system calls that the builder is under, as most containers are.
FILTERED = """\
import os, sys, struct
from builder.sandbox import capabilities, syscalls
program = [(0x20, 0, 0, 0), (0x15, 0, 1, {refused}), (0x06, 0, 0, 0x00050026), (0x06, 0, 0, 0x7FFF0000)]
syscalls.install_filter(b"".join(struct.pack("=HBBI", *one) for one in program))
present = capabilities.bounding()
capabilities.limit_bounding(present, present & ~(1 << capabilities.SYS_ADMIN))
os.execv(sys.executable, [sys.executable, "-m", "builder", *sys.argv[1:]])
"""
LANDLOCK, NOTHING = 444, 0xFFFF


def built(cli: Cli, refused: int, *arguments: str) -> Done:
    """`builder` without CAP_SYS_ADMIN, and with a system call less."""
    command = [sys.executable, "-c", FILTERED.format(refused=refused), *cli.arguments(*arguments)]
    done = subprocess.run(command, env=cli.environ, cwd=PROJECT, capture_output=True, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize(
    ("refused", "user"), [(LANDLOCK, 0), (NOTHING, 99)], ids=["no Landlock", "a user whom it cannot confine"]
)
def test_commands_that_nothing_confines_run_alone(tmp_path: Path, name: str, refused: int, user: int) -> None:
    (tmp_path / "host").mkdir(mode=0o777)
    way_out = f"{'../' * 40}{tmp_path}/host/poison".replace("//", "/")
    made = busybox_context(tmp_path / "c")
    for what, calls in (("send", sender(name)), ("receive", receiver(name, way_out, after=0.1))):
        (made / what).write_bytes(program([call for _, call in calls]))
        (made / what).chmod(0o755)
    (made / "Dockerfile").write_text(
        f"{BASE}COPY send receive /\n"
        f"FROM base AS a\nUSER {user}\nRUN /send > /dev/null\n"
        "FROM base AS b\nRUN /receive > /dev/null\n"
        "FROM scratch\nCOPY --from=a /send /a\nCOPY --from=b /send /b\n"
    )
    done = built(Cli(tmp_path / "store"), refused, "build", "--progress", "plain", str(made))
    assert done.status == 0, done.err
    assert list((tmp_path / "host").iterdir()) == []
