"""What a RUN step becomes for the sandbox: its command, with everything that it sees."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence
from contextlib import suppress

from builder.plan.steps import RunNode
from builder.sandbox.command import Command, Mount
from builder.solver.environment import Environment
from builder.solver.mounts import Mounting
from builder.solver.users import ExecUser

_HOSTS = "127.0.0.1\tlocalhost{}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_RESOLV_CONF = "/etc/resolv.conf"


def step_command(
    environment: Environment,
    node: RunNode,
    user: ExecUser,
    lowers: Sequence[str],
    overlay: tuple[str, str],
    mounting: Mounting,
) -> Command:
    """The command of a step over its layers (the topmost first); `overlay` is what `overlay_directories` made."""
    mounting.claim(node.mounts)
    mounts = parents_first(mount for planned in node.mounts for mount in mounting.mounts(planned))
    if node.script is not None:
        mounts = (*mounts, mounting.script(*node.script))
    limits = environment.limits
    hostname = limits.hostname or "buildkitsandbox"
    return Command(
        node.argv,
        environment=tuple(f"{name}={value}" for name, value in _variables(node, user, mounting).items()),
        lowers=tuple(lowers),
        upper=overlay[0],
        work=overlay[1],
        mounts=mounts,
        directory=node.workdir,
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        network=node.network,
        security=node.security,
        hostname=hostname,
        hosts=hosts_file(limits.hosts, hostname),
        resolv_conf=resolv_conf(node.network),
        shm_size=limits.shm_size,
        ulimits=limits.ulimits,
        memory=limits.memory,
        cpus=limits.cpus,
    )


def parents_first(mounts: Iterable[Mount]) -> tuple[Mount, ...]:
    """Mounts sorted by target, so that none hides what is mounted below it, however they are written: as in BuildKit
    (`PrepareMounts` of its gateway). Of two at one target the later hides the other."""
    return tuple(sorted(mounts, key=lambda mount: posixpath.normpath(mount.target)))


def overlay_directories(scratch: str, lowers: Sequence[str]) -> tuple[str, str]:
    """Empty directories in `scratch` for an overlay, made unless they are there. As in containerd `/` keeps its owner
    from the layer below, not its mode."""
    upper, work = os.path.join(scratch, "upper"), os.path.join(scratch, "work")
    for path in (upper, work):
        with suppress(FileExistsError):  # made ahead
            os.mkdir(path)
    if lowers:
        root = os.stat(lowers[0])
        os.chown(upper, root.st_uid, root.st_gid)
    os.chmod(upper, 0o755)
    return upper, work


def hosts_file(hosts: Iterable[tuple[str, str]], hostname: str = "") -> str:
    """/etc/hosts with these names and addresses, and `hostname` as a name of this host."""
    own = _HOSTS.format(f" {hostname}" if hostname else "")
    return own + "".join(f"{address}\t{name}\n" for name, address in hosts)


def resolv_conf(network: str) -> str | None:
    """/etc/resolv.conf for a network; None if this machine has none."""
    if network == "none":
        return ""
    try:
        with open(_RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _variables(node: RunNode, user: ExecUser, mounting: Mounting) -> dict[str, str]:
    """The command's environment: the image's and the arguments', proxies, secrets; HOME if nothing else sets it. What
    comes later wins, as in BuildKit (`solver/llbsolver/ops/exec.go`)."""
    variables = {**dict(node.env), **dict(node.proxies), **mounting.variables}
    variables.setdefault("HOME", user.home or "/")
    if mounting.agents:
        variables.setdefault("SSH_AUTH_SOCK", mounting.agents[0])
    return variables
