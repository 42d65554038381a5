"""Steps where no namespaces and mounts can be made: the same images, and what cannot be done is refused."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from builder.store.mounts import hold
from tests.support.archives import archive
from tests.support.builds import BASE, PROJECT, Cli, Done, Log, busybox_context, needs_sandbox, reading

pytestmark = needs_sandbox

# Becomes its arguments without CAP_SYS_ADMIN, as in a container that is not privileged.
WITHOUT = """\
import os, sys
from builder.sandbox import capabilities
present = capabilities.bounding()
capabilities.limit_bounding(present, present & ~(1 << capabilities.SYS_ADMIN))
os.execv(sys.executable, [sys.executable, "-m", "builder", *sys.argv[1:]])
"""
EVERYTHING = f"""\
{BASE}
FROM base AS made
COPY --chown=7:8 data /data
RUN mkdir -p /a/b /a/c /gone /dir && echo x > /a/b/f && ln /a/b/f /a/hard && ln -s ../a/b /a/soft && touch /gone/1 /file
RUN echo more >> /a/b/f && chmod 640 /data && rm -r /gone /a/c && mkdir /gone && touch /gone/2 && mv /a/hard /a/moved
RUN rm /file && mkdir /file && touch /file/in && rmdir /dir && echo y > /dir && chmod 1777 /a && chmod 700 /
USER 7:8
WORKDIR /work/here
RUN echo mine > mine && stat -c %u:%g mine .
USER 0
RUN --mount=type=cache,target=/cache,id=c --mount=type=secret,id=s,target=/run/secrets/s \\
    --mount=type=tmpfs,target=/tmp/t --mount=type=bind,from=base,source=/bin,target=/mnt/bin \\
    cat /run/secrets/s > /dev/null && echo c >> /cache/log && echo t > /tmp/t/x && test -e /mnt/bin/sh && touch /run/own
RUN --mount=type=cache,target=/cache,id=c wc -l < /cache/log > /count
RUN <<script
#!/bin/sh
echo from a script > /script
script
FROM base
COPY --from=made / /
"""


class Unprivileged(Cli):
    """`builder` without CAP_SYS_ADMIN."""

    def start(self, *arguments: str | os.PathLike[str], **options: object) -> subprocess.Popen[bytes]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        command = [sys.executable, "-c", WITHOUT, *self.arguments(*arguments)]
        return subprocess.Popen(command, env=self.environ, cwd=PROJECT, **pipes)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def cli(tmp_path: Path) -> Unprivileged:
    return Unprivileged(tmp_path / "store")


def build(cli: Cli, tmp_path: Path, commands: str, *options: str) -> Done:
    source = tmp_path / "context"
    if not source.exists():
        busybox_context(source)
    (source / "Dockerfile").write_text(BASE + commands)
    return cli.spawn("build", "--progress", "plain", *options, "-t", "x", source)


def test_the_same_image_as_with_namespaces(cli: Unprivileged, tmp_path: Path) -> None:
    source = busybox_context(tmp_path / "context")
    (source / "data").write_bytes(os.urandom(1000))
    (source / "Dockerfile").write_text(EVERYTHING)
    (tmp_path / "secret").write_text("hush")
    words = ("build", "--secret", f"id=s,src={tmp_path}/secret", "-t", "x", "--target", "made", str(source))
    done = cli.spawn(*words)
    assert done.status == 0, done.err
    (tmp_path / "other").mkdir()
    other = Cli(tmp_path / "other/store")
    expected = other.spawn(*words)
    assert expected.status == 0, expected.err
    ours = {path: entry._replace(mtime=0.0) for path, entry in cli.files("x").items()}
    assert ours == {path: entry._replace(mtime=0.0) for path, entry in other.files("x").items()}
    assert ours["count"].content == b"1\n"
    assert ours["a/b/f"].content == b"x\nmore\n"
    assert "run/secrets" not in ours
    assert (ours["work/here"].uid, ours["work/here"].gid) == (7, 8)
    assert cli.config("x")["rootfs"]["diff_ids"][0] == other.config("x")["rootfs"]["diff_ids"][0]
    assert cli.leftovers() == []
    assert cli.spawn("fsck", "-n", "--deep").status == 0
    again = cli.spawn("build", "--progress", "plain", *words[1:])
    assert again.cached() >= 8


def test_a_step_does_not_reach_the_layers(cli: Unprivileged, tmp_path: Path) -> None:
    done = build(cli, tmp_path, "RUN echo 1 > /f\nRUN echo changed > /f; echo '#!' > /bin/mv; rm /bin/cp\nRUN cat /f\n")
    assert done.status == 0, done.err
    assert " changed\n" in done.err
    assert cli.spawn("fsck", "-n", "--deep").out.endswith(b"everything is in order\n")


def test_devices_of_images_and_caches_are_not_there(cli: Unprivileged, tmp_path: Path) -> None:
    """They would be the host's; and that they are not there is nothing that the step did."""
    devices = archive(
        ("kmsg", {"type": tarfile.CHRTYPE, "device": (1, 11), "mode": 0o666}),
        ("disk", {"type": tarfile.BLKTYPE, "device": (7, 0), "mode": 0o666}),
        ("null", {"type": tarfile.CHRTYPE, "device": (1, 3), "mode": 0o666}),
    )
    (tmp_path / "devices.tar").write_bytes(devices)
    assert cli.spawn("import", tmp_path / "devices.tar", "devices").status == 0
    commands = (
        "FROM devices\nCOPY --from=base / /\nENV PATH=/bin\n"
        "RUN ! test -e /kmsg && ! test -e /disk && echo x > /null && touch /done\n"
        "RUN --mount=type=bind,from=devices,target=/mnt ! test -e /mnt/kmsg && ! test -e /mnt/disk\n"
    )
    done = build(cli, tmp_path, commands)
    assert done.status == 0, done.err
    assert {"done", "kmsg", "disk", "null"} <= cli.files("x").keys()


