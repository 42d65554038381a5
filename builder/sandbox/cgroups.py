"""Memory and processor limits through control groups, version 2 or 1; made only when a limit is asked for."""

from __future__ import annotations

import errno
import os

from .command import Profile, SandboxError

_UNIFIED = "/sys/fs/cgroup"
_GROUP = "builder"
_PERIOD = 100_000


class ControlGroup:
    """One group for one step. `join` moves the calling process in; `remove` is for when all processes are gone."""

    def __init__(self, name: str, profile: Profile) -> None:
        self._directories: list[str] = []
        self._events: list[str] = []
        try:
            if os.path.exists(f"{_UNIFIED}/cgroup.controllers"):
                self._make_unified(name, profile)
            else:
                self._make_version_1(name, profile)
        except BaseException:
            self.remove()
            raise

    def _make_unified(self, name: str, profile: Profile) -> None:
        wanted = _controllers(profile)
        with open(f"{_UNIFIED}/cgroup.controllers") as file:
            present = file.read().split()
        for controller, option in wanted.items():
            if controller not in present:
                raise SandboxError(f"{option} needs the control group controller {controller!r}, which is missing")
        parent = f"{_UNIFIED}/{_GROUP}"
        enable = " ".join(f"+{controller}" for controller in wanted)
        _write(f"{_UNIFIED}/cgroup.subtree_control", enable, _options(wanted))
        _make(parent, _options(wanted))
        _write(f"{parent}/cgroup.subtree_control", enable, _options(wanted))
        _sweep(parent)
        directory = f"{parent}/{name}"
        _make(directory, _options(wanted))
        self._directories.append(directory)
        if profile.memory:
            self._limit(directory, "memory.max", str(profile.memory), "--memory")
            # As Docker: as much swap again as memory, where there is swap at all.
            self._limit(directory, "memory.swap.max", str(profile.memory), "", optional=True)
            self._events.append(f"{directory}/memory.events")
        if profile.cpus:
            self._limit(directory, "cpu.max", f"{int(profile.cpus * _PERIOD)} {_PERIOD}", "--cpus")

    def _make_version_1(self, name: str, profile: Profile) -> None:
        points = _version_1_points()
        for controller, option in _controllers(profile).items():
            if controller not in points:
                raise SandboxError(f"{option} needs the control group controller {controller!r}, which is not mounted")
            parent = f"{points[controller]}/{_GROUP}"
            _make(parent, option)
            _sweep(parent)
            directory = f"{parent}/{name}"
            _make(directory, option)
            self._directories.append(directory)
            if controller == "memory":
                self._limit(directory, "memory.limit_in_bytes", str(profile.memory), option)
                both = str(profile.memory * 2)
                self._limit(directory, "memory.memsw.limit_in_bytes", both, option, optional=True)
                self._events.append(f"{directory}/memory.oom_control")
            else:
                self._limit(directory, "cpu.cfs_period_us", str(_PERIOD), option)
                self._limit(directory, "cpu.cfs_quota_us", str(int(profile.cpus * _PERIOD)), option)

    def _limit(self, directory: str, file: str, value: str, option: str, *, optional: bool = False) -> None:
        path = f"{directory}/{file}"
        if optional and not os.path.exists(path):
            return
        _write(path, value, option)

    def join(self) -> None:
        """Move this process, and all that it forks from now on, into the group."""
        for directory in self._directories:
            _write(f"{directory}/cgroup.procs", "0", "limits")

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process of the group for want of memory."""
        for path in self._events:
            with open(path) as events:
                for line in events:
                    name, _, count = line.partition(" ")
                    if name == "oom_kill" and int(count) > 0:
                        return True
        return False

    def remove(self) -> bool:
        """Remove the group, or what is left of it. False if the kernel takes it for one in use, as it may do for a
        moment after its last process was waited for."""
        self._directories = [directory for directory in self._directories if not _remove(directory)]
        return not self._directories


def _remove(directory: str) -> bool:
    """Remove a group's directory. False if that is worth another try: it is in use, and not gone or out of reach."""
    try:
        os.rmdir(directory)
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def needed(profile: Profile) -> bool:
    """Whether a profile asks for a limit."""
    return bool(_controllers(profile))


def _controllers(profile: Profile) -> dict[str, str]:
    """The controllers that a profile needs, each with the name of the limit to blame."""
    wanted = {"memory": (profile.memory, "--memory"), "cpu": (profile.cpus, "--cpus")}
    return {controller: option for controller, (value, option) in wanted.items() if value}


def _options(wanted: dict[str, str]) -> str:
    return ", ".join(wanted.values())


def _version_1_points() -> dict[str, str]:
    """Where each controller of version 1 is mounted."""
    points = {}
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            _, point, filesystem, options = line.split()[:4]
            if filesystem == "cgroup":
                points.update(dict.fromkeys(options.split(","), point))
    return points


def _make(directory: str, option: str) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return
    except OSError as error:
        raise SandboxError(
            f"{option} needs a control group, but {directory} cannot be made: {error.strerror}"
        ) from None


def _write(path: str, value: str, option: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(value)
    except OSError as error:
        raise SandboxError(f"{option}: {path} cannot be set to {value}: {error.strerror}") from None


def _sweep(parent: str) -> None:
    """Remove groups of helpers that were killed: a name is `PID-COUNT` of its helper."""
    for name in os.listdir(parent):
        owner = name.partition("-")[0]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            try:
                os.rmdir(f"{parent}/{name}")
            except OSError:
                continue
