"""/proc, /dev, /sys and the two generated files of /etc, as runc and BuildKit give them to a step.

The three directories take half of a root's set-up and depend on nothing but the profile, so they are made ahead.

The lists of masked and read-only paths are those of Docker and containerd together (containerd `oci/mounts.go`, moby
`daemon/pkg/oci/defaults.go`).
"""

from __future__ import annotations

import os
import stat

from . import syscalls
from .command import Profile
from .rootfs import DEVICES, Host, Root, attach
from .scratch import Scratch
from .syscalls import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_STRICTATIME,
)

_MASKED_PROC = (
    "acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list",
    "timer_stats",
)  # fmt: skip
_READ_ONLY_PROC = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_MASKED_SYS = ("devices/virtual/powercap", "firmware")

_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}
DEFAULT_SHM_SIZE = 64 << 20
_CLOSED = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC


class System:
    """The system's parts, put together in the scratch file system for any root, and then moved onto one."""

    def __init__(self, profile: Profile, host: Host, scratch: Scratch) -> None:
        self.profile = profile
        self.host = host
        self.scratch = scratch
        self.insecure = profile.security == "insecure"
        devices = self._make_devices()
        self.parts = {"proc": self._proc(devices["null"]), "dev": self._dev(devices), "sys": self._sys()}

    def mount(self, root: Root) -> None:
        """Mount all onto a root whose layers are mounted; before the mounts that were asked for, which may be above."""
        for name, part in self.parts.items():
            # As it is, never through a link.
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            point = os.open(name, flags, dir_fd=root.descriptor)
            syscalls.move_mount(part, point, f"mount /{name}")
            os.close(point)
        command = root.command
        for text, path in ((command.resolv_conf, "/etc/resolv.conf"), (command.hosts, "/etc/hosts")):
            if text is not None:
                file = self.scratch.file(text.encode("utf-8", "surrogateescape"), 0o644, 0, 0)
                root.bind(file, path, _CLOSED, f"mount {path}")

    def _make_devices(self) -> dict[str, int]:
        """The harmless devices: nodes of this step's own, since one can chmod them; in a user namespace the host's."""
        if self.host.user_namespace:
            return self.host.devices
        nodes = {}
        for name, (major, minor) in DEVICES.items():
            os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=self.scratch.descriptor)
            nodes[name] = self.scratch.open(name)
        return nodes

    def _mount(self, name: str, filesystem: str, flags: int, options: str = "") -> int:
        """Mount a file system on a directory of the scratch file system and open it."""
        os.mkdir(name, 0o755, dir_fd=self.scratch.descriptor)
        syscalls.mount(filesystem, self.scratch.path(name), filesystem, flags, options, f"mount /{name}")
        return self.scratch.open(name)

    def _proc(self, null: int) -> int:
        proc = self._mount("proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        if not self.insecure:
            self._mask(proc, _MASKED_PROC, null)
            for name in _READ_ONLY_PROC:
                part = _open(proc, name)
                if part is not None:
                    attach(part, part, _CLOSED, f"make /proc/{name} read-only")
                    os.close(part)
        return proc

    def _mask(self, directory: int, names: tuple[str, ...], null: int) -> None:
        """Cover files with /dev/null and directories with an empty one."""
        for name in names:
            part = _open(directory, name)
            if part is not None:
                cover = self.scratch.empty if stat.S_ISDIR(os.fstat(part).st_mode) else null
                attach(cover, part, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, f"mask {name}")
                os.close(part)

    def _dev(self, devices: dict[str, int]) -> int:
        """A directory in memory where only the nodes bound into it can be opened, whatever mknod(2) makes there."""
        flags = MS_NOSUID | MS_STRICTATIME | (0 if self.insecure else MS_NODEV)
        dev = self._mount("dev", "tmpfs", flags, "mode=755,size=65536k")
        for name, node in devices.items():
            file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o666, dir_fd=dev)
            attach(node, file, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, f"mount /dev/{name}")
            os.close(file)
        for name, target in _DEVICE_LINKS.items():
            os.symlink(target, name, dir_fd=dev)
        common = MS_NOSUID | MS_NOEXEC
        group = "" if self.host.user_namespace else ",gid=5"
        self._device_directory(dev, "pts", "devpts", common, f"newinstance,ptmxmode=0666,mode=0620{group}")
        size = self.profile.shm_size or DEFAULT_SHM_SIZE
        self._device_directory(dev, "shm", "tmpfs", common | MS_NODEV, f"mode=1777,size={size}")
        self._device_directory(dev, "mqueue", "mqueue", common | MS_NODEV, "")
        return dev

    def _device_directory(self, dev: int, name: str, filesystem: str, flags: int, options: str) -> None:
        os.mkdir(name, 0o755, dir_fd=dev)
        point = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=dev)
        syscalls.mount(filesystem, f"/proc/self/fd/{point}", filesystem, flags, options, f"mount /dev/{name}")
        os.close(point)

    def _sys(self) -> int:
        """/sys read-only; in a user namespace that shares the host's network only the host's own can be shown."""
        flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (0 if self.insecure else MS_RDONLY)
        if self.host.user_namespace and self.profile.network != "none":
            point = self.scratch.directory("sys")
            attach(self.host.system, point, _CLOSED, "mount /sys", recursive=True)
            os.close(point)
            system = self.scratch.open("sys")
        else:
            system = self._mount("sys", "sysfs", flags)
        cgroup = _open(system, "fs/cgroup")
        if cgroup is not None and UNIFIED_CGROUPS:
            syscalls.mount("cgroup2", f"/proc/self/fd/{cgroup}", "cgroup2", flags, what="mount /sys/fs/cgroup")
            os.close(cgroup)
        if not self.insecure:
            self._mask(system, _MASKED_SYS, -1)
        return system


# Where version 1 is in use a step sees an empty /sys/fs/cgroup.
UNIFIED_CGROUPS = os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def _open(directory: int, name: str) -> int | None:
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