def test_a_cache_is_one_command_s_at_a_time(cli: Unprivileged, tmp_path: Path) -> None:
    """Another that has it could lead the copying elsewhere. Two mounts of one command do not wait for each other."""
    mounts = "".join(f"--mount=type=cache,id=c,target=/{name},sharing={name} " for name in ("shared", "locked"))
    done = build(cli, tmp_path, f"RUN {mounts} echo x > /shared/f\nRUN {mounts} test -e /locked/f\n")
    assert done.status == 0, done.err
    (mount,) = (cli.root / "mounts").iterdir()
    held = hold(str(mount), fcntl.LOCK_SH)
    waiting = cli.start("build", "--no-cache", tmp_path / "context")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.communicate(timeout=2)
    os.close(held)
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 0, err


def test_opaque_directories_and_whiteouts_of_pulled_layers(cli: Unprivileged, tmp_path: Path) -> None:
    commands = "RUN mkdir /d; touch /d/1 /d/2 /e\nRUN rm -r /d /e; mkdir /d; touch /d/3\n"
    (tmp_path / "full").mkdir()
    full = Cli(tmp_path / "full/store")
    assert build(full, tmp_path, commands).status == 0
    assert full("save", "-o", str(tmp_path / "x.tar"), "x").status == 0
    assert cli.spawn("load", "-i", tmp_path / "x.tar").status == 0
    (tmp_path / "context/Dockerfile").write_text("FROM x\nRUN ls /d; ls / | sort > /names\n")
    done = cli.spawn("build", "-t", "y", "--progress", "plain", tmp_path / "context")
    assert done.status == 0, done.err
    assert "e" not in (cli.files("y")["names"].content or b"").decode().split()
    assert " 3\n" in done.err
    assert " 1\n" not in done.err


def test_what_a_step_may(cli: Unprivileged, tmp_path: Path) -> None:
    """No way out of the chroot, no devices, no host files, no builder's environment or descriptors."""
    checks = (
        "test ! -e /home && test ! -e /proc/1",
        "! /bin/busybox chroot / /bin/true",
        "! /bin/busybox mknod /d b 1 1",
        "! /bin/busybox mount -t tmpfs none /tmp",
        "! /bin/busybox unshare -m true",
        'test -z "$PYTHONPATH$HOSTONLY"',
        "! echo 2>/dev/null >&3 && ! echo 2>/dev/null >&4 && ! echo 2>/dev/null >&5",
        "test $(/bin/busybox id -u) = 0",
        "(ulimit -n 77 && true)",
        "echo x > /dev/null && test -c /dev/null",
    )
    cli.environ["HOSTONLY"] = "1"
    script = "\n".join(f"RUN {check}" for check in checks)
    done = build(
        cli, tmp_path, f"{script}\nUSER 99\nRUN ! touch /bin/x 2> /dev/null; test $(/bin/busybox id -u) = 99\n"
    )
    assert done.status == 0, done.err


