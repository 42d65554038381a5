"""The file system of a step: its layers merged, mount points that leave no trace, and the mounts it asked for.

Everything from the host is opened before something is mounted that could cover it, and named by descriptor from then
on: overlay options are relative to /proc/self/fd (`lowerdir=7:8:9`), which fits hundreds of layers into the one page
that mount(2) takes, needs no escapes, and shows no path of the host in the step's /proc/self/mountinfo.
"""

from __future__ import annotations

import errno
import os
import stat

from . import syscalls
from .command import Command, Mount, SandboxError
from .lookup import Plan, build_stub, make_directories, put_below
from .scratch import Scratch
from .syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_MOST_LAYERS = 500  # Linux, fs/overlayfs/params.h, OVL_MAX_STACK
SYSTEM_DIRECTORIES = ("/proc", "/dev", "/sys")


def open_directory(path: str, what: str) -> int:
    """A descriptor of a directory of the host."""
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxError(f"{what} {path}: {error.strerror}") from None


class Host:
    """Descriptors of what a step in a user namespace shows of the host's /dev and /sys; elsewhere it has its own."""

    def __init__(self, user_namespace: bool) -> None:
        self.user_namespace = user_namespace
        self.devices: dict[str, int] = {}
        self.system = -1
        if user_namespace:
            for name in DEVICES:
                self.devices[name] = os.open(f"/dev/{name}", os.O_PATH | os.O_CLOEXEC)
            self.system = os.open("/sys", os.O_PATH | os.O_CLOEXEC)


class Sources:
    """Descriptors of all that a command shows of the host."""

    def __init__(self, command: Command) -> None:
        self.lowers = [open_directory(path, "layer") for path in command.lowers]
        self.upper = open_directory(command.upper, "upper directory")
        self.work = open_directory(command.work, "work directory")
        self.mounts = [_MountSource(mount) for mount in command.mounts]


class _MountSource:
    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.descriptor = -1
        self.lowers: list[int] = []
        self.upper = self.work = -1
        what = f"source of the mount at {mount.target}:"
        if mount.kind == "bind":
            try:
                self.descriptor = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
            except OSError as error:
                raise SandboxError(f"{what} {mount.source}: {error.strerror}") from None
        elif mount.kind == "overlay":
            self.lowers = [open_directory(path, what) for path in mount.lowers]
            if mount.upper:
                self.upper = open_directory(mount.upper, what)
                self.work = open_directory(mount.work, what)


