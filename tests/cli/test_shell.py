"""`builder shell`: the image's shell, on a terminal and from a script."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.builds import Cli, busybox_context, needs_sandbox
from tests.support.terminal import Program

pytestmark = needs_sandbox


def test_commands_from_standard_input(cli: Cli, tmp_path: Path) -> None:
    cli.build("-t", "app", busybox_context(tmp_path / "context", 'WORKDIR /srv\nENTRYPOINT ["false"]\n'))
    done = cli.spawn("shell", "app", stdin=b"pwd\necho $0\nexit 5\n")
    assert (done.status, done.out, done.err) == (5, b"/srv\n/bin/sh\n", "")
    assert cli.spawn("shell", "-w", "/tmp", "app", "-c", "pwd").out == b"/tmp\n"


def test_the_shell_that_the_image_names(cli: Cli, tmp_path: Path) -> None:
    context = busybox_context(tmp_path / "context", 'SHELL ["/bin/ash", "-e", "-c"]\n')
    (context / "base/bin/ash").symlink_to("busybox")
    (context / "base/bin/bash").symlink_to("sh")
    cli.build("-t", "app", context)
    assert cli.spawn("shell", "app", stdin=b"echo $0\n").out == b"/bin/ash\n"


def test_bash_is_preferred(cli: Cli, tmp_path: Path) -> None:
    context = busybox_context(tmp_path / "context")
    (context / "base/opt").mkdir()
    (context / "base/opt/bash").write_text("#!/bin/sh\necho bash $1\n")
    (context / "base/opt/bash").chmod(0o755)
    (context / "base/bin/bash").symlink_to("/opt/bash")
    cli.build("-t", "app", context)
    assert cli.spawn("shell", "app", "argument").out == b"bash argument\n"


def test_an_image_without_a_shell(cli: Cli, tmp_path: Path) -> None:
    context = busybox_context(tmp_path / "context")
    (context / "base/bin/sh").unlink()
    cli.build("-t", "app", context)
    done = cli.spawn("shell", "app")
    assert done.status == 125
    assert done.err.startswith("error: app: the image has no shell\nhelp: 'builder ls'")


def test_a_terminal(cli: Cli, tmp_path: Path) -> None:
    cli.build("-t", "app", busybox_context(tmp_path / "context"))
    program = Program([sys.executable, "-m", "builder", *cli.arguments("shell", "app")], cli.environ)
    program.write("test -t 0 && echo on a ''terminal; exit 3\r")
    program.read_until("on a terminal\r\n")
    assert program.status() == 3
    program.close()