def test_ulimits_and_hosts(cli: Unprivileged, tmp_path: Path) -> None:
    options = ("--ulimit", "nofile=99:99", "--add-host", "there:10.1.2.3")
    done = build(cli, tmp_path, "RUN ulimit -n; cat /etc/hosts\n", *options)
    assert done.status == 0, done.err
    assert " 99\n" in done.err
    assert " 10.1.2.3\tthere\n" in done.err
    assert not [path for path in cli.files("x") if path.startswith("etc")]


def test_errors_are_those_of_the_command(cli: Unprivileged, tmp_path: Path) -> None:
    done = build(cli, tmp_path, "RUN exit 7\n")
    assert "status 7" in done.err
    done = build(cli, tmp_path, 'RUN ["/nothing"]\n')
    assert "could not be started" in done.err
    done = build(cli, tmp_path, "RUN kill -9 $$\n")
    assert "signal 9" in done.err
    assert cli.leftovers() == []


@pytest.fixture
def mark() -> str:
    """A number of seconds to sleep that no other process sleeps, to find ours by."""
    return f"{2000 + os.getpid()}.{int.from_bytes(os.urandom(3), 'big')}"


def sleeping(mark: str) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[-2:-1] == [mark.encode()]:
                found.append(entry)
    return found


def none_sleeps(mark: str) -> bool:
    deadline = time.monotonic() + 10
    while sleeping(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def begin(cli: Unprivileged, tmp_path: Path, mark: str) -> subprocess.Popen[bytes]:
    source = busybox_context(tmp_path / "context", f"RUN echo begun; (sleep {mark} &); (sleep {mark} & sleep {mark})\n")
    return cli.start("build", "--progress", "plain", source)


def test_what_a_step_leaves_running_ends(cli: Unprivileged, tmp_path: Path, mark: str) -> None:
    done = build(cli, tmp_path, f"RUN (sleep {mark} &); (/bin/busybox setsid sleep {mark} &); sleep 0.1\n")
    assert done.status == 0, done.err
    assert sleeping(mark) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_step_ends_with_the_builder(cli: Unprivileged, tmp_path: Path, mark: str, number: signal.Signals) -> None:
    log: Log
    with reading(begin(cli, tmp_path, mark)) as log:
        log.wait_for(" begun\n")
        log.process.send_signal(number)
        assert log.process.wait(20) == (130 if number is signal.SIGINT else -9)
    assert none_sleeps(mark)
    if number is signal.SIGINT:
        assert cli.leftovers() == []
    else:
        done = build(cli, tmp_path, "RUN true\n")
        assert done.status == 0, done.err
        assert cli.leftovers() == []


def test_the_choice(tmp_path: Path, cli: Unprivileged) -> None:
    source = busybox_context(tmp_path / "context", "RUN test ! -e /proc/self && echo chosen\n")
    done = cli.spawn("--debug", "build", "--progress", "plain", source)
    assert "isolation: chroot: this process lacks CAP_SYS_ADMIN" in done.err
    assert done.status == 0, done.err
    full = Cli(tmp_path / "full")
    done = full.spawn("--debug", "build", "--isolation", "chroot", "--progress", "plain", source)
    assert "isolation: chroot: --isolation=chroot asks for it" in done.err
    assert done.status == 0, done.err
    done = full.spawn("--debug", "build", "--no-cache", source)
    assert "isolation: namespaces: " in done.err
    assert done.status == 1
    assert full.spawn("build", "--isolation", "process", source).status == 1


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    source = busybox_context(tmp_path / "context", "RUN true\n")
    cli = Unprivileged(tmp_path / "store")
    less = WITHOUT.replace("~(1 << capabilities.SYS_ADMIN)", "~(1 << 21 | 1 << 18)")
    command = [sys.executable, "-c", less, *cli.arguments("build", source)]
    done = subprocess.run(command, env=cli.environ, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs CAP_SYS_CHROOT, which this process lacks" in done.stderr
