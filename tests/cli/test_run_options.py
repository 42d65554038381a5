"""What a RUN step may use and sees: SSH agents, entitlements, networks, limits; with busybox on scratch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.sandbox.cgroups import ControlGroup
from builder.sandbox.command import Command, SandboxError
from tests.support.builds import Cli, Done, busybox_context, needs_sandbox

pytestmark = needs_sandbox

Run = Callable[..., Done]


@pytest.fixture
def run(cli: Cli, tmp_path: Path) -> Run:
    """Build with what follows RUN and options; nothing is cached but the base."""
    directory = busybox_context(tmp_path / "context")
    for name in ("dd", "df", "grep", "ip"):
        (directory / "base/bin" / name).symlink_to("busybox")
    dockerfile = (directory / "Dockerfile").read_text()

    def build(command: str, *options: str) -> Done:
        (directory / "Dockerfile").write_text(f"{dockerfile}RUN {command}\n")
        return cli("build", "--progress", "plain", *options, directory)

    return build


# --- SSH agents

needs_agent = pytest.mark.skipif(
    shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None,
    reason="needs ssh-agent (Debian package openssh-client)",
)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """The socket of an agent that has one key."""
    path = tmp_path / "agent.sock"
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "my key", "-f", tmp_path / "key"], check=True
        )
        environ = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", tmp_path / "key"], env=environ, check=True)
        yield path
        process.terminate()


@pytest.fixture
def client(tmp_path: Path, run: Run) -> None:
    """Puts ssh-add, and what it is linked with, into the image."""
    base = tmp_path / "context/base"
    program = shutil.which("ssh-add")
    assert program is not None
    libraries = re.findall(r"(?:=> |^\s+)(/\S+)", subprocess.check_output(["ldd", program], text=True), re.MULTILINE)
    for path in (program, *libraries):
        target = base / path.lstrip("/") if path != program else base / "bin/ssh-add"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (base / "etc").mkdir()
    (base / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")


@needs_agent
@pytest.mark.usefixtures("client")
def test_an_agent(run: Run, agent: Path) -> None:
    done = run("--mount=type=ssh echo at $SSH_AUTH_SOCK && ssh-add -l", "--ssh", f"default={agent}")
    assert done.status == 0, done.err
    assert "at /run/buildkit/ssh_agent.0\n" in done.err
    assert "my key (ED25519)" in done.err
    command = (
        "--mount=type=cache,target=/c --mount=type=ssh,id=b,required,target=/tmp/b ls -l $SSH_AUTH_SOCK && ssh-add -l"
    )
    done = run(command, "--ssh", f"b={agent}")
    assert done.status == 0, done.err
    assert re.search(r" srw-------\s.* /tmp/b\n", done.err)


@needs_agent
@pytest.mark.usefixtures("client")
def test_an_agent_from_the_environment(cli: Cli, run: Run, agent: Path) -> None:
    cli.environ["SSH_AUTH_SOCK"] = str(agent)
    assert run("--mount=type=ssh,required ssh-add -l", "--ssh", "default").status == 0


@needs_agent
@pytest.mark.usefixtures("client")
def test_an_agent_for_a_user(run: Run, agent: Path) -> None:
    given = ("--ssh", f"default={agent}")
    done = run("true\nUSER user\nRUN --mount=type=ssh,uid=1000,gid=1000,mode=0200 ssh-add -l", *given)
    assert done.status == 0, done.err
    done = run("true\nUSER user\nRUN --mount=type=ssh ssh-add -l", *given)
    assert done.status == 1
    assert "Permission denied" in done.err


@needs_agent
@pytest.mark.usefixtures("client")
def test_a_step_cannot_change_the_agent(run: Run, agent: Path) -> None:
    done = run("--mount=type=ssh ssh-add -D; ssh-add -l", "--ssh", f"default={agent}")
    assert done.status == 0, done.err
    assert "my key (ED25519)" in done.err
    environ = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    assert "my key" in subprocess.check_output(["ssh-add", "-l"], env=environ, text=True)


def test_without_an_agent(run: Run, tmp_path: Path) -> None:
    done = run("--mount=type=ssh test ! -e $SSH_AUTH_SOCK && env | grep SSH_")
    assert done.status == 0, done.err
    assert " SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0\n" in done.err
    done = run("--mount=type=ssh,required true")
    assert done.status == 1
    assert "the ssh agent 'default' is required and was not given" in done.err
    done = run("--mount=type=ssh true", "--ssh", f"default={tmp_path}/none")
    assert f"{tmp_path}/none: SSH agent 'default' cannot be used: No such file or directory" in done.err
    (tmp_path / "key").touch()
    done = run("--mount=type=ssh true", "--ssh", f"default={tmp_path}/key")
    assert f"{tmp_path}/key: SSH agent 'default': this is neither an agent's socket nor a private key" in done.err


@needs_agent
@pytest.mark.usefixtures("client")
def test_keys_from_files(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", tmp_path / name], check=True)
    (tmp_path / "one").chmod(0o644)  # as CI systems leave it
    done = run("--mount=type=ssh,id=ci,required ssh-add -l", "--ssh", f"ci={tmp_path}/one,{tmp_path}/two")
    assert done.status == 0, done.err
    assert done.err.count("(ED25519)") == 2


# --- entitlements and networks


def test_insecure(run: Run) -> None:
    done = run("--security=insecure grep CapEff /proc/self/status", "--allow", "security.insecure")
    assert done.status == 0, done.err
    ours = re.search(r"CapBnd:\s*(\w+)", Path("/proc/self/status").read_text())
    theirs = re.search(r"CapEff:\s*(\w+)", done.err)
    assert ours is not None
    assert theirs is not None
    assert theirs[1] == ours[1]
    done = run("grep CapEff /proc/self/status")
    assert "CapEff:\t00000000a80425fb\n" in done.err  # Docker's default set
    done = run("--security=insecure true")
    assert done.status == 1
    assert "--allow security.insecure" in done.err


@pytest.mark.parametrize(("flag", "options"), [("--network=none", ()), ("", ("--network", "none"))])
def test_no_network(run: Run, flag: str, options: tuple[str, ...]) -> None:
    done = run(f"{flag} sed -n 's/:.*//p' /proc/net/dev && wc -c < /etc/resolv.conf", *options)
    assert done.status == 0, done.err
    assert re.findall(r"^#\d+ [\d.]+ +(\S+)$", done.err, re.MULTILINE) == ["lo", "0"]
    assert "ip" not in done.err.split("/proc/net/dev")[0]


def test_the_network_of_the_host(run: Run) -> None:
    done = run("--network=host true")
    assert done.status == 1
    assert "--allow network.host" in done.err
    inside = run(
        "--network=host readlink /proc/self/ns/net || stat -L -c %i /proc/self/ns/net", "--allow", "network.host"
    )
    assert inside.status == 0, inside.err
    assert str(os.stat("/proc/self/ns/net").st_ino) in inside.err


# --- limits


def _no_control_groups() -> str:
    try:
        ControlGroup(f"{os.getpid()}-test", Command(("true",), upper="", work="", memory=1 << 30).profile()).remove()
    except (SandboxError, OSError) as error:
        return str(error)
    return ""


def test_memory(run: Run) -> None:
    missing = _no_control_groups()
    if missing:
        pytest.skip(missing)
    hungry = "dd if=/dev/zero of=/dev/null bs=256M count=1"
    done = run(hungry, "--memory", "32m")
    assert done.status == 1
    assert "error: Dockerfile:4: the command ran out of memory" in done.err
    assert run(hungry, "--memory", "400m").status == 0


def test_names_and_sizes(run: Run) -> None:
    done = run(
        "ulimit -n && ulimit -H -n && df -k /dev/shm && cat /etc/hosts",
        "--ulimit", "nofile=100:200", "--shm-size", "8m", "--add-host", "there:10.1.2.3", "--add-host", "six=[::5]",
        "--add-host", "here=host-gateway",
    )  # fmt: skip
    assert done.status == 0, done.err
    lines = [line.split(maxsplit=2)[2] for line in done.err.splitlines() if re.match(r"#\d+ [\d.]+ ", line)]
    assert lines[:2] == ["100", "200"]
    assert re.search(r"\s8192\s.*/dev/shm$", "\n".join(lines), re.MULTILINE)
    assert "10.1.2.3\tthere" in lines
    assert "::5\tsix" in lines
    assert "127.0.0.1\there" in lines
    assert "127.0.0.1\tlocalhost buildkitsandbox" in lines


def test_options_that_change_what_a_step_sees_make_it_run_again(run: Run) -> None:
    assert run("true").cached() == 0
    assert run("true").cached() == 2
    assert run("true", "--memory", "1g").cached() in (1, 2) or _no_control_groups()
    assert run("true", "--add-host", "a:1.2.3.4").cached() == 1
