"""What is asked of the sandbox and what it answers: plain classes that travel to the helper as tuples.

No `NamedTuple` or `dataclass`: `typing` and `dataclasses` would double the helper's start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

PROTECT = "protect"  # an argument of the helper: execute yourself again from a read-only mount


class SandboxError(Exception):
    """The sandbox itself cannot do what was asked on this machine; the text says what is missing."""


class Record:
    """Values with names, equal if their values are; `pack` and `unpack` turn it into a tuple and back."""

    __slots__: tuple[str, ...] = ()

    def pack(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    @classmethod
    def unpack(cls, values: tuple[Any, ...]) -> Self:
        record = cls.__new__(cls)
        for name, value in zip(cls.__slots__, values, strict=True):
            setattr(record, name, value)
        return record

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and type(other) is type(self) and self.pack() == other.pack()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


class Mount(Record):
    """Something put at the absolute path `target` of the step's root.

    `kind` is
    - `bind`: the host's file or directory `source` (a socket, too), with what is mounted below it;
    - `overlay`: the directories `lowers` (the topmost first) merged, with `upper` and `work` to catch what is written,
      or read-only without them;
    - `tmpfs`: an empty directory in memory of at most `size` bytes (0: the kernel's default), with `mode`;
    - `file`: a file in memory that holds `content`, with `mode`, `uid` and `gid`; a secret never reaches a disk.
    `subpath` chooses a file or directory inside `source` or the merged directories, links resolved inside.
    A mount point that the image lacks exists for this step only.
    """

    __slots__ = (  # noqa: RUF023
        "target", "kind", "source", "lowers", "upper", "work", "subpath", "content", "read_only", "mode", "uid", "gid",
        "size",
    )  # fmt: skip

    def __init__(
        self,
        target: str,
        kind: str = "bind",
        *,
        source: str = "",
        lowers: tuple[str, ...] = (),
        upper: str = "",
        work: str = "",
        subpath: str = "",
        content: bytes = b"",
        read_only: bool = True,
        mode: int = 0o1777,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
    ) -> None:
        if kind not in ("bind", "overlay", "tmpfs", "file"):
            raise ValueError(f"a mount cannot be of kind {kind!r}")
        self.target = target
        self.kind = kind
        self.source = source
        self.lowers = tuple(lowers)
        self.upper = upper
        self.work = work
        self.subpath = subpath
        self.content = content
        self.read_only = read_only
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size


class Profile(Record):
    """What of a command can be set up before the command itself is known; see `Command` for the meanings."""

    __slots__ = ("network", "security", "shm_size", "memory", "cpus")  # noqa: RUF023

    def __init__(self, network: str, security: str, shm_size: int, memory: int, cpus: float) -> None:
        self.network = network
        self.security = security
        self.shm_size = shm_size
        self.memory = memory
        self.cpus = cpus


_FREE = frozenset(
    ("arguments", "environment", "lowers", "upper", "work", "groups", "hostname", "ulimits", "terminal", "root")
)  # fmt: skip


class Command(Record):
    """A command and all that it may see.

    - `arguments`: the program and its arguments; a name without a slash is searched in PATH inside the root.
    - `environment`: `NAME=value`s, complete: nothing is added.
    - `lowers`: the root's layers as directories, the topmost first; `upper` and `work`: empty directories on one file
      system (not an overlay) that catch what is written. The owner and mode of `upper` are those of `/`. Both serve
      one command only: the mount is volatile, so nothing is flushed to disk and `work` cannot be used again.
    - `directory`: where it starts, made with owner uid:gid and mode 755 if missing.
    - `uid`, `gid`, `groups`: numbers; `groups` are supplementary.
    - `network`: `none` (a loopback interface and nothing else), or `host` and `default`, which share the host's.
    - `security`: `sandbox`, or `insecure` (all capabilities, no seccomp filter, nothing masked).
    - `hosts`, `resolv_conf`: the texts of /etc/hosts and /etc/resolv.conf, read-only; None leaves the image's.
    - `shm_size` bytes of /dev/shm (0: 64 MiB); `ulimits`: (name as in `ulimit`, soft, hard), -1 for unlimited.
    - `memory` bytes (and as much swap again, as Docker), `cpus` processors: 0 for no limit.
    - `terminal`: rows and columns of a terminal of its own, None for none; `Sandbox.attach` sets it.
    - `root`: the name under which `Sandbox.foresee` was told of its root, "" if it was not.
    """

    __slots__ = (  # noqa: RUF023
        "arguments", "environment", "lowers", "upper", "work", "mounts", "directory", "uid", "gid", "groups",
        "network", "security", "hostname", "hosts", "resolv_conf", "shm_size", "ulimits", "memory", "cpus", "terminal",
        "root",
    )  # fmt: skip

    def __init__(
        self,
        arguments: tuple[str, ...],
        *,
        lowers: tuple[str, ...] = (),
        upper: str,
        work: str,
        environment: tuple[str, ...] = (),
        mounts: tuple[Mount, ...] = (),
        directory: str = "/",
        uid: int = 0,
        gid: int = 0,
        groups: tuple[int, ...] = (),
        network: str = "default",
        security: str = "sandbox",
        hostname: str = "buildkitsandbox",
        hosts: str | None = None,
        resolv_conf: str | None = None,
        shm_size: int = 0,
        ulimits: tuple[tuple[str, int, int], ...] = (),
        memory: int = 0,
        cpus: float = 0.0,
        terminal: tuple[int, int] | None = None,
        root: str = "",
    ) -> None:
        if network not in ("default", "host", "none"):
            raise ValueError(f"there is no network {network!r}")
        if security not in ("sandbox", "insecure"):
            raise ValueError(f"there is no security mode {security!r}")
        self.arguments = tuple(arguments)
        self.environment = tuple(environment)
        self.lowers = tuple(lowers)
        self.upper = upper
        self.work = work
        self.mounts = tuple(mounts)
        self.directory = directory
        self.uid = uid
        self.gid = gid
        self.groups = tuple(groups)
        self.network = network
        self.security = security
        self.hostname = hostname
        self.hosts = hosts
        self.resolv_conf = resolv_conf
        self.shm_size = shm_size
        self.ulimits = tuple(ulimits)
        self.memory = memory
        self.cpus = cpus
        self.terminal = terminal
        self.root = root

    def profile(self) -> Profile:
        return Profile(self.network, self.security, self.shm_size, self.memory, self.cpus)

    def shape(self) -> tuple[object, ...]:
        """All that its root depends on but the layers."""
        return tuple(getattr(self, name) for name in self.__slots__ if name not in _FREE)

    def pack(self) -> tuple[Any, ...]:
        return tuple(
            tuple(mount.pack() for mount in self.mounts) if name == "mounts" else getattr(self, name)
            for name in self.__slots__
        )

    @classmethod
    def unpack(cls, values: tuple[Any, ...]) -> Self:
        command = super().unpack(values)
        command.mounts = tuple(Mount.unpack(mount) for mount in command.mounts)  # type: ignore[arg-type]
        return command


class Result(Record):
    """How a command ended.

    - `exit_status`: 0–255, or None if it was ended by `signal` or did not start; `signal`: its number, or 0.
    - `error`: why the command could not be started ("" if it was); `setup_failed` says that it was the sandbox that
      failed and not the command's name, directory or format.
    - `cancelled`: it was ended by `Sandbox.cancel`; `out_of_memory`: the kernel killed a process for its memory limit.
    - `duration`, `user_time`, `system_time` in seconds; `max_memory` in bytes, of its largest process.
    - `mount_points`: paths that existed for this step only; a whiteout of one in `upper` means nothing.
    - `written`: a path that was mounted read-only and that the command wrote to all the same, where the sandbox could
      not prevent it; "" for none. What was written is lost.
    """

    __slots__ = (  # noqa: RUF023
        "exit_status", "signal", "error", "setup_failed", "cancelled", "out_of_memory", "duration", "user_time",
        "system_time", "max_memory", "mount_points", "written",
    )  # fmt: skip

    def __init__(
        self,
        exit_status: int | None = None,
        *,
        signal: int = 0,
        error: str = "",
        setup_failed: bool = False,
        cancelled: bool = False,
        out_of_memory: bool = False,
        duration: float = 0.0,
        user_time: float = 0.0,
        system_time: float = 0.0,
        max_memory: int = 0,
        mount_points: tuple[str, ...] = (),
        written: str = "",
    ) -> None:
        self.exit_status = exit_status
        self.signal = signal
        self.error = error
        self.setup_failed = setup_failed
        self.cancelled = cancelled
        self.out_of_memory = out_of_memory
        self.duration = duration
        self.user_time = user_time
        self.system_time = system_time
        self.max_memory = max_memory
        self.mount_points = mount_points
        self.written = written