class Root:
    """Builds a step's root. `nodev` keeps device nodes of the image and of mknod(2) from being opened."""

    def __init__(self, command: Command, sources: Sources, scratch: Scratch, user_namespace: bool) -> None:
        self.command = command
        self.sources = sources
        self.user_namespace = user_namespace
        self.scratch = scratch
        self.descriptor = -1
        self.stubs: tuple[str, ...] = ()

    def mount_layers(self) -> None:
        """Merge the layers, with a stub layer for what the image lacks, and make the directories that stay."""
        if self.sources.mounts or not self._merge_at_once():
            self._merge_as_planned()

    def _merge_at_once(self) -> bool:
        """Merge the layers without having looked through them, above stubs for the files that every root is given. One
        can be missing all the same, behind a link to nowhere or where a layer has deleted the image's: then they are
        merged again, below a stub for it. Whether that is enough; if a directory that stays needs the stubs' directory,
        nothing is mounted."""
        sources, stub = self.sources, self.scratch.directory()
        files = [path for text, path in self._files() if text is not None]
        put_below(stub, files)
        self._merge([*sources.lowers, stub])
        plan = Plan(self.descriptor)
        self._plan(plan)
        above = {os.path.dirname(path) for path in files}
        enough = above.isdisjoint(os.path.dirname(path) for path in plan.kept)
        if plan.stubs or not enough:
            hiding = self.scratch.directory()
            build_stub(plan, hiding)
            plan.close()
            self._undo_merge()
            if not enough:
                return False
            self._merge([hiding, *sources.lowers, stub])
        self.stubs = (*plan.stubbed, *(path for path in plan.stubs if path not in plan.kept))
        self._make_kept(plan)
        return True

    def _merge_as_planned(self) -> None:
        """Look through the layers, and merge them below stubs for what is missing."""
        sources, stub = self.sources, self.scratch.directory()
        # To look around: the same layers read-only. The upper directory is empty, so it adds nothing.
        probe = self._overlay([*sources.lowers, stub, self.scratch.empty], what="look through the layers")
        plan = Plan(probe)
        self._plan(plan)
        build_stub(plan, stub)
        self.stubs = tuple(path for path in plan.stubs if path not in plan.kept)
        self._merge([stub, *sources.lowers] if plan.stubs or not sources.lowers else sources.lowers)
        self._make_kept(plan)

    def _merge(self, lowers: list[int]) -> None:
        flags = 0 if self.command.security == "insecure" else syscalls.MS_NODEV
        self.descriptor = self._overlay(lowers, self.sources.upper, self.sources.work, flags, "the root")

    def _undo_merge(self) -> None:
        """Take the root away again: the upper directory can be merged anew."""
        syscalls.umount(f"/proc/self/fd/{self.descriptor}", syscalls.MNT_DETACH)
        os.close(self.descriptor)
        # By this the kernel knows that what a volatile mount wrote may be lost: here nothing was written.
        os.unlink("work/incompat/volatile/dirty", dir_fd=self.sources.work)
        for name in ("work/incompat/volatile", "work/incompat"):
            os.rmdir(name, dir_fd=self.sources.work)

    def _make_kept(self, plan: Plan) -> None:
        """Make the directories that stay in the image."""
        for path in plan.kept:
            if path not in plan.stubs:
                os.mkdir(path[1:], 0o755, dir_fd=self.descriptor)
            if path not in SYSTEM_DIRECTORIES:
                # One that is also part of the stub layer is copied into the upper directory by this.
                os.chown(path[1:], self.command.uid, self.command.gid, dir_fd=self.descriptor)

    def _files(self) -> tuple[tuple[str | None, str], ...]:
        """The files that every root is given: their contents, None where it is not, and their paths."""
        return (self.command.resolv_conf, "/etc/resolv.conf"), (self.command.hosts, "/etc/hosts")

    def _plan(self, plan: Plan) -> None:
        command = self.command
        plan.mounted.update(SYSTEM_DIRECTORIES)
        # BuildKit leaves these three in the image when it lacks them, and nothing else.
        for path in SYSTEM_DIRECTORIES:
            if plan.add(path, directory=True, kept=True) != path:
                raise SandboxError(f"in the image {path} is a symbolic link; it must be a directory")
        plan.add(command.directory, directory=True, kept=True)
        for text, path in self._files():
            if text is not None:
                plan.mounted.add(plan.add(path, directory=False))
        for source in self.sources.mounts:
            target = source.mount.target
            where = plan.add(target, directory=self._open_source(source))
            if where == "/" or where == "/proc" or where.startswith("/proc/"):
                raise SandboxError(f"invalid mount target {target!r}")
            plan.mounted.add(where)

    def _open_source(self, source: _MountSource) -> bool:
        """Open what a mount shows, merged and with its subpath; whether its mount point must be a directory."""
        mount = source.mount
        if mount.kind in ("tmpfs", "file"):
            return mount.kind == "tmpfs"
        if mount.kind == "overlay":
            lowers = source.lowers
            if source.upper < 0 or not lowers:  # read-only, overlayfs wants two layers at least
                lowers = [*lowers, self.scratch.empty]
            if len(lowers) == 1 and source.upper < 0:
                lowers = [self.scratch.directory(), *lowers]
            source.descriptor = self._overlay(lowers, source.upper, source.work, what=f"the source of {mount.target}")
        if mount.subpath.strip("/"):
            try:
                source.descriptor = syscalls.open_in_root(source.descriptor, mount.subpath)
            except OSError as error:
                raise SandboxError(f"mount at {mount.target}: {mount.subpath}: {error.strerror}") from None
        return stat.S_ISDIR(os.fstat(source.descriptor).st_mode)

    def _overlay(self, lowers: list[int], upper: int = -1, work: int = -1, flags: int = 0, what: str = "") -> int:
        """Mount merged layers somewhere in the scratch file system and open the result."""
        name = self.scratch.name()
        os.mkdir(name, 0o755, dir_fd=self.scratch.descriptor)
        options = "lowerdir=" + ":".join(map(str, lowers))
        # What a directory means must be in the upper directory alone, to be read as a layer.
        options += ",userxattr" if self.user_namespace else ",redirect_dir=off,metacopy=off"
        options += ",index=off"
        if upper >= 0:
            # volatile: fsync(2) does nothing and unmounting does not flush the whole disk under the upper directory.
            options += f",upperdir={upper},workdir={work},volatile"
        os.chdir("/proc/self/fd")
        try:
            target = self.scratch.path(name)
            syscalls.mount("overlay", target, "overlay", flags, options, f"mount overlay for {what}")
        except OSError as error:
            if len(lowers) > _MOST_LAYERS:
                raise SandboxError(
                    f"{len(lowers)} layers are too many: the kernel merges {_MOST_LAYERS} at most; squash the base"
                ) from None
            if error.errno == errno.EINVAL and upper >= 0:
                error.strerror = (
                    f"{error.strerror} (is the store on an overlay itself, as in a container without a volume?)"
                )
            raise
        return self.scratch.open(name)

    def mount_requested(self) -> None:
        """Put the mounts that were asked for into place, in their order."""
        for source in self.sources.mounts:
            self._mount(source)

    def _mount(self, source: _MountSource) -> None:
        mount = source.mount
        what = f"mount {mount.kind} at {mount.target}"
        if mount.kind == "tmpfs":
            target = self._target(mount.target, directory=True)
            options = f"mode={mount.mode:o},uid={mount.uid},gid={mount.gid}"
            options += f",size={mount.size}" if mount.size else ""
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | (syscalls.MS_RDONLY if mount.read_only else 0)
            syscalls.mount("tmpfs", f"/proc/self/fd/{target}", "tmpfs", flags, options, what)
            return
        attributes = MOUNT_ATTR_NODEV if self.command.security == "sandbox" else 0
        if mount.read_only:
            attributes |= MOUNT_ATTR_RDONLY
        if mount.kind == "file":
            attributes |= MOUNT_ATTR_NOSUID | (0 if mount.mode & 0o111 else MOUNT_ATTR_NOEXEC)
            try:
                source.descriptor = self.scratch.file(mount.content, mount.mode, mount.uid, mount.gid)
            except OSError as error:
                raise SandboxError(f"{what}: owner {mount.uid}:{mount.gid}: {error.strerror}") from None
        self.bind(source.descriptor, mount.target, attributes, what, recursive=mount.kind == "bind")

    def bind(self, source: int, target: str, attributes: int, what: str, *, recursive: bool = False) -> None:
        """Show what `source` refers to at the path `target` of the root."""
        directory = stat.S_ISDIR(os.fstat(source).st_mode)
        point = self._target(target, directory=directory)
        if stat.S_ISDIR(os.fstat(point).st_mode) != directory:
            kinds = ("a directory", "a file") if directory else ("a file", "a directory")
            raise SandboxError(f"{what}: the source is {kinds[0]}, but the image has {kinds[1]} there")
        attach(source, point, attributes, what, recursive=recursive)
        os.close(point)

    def _target(self, path: str, *, directory: bool) -> int:
        """Open a mount point. It was planned, so it can be missing only in something that was mounted above."""
        try:
            return syscalls.open_in_root(self.descriptor, path)
        except FileNotFoundError:
            pass
        try:
            if directory:
                make_directories(self.descriptor, path)
            else:
                above, name = os.path.split(path.rstrip("/"))
                make_directories(self.descriptor, above)
                parent = syscalls.open_in_root(self.descriptor, above)
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=parent))
                os.close(parent)
        except OSError as error:
            raise SandboxError(f"mount point {path} cannot be made in another mount: {error.strerror}") from None
        return syscalls.open_in_root(self.descriptor, path)

    def enter(self) -> None:
        """Make it this process's root and leave nothing else mounted: pivot_root onto itself, then detach what was."""
        os.fchdir(self.descriptor)
        syscalls.pivot_root(".", ".")
        syscalls.umount(".", syscalls.MNT_DETACH)
        os.chdir("/")


def attach(source: int, point: int, attributes: int, what: str, *, recursive: bool = False) -> None:
    """Bind `source` onto `point`, both descriptors, with MOUNT_ATTR_* set before it can be seen."""
    tree = syscalls.open_tree(source, recursive=recursive, what=what)
    if attributes:
        syscalls.set_mount_attributes(tree, attributes, recursive=recursive, what=what)
    syscalls.move_mount(tree, point, what)
    os.close(tree)
