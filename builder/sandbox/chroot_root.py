"""The root of a step in a chroot: a copy of its layers with what the step asked for put in, and what it changed there.

Nothing of the layers is linked, so a step cannot reach them. What is put in (devices, secrets, caches: `chroot_parts`)
replaces what is there; since the copy is thrown away nothing has to be put back. What the step changed is told by
comparing inodes, sizes and times from before and after, and is moved into its upper directory in overlayfs's form.
"""

from __future__ import annotations

import fcntl
import os
import stat

from . import chroot_copy, syscalls
from .chroot_copy import copy_layers, remove_tree, set_metadata
from .chroot_parts import Part, State, lock_source, scan
from .command import Command, Mount, SandboxError
from .lookup import Plan, make_directories
from .rootfs import DEVICES, SYSTEM_DIRECTORIES, open_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Root:
    """Below `command.work`: `root`, and `parts` for what is put in. While it is made `check` is called often: what it
    raises ends that."""

    def __init__(self, command: Command, check: Callable[[], None]) -> None:
        self.command = command
        self._check = check
        self.path = f"{command.work}/root"
        self._parts = f"{command.work}/parts"
        self._count = 0
        self._put_in: dict[str, Part] = {}
        self._kept: list[str] = []
        self._before: dict[str, State] = {}

    def make(self) -> None:
        """Copy the layers, and put in what the step asked for."""
        command = self.command
        os.mkdir(self.path, 0o755)
        os.mkdir(self._parts, 0o700)
        copy_layers(command.lowers, self.path, check=self._check)
        upper = os.stat(command.upper)
        os.chown(self.path, upper.st_uid, upper.st_gid)
        os.chmod(self.path, stat.S_IMODE(upper.st_mode))
        root = open_directory(self.path, "root")
        plan = Plan(root)
        sources = self._plan(plan)
        for path, directory in plan.stubs.items():
            if directory:
                os.mkdir(self._inside(path), 0o755)
            else:
                _write(self._inside(path), b"", 0o644)
        for path in plan.kept:
            if path not in plan.stubs:
                os.mkdir(self._inside(path), 0o755)
            if path not in SYSTEM_DIRECTORIES:
                os.chown(self._inside(path), command.uid, command.gid)
        self._kept = list(plan.kept)
        os.close(root)
        for path, (source, mount) in sources.items():
            self._put(path, source, mount)
        for part in self._put_in.values():
            part.remember(self._others(part))
        self._check()
        self._before = scan(self.path, self._others())

    def remove(self) -> None:
        """Remove the copy and what was put in."""
        for part in self._put_in.values():
            part.close()
        for path in (self.path, self._parts):
            remove_tree(path)

    def _others(self, part: Part | None = None) -> set[tuple[int, int]]:
        """The inodes of what was put in, but for one part."""
        return {other.inode for other in self._put_in.values() if other is not part}

    def _inside(self, path: str) -> str:
        return f"{self.path}{path}"

    def _part(self) -> str:
        self._count += 1
        return f"{self._parts}/{self._count}"

    # --- what is put in

    def _plan(self, plan: Plan) -> dict[str, tuple[str, Mount | None]]:
        """Find the place of all that is put in; make it, each below `parts`. Gives its path there by its place."""
        command = self.command
        found: dict[str, tuple[str, Mount | None]] = {}
        plan.mounted.update(SYSTEM_DIRECTORIES)
        for path in SYSTEM_DIRECTORIES:
            if plan.add(path, directory=True, kept=True) != path:
                raise SandboxError(f"in the image {path} is a symbolic link; it must be a directory")
            found[path] = (self._system_directory(path), None)
        plan.add(command.directory, directory=True, kept=True)
        for text, path in ((command.resolv_conf, "/etc/resolv.conf"), (command.hosts, "/etc/hosts")):
            if text is not None:
                where = plan.add(path, directory=False)
                plan.mounted.add(where)
                part = self._part()
                _write(part, text.encode("utf-8", "surrogateescape"), 0o644)
                found[where] = (part, None)
        for mount in command.mounts:
            part = self._prepare(mount)
            where = plan.add(mount.target, directory=os.path.isdir(part))
            if where == "/" or where == "/proc" or where.startswith("/proc/"):
                raise SandboxError(f"invalid mount target {mount.target!r}")
            plan.mounted.add(where)
            found[where] = (part, mount)
        return found

    def _system_directory(self, path: str) -> str:
        """An empty /proc or /sys, or a /dev with the devices that every program may expect."""
        part = self._part()
        os.mkdir(part, 0o755)
        if path != "/dev":
            return part
        for name, (major, minor) in DEVICES.items():
            device = f"{part}/{name}"
            try:
                os.mknod(device, 0o020666, os.makedev(major, minor))
                os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK))
            except OSError as error:
                if name != "tty":  # without a terminal it can be made, and not opened
                    raise SandboxError(
                        f"/dev/{name} cannot be made in the store: {error.strerror}"
                        " (is it on a file system that is mounted nodev?)"
                    ) from None
        os.mkdir(f"{part}/shm", 0o1777)
        return part

    def _prepare(self, mount: Mount) -> str:
        """Make what a mount shows."""
        part = self._part()
        if mount.kind == "tmpfs":
            os.mkdir(part, mount.mode)
            os.chown(part, mount.uid, mount.gid)
        elif mount.kind == "file":
            _write(part, mount.content, mount.mode)
            os.chown(part, mount.uid, mount.gid)
        elif mount.kind == "overlay":
            os.mkdir(part, 0o755)
            copy_layers(mount.lowers, part, check=self._check)
            part = self._subpath(part, mount)
        else:
            try:
                status = os.lstat(mount.source)
                if stat.S_ISSOCK(status.st_mode):
                    os.link(mount.source, part)
                elif stat.S_ISDIR(status.st_mode):
                    os.mkdir(part, 0o755)
                    lock = lock_source(mount.source, fcntl.LOCK_SH)
                    try:
                        copy_layers((mount.source,), part, overlay=False, check=self._check)
                    finally:
                        os.close(lock)
                    part = self._subpath(part, mount)
                else:
                    chroot_copy.copy_file(mount.source, part, status, self._check)
            except OSError as error:
                raise SandboxError(f"source of the mount at {mount.target}: {mount.source}: {error.strerror}") from None
        return part

    def _subpath(self, part: str, mount: Mount) -> str:
        if not mount.subpath.strip("/"):
            return part
        root = open_directory(part, f"mount at {mount.target}")
        try:
            found = syscalls.open_in_root(root, mount.subpath)
        except OSError as error:
            raise SandboxError(f"mount at {mount.target}: {mount.subpath}: {error.strerror}") from None
        try:
            return os.readlink(f"/proc/self/fd/{found}")
        finally:
            os.close(found)
            os.close(root)

    def _put(self, path: str, part: str, mount: Mount | None) -> None:
        """Move a part to its place, whatever is there. One inside of another part has no place made yet."""
        root = open_directory(self.path, "root")
        try:
            make_directories(root, os.path.dirname(path))
            parent = syscalls.open_in_root(root, os.path.dirname(path))
            name = os.path.basename(path)
            try:
                try:
                    there = os.lstat(name, dir_fd=parent)
                except FileNotFoundError:
                    pass
                else:
                    directory = os.path.isdir(part)
                    if stat.S_ISDIR(there.st_mode) != directory:
                        kinds = ("a directory", "a file") if directory else ("a file", "a directory")
                        raise SandboxError(
                            f"mount at {path}: the source is {kinds[0]}, but the image has {kinds[1]} there"
                        )
                    os.rename(name, self._part(), src_dir_fd=parent)
                os.rename(part, name, dst_dir_fd=parent)
                held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            finally:
                os.close(parent)
        finally:
            os.close(root)
        self._put_in[path] = Part(path, held, mount)

    # --- what has changed

    def written(self) -> str:
        """What the step wrote to and was shown only, as a path; '' for nothing."""
        root = open_directory(self.path, "root")
        try:
            return next(filter(None, (part.written(root, self._others(part)) for part in self._put_in.values())), "")
        finally:
            os.close(root)

    def collect(self) -> None:
        """Move what the step made or changed into the upper directory; give cache mounts back what is in them now."""
        root = os.stat(self.path)
        before, after = self._before, scan(self.path, self._others())
        made: dict[str, os.stat_result] = {}
        for path in self._kept:
            if path in self._put_in:
                os.mkdir(f"{self.command.upper}{path}", 0o755)
                made[path] = os.lstat(self._inside(path))
            else:
                before.pop(path, None)
        for path in sorted(after):
            if after[path] == before.get(path):
                continue
            if not stat.S_ISDIR(after[path][1]):
                self._parents(path, made)
                os.rename(self._inside(path), f"{self.command.upper}{path}")
            elif before.get(path, (0,) * 8)[:4] != after[path][:4]:
                self._parents(f"{path}/.", made)
        for path in before:
            if path not in after and self._is_missed(path, after):
                self._parents(path, made)
                os.mknod(f"{self.command.upper}{path}", 0o020000, 0)
        for path in sorted(made, reverse=True):
            set_metadata(self._inside(path), f"{self.command.upper}{path}", made[path])
        set_metadata(self.path, self.command.upper, root)
        for part in self._put_in.values():
            part.give_back(self._others(part))

    def _is_missed(self, path: str, after: dict[str, State]) -> bool:
        """Whether a whiteout is needed: the directory that held the path is there, and still is one."""
        parent = os.path.dirname(path)
        return parent == "/" or (parent in after and stat.S_ISDIR(after[parent][1]))

    def _parents(self, path: str, made: dict[str, os.stat_result]) -> None:
        """Make the directories above a path in the upper directory; their metadata is set at the end."""
        missing = []
        directory = os.path.dirname(path)
        while directory != "/" and directory not in made:
            missing.append(directory)
            directory = os.path.dirname(directory)
        for directory in reversed(missing):
            made[directory] = os.lstat(self._inside(directory))
            os.mkdir(f"{self.command.upper}{directory}", 0o700)


def _write(path: str, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
    os.chmod(path, mode)
