"""The last steps of a process before it becomes the command: limits, directory, user, capabilities, seccomp, exec.

The order is runc's for a process that may gain privileges (BuildKit lets it): the seccomp filter is loaded while
CAP_SYS_ADMIN is still there, everything after it is a call that the filter allows.
"""

from __future__ import annotations

import errno
import os
import resource
import stat

from . import capabilities, syscalls
from .command import Command
from .lookup import make_directories

SIGNALS_IGNORED_BY_PYTHON = (13, 25)  # SIGPIPE, SIGXFSZ: ignored signals stay ignored over exec

_NO_ID = " (a user namespace without this id?)"
_DEFAULT = capabilities.mask(capabilities.DEFAULT)


class StartError(Exception):
    """The command cannot be started: its name, directory or format is wrong, not the sandbox."""


def set_limits(ulimits: tuple[tuple[str, int, int], ...]) -> None:
    """setrlimit(2) for names as in Docker's `--ulimit` (`nofile`, `nproc`, …)."""
    for name, soft, hard in ulimits:
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None:
            raise StartError(f"there is no ulimit {name!r}")
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError) as error:
            raise StartError(f"ulimit {name}={soft}:{hard}: {error}") from None


def leave_keyrings() -> None:
    """A session keyring of its own; where keys are compiled out or denied there is none to be seen either."""
    try:
        syscalls.join_session_keyring("_builder")
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
            raise


def enter_directory(root: int, command: Command) -> None:
    """chdir to the command's directory, which must lie in the root (in CVE-2024-21626 it was a leaked descriptor)."""
    path = command.directory
    try:
        make_directories(root, path, (command.uid, command.gid))  # if it is in a mount: else it was made before
        descriptor = syscalls.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
        os.fchdir(descriptor)
        os.close(descriptor)
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        raise StartError(f"working directory {path}: no such directory") from None
    except OSError as error:
        raise StartError(f"working directory {path}: {error.strerror}") from None
    if not inside:
        raise StartError(f"working directory {path} is outside the root")


def kept_capabilities(security: str, bounding: int) -> int:
    """The bounding set of a command, of which `bounding` is that of this process: Docker's default set, or all."""
    return _DEFAULT & bounding if security == "sandbox" else bounding


def limit_capabilities(bounding: int, keep: int) -> None:
    """Make `keep` this process's bounding set, which is `bounding` so far; what it holds itself stays until exec."""
    capabilities.limit_bounding(bounding, keep)


def own_pipes(streams: list[int], uid: int) -> None:
    """Let the user open its streams again, by /dev/stdout and the like, as under runc."""
    if uid:
        for stream in streams:
            try:
                os.fchown(stream, uid, -1)
            except OSError as error:
                raise StartError(f"user {uid}: {error.strerror}{_NO_ID}") from None


def become_user(command: Command, keep: int, seccomp_filter: bytes | None) -> None:
    """The filter (None: there is one already), then ids and capabilities: for uid 0 the set `keep`, which is the
    bounding set, for others none."""
    sandboxed = command.security == "sandbox"
    if sandboxed:
        if seccomp_filter is not None:
            syscalls.install_filter(seccomp_filter)
    else:
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    _set_ids(command)
    if not sandboxed:  # as BuildKit: every set, so that another user than root has them, too
        syscalls.capset(keep, keep, keep)
        for position in range(keep.bit_length()):
            if keep >> position & 1:
                syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, position)
    elif command.uid == 0:
        syscalls.capset(keep, keep, 0)


def _set_ids(command: Command) -> None:
    groups = tuple(dict.fromkeys((command.gid, *command.groups)))
    try:
        _set_groups(command, groups)
        os.setresgid(command.gid, command.gid, command.gid)
        os.setresuid(command.uid, command.uid, command.uid)
    except OSError as error:
        ids = f"user {command.uid}, groups {' '.join(map(str, groups))}"
        raise StartError(f"{ids}: {error.strerror}{_NO_ID}") from None


def _set_groups(command: Command, groups: tuple[int, ...]) -> None:
    try:
        os.setgroups(groups)
    except PermissionError:
        # A user namespace with a single id must not change its groups; that only matters if some were asked for.
        if set(command.groups) - {command.gid}:
            raise


def execute(command: Command) -> None:
    """Become the command. Returns never; raises StartError with a text like runc's."""
    environment: dict[str, str] = {}
    for entry in command.environment:
        name, _, value = entry.partition("=")
        if name:  # an image may have entries without, which execve(2) takes and nobody can read
            environment[name] = value
    for number in SIGNALS_IGNORED_BY_PYTHON:
        syscalls.default_signal(number)
    program = _search(command.arguments[0], environment.get("PATH", ""))
    os.umask(0o022)
    try:
        os.execve(program, command.arguments, environment)
    except OSError as error:
        reason = (error.strerror or "").lower()
        if error.errno == errno.ENOENT:
            reason += " (the interpreter or dynamic loader that it names is missing in the image)"
        elif error.errno == errno.ENOEXEC:
            reason += " (neither a program for this machine nor a script that starts with #!)"
        raise StartError(f"exec {program}: {reason}") from None


def _search(name: str, path: str) -> str:
    if not name:
        raise StartError("exec: the name of the program is empty")
    if "/" in name:
        problem = _unusable(name)
        if problem:
            raise StartError(f'exec: "{name}": {problem}')
        return name
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        if not _unusable(candidate):
            return candidate
    raise StartError(f'exec: "{name}": executable file not found in $PATH')


def _unusable(path: str) -> str:
    """Why a file cannot be executed by this user, or nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"stat {path}: {(error.strerror or '').lower()}"
    if stat.S_ISDIR(mode):
        return "is a directory"
    if not os.access(path, os.X_OK, effective_ids=True):
        return "permission denied"
    return ""
