"""The helper: one single-threaded process that forks a guard for each command.

A request is one byte on the helper's socket that carries three descriptors: the command's own socket, its standard
output and its standard error. The guard reads the `Command` from that socket, forks it, and answers with the `Result`.

    client ── helper ── guard (process 1 of an outer PID namespace) ── command (process 1 of an inner one)

The command itself is process 1, as under runc: when it ends the kernel kills what it left running. The guard's only
purpose is to be alive: it dies with the helper (PDEATHSIG), is the first process of a namespace that the kernel then
empties, and never executes anything that could take the signal away. The helper ends when the client's end of the
socket closes, which no kind of death prevents; the guard sees the same on the command's socket.
"""

from __future__ import annotations

import _socket
import gc
import marshal
import os
import select
import sys
import time

from . import capabilities, cgroups, namespaces, process, syscalls
from .command import PROTECT, Command, Result, SandboxError
from .rootfs import Root, Sources
from .seccomp import build_filter
from .system import System

_SIGKILL = 9
_LENGTH = 8
_MOUNT_POINTS, _STARTING, _SETTING_UP = "mount points", "start", "set-up"  # kinds of a step's reports


class Helper:
    """Serves requests on `socket` until its other end is closed."""

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.count = 0
        self.filter = build_filter(capabilities.DEFAULT, syscalls.MACHINE)
        self.bounding = capabilities.bounding()
        self.user_namespace = namespaces.in_user_namespace()
        self.pid_namespace = namespaces.own_pid_namespace(socket)

    def serve(self) -> None:
        space = _socket.CMSG_SPACE(3 * 4)
        while True:
            data, ancillary, _, _ = self.socket.recvmsg(1, space)
            if not data:
                return
            descriptors = [
                int.from_bytes(payload[i : i + 4], sys.byteorder)
                for level, kind, payload in ancillary
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS
                for i in range(0, len(payload), 4)
            ]
            self.count += 1
            self._start(descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            self._reap()

    def _start(self, descriptors: list[int]) -> None:
        name = f"{os.getpid()}-{self.count}"
        control = _socket.socket(fileno=os.dup(descriptors[0]))
        try:
            child = namespaces.fork_into_pid_namespace(self.pid_namespace)
        except OSError as error:
            _answer(control, Result(error=_describe(error), setup_failed=True))
            control.close()
            return
        if child == 0:
            status = 1
            try:
                self.socket.close()
                os.close(descriptors[0])
                Guard(self, control, descriptors[1:], name).run()
                status = 0
            finally:
                os._exit(status)
        control.close()

    def _reap(self) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


class Guard:
    """Runs one command and answers on `control`."""

    def __init__(self, helper: Helper, control: _socket.socket, outputs: list[int], name: str) -> None:
        self.helper = helper
        self.control = control
        self.outputs = outputs
        self.name = name

    def run(self) -> None:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)
        try:
            result = self._run(Command.unpack(marshal.loads(self._receive())))
        except (SandboxError, OSError) as error:
            result = Result(error=_describe(error), setup_failed=True)
        _answer(self.control, result)

    def _receive(self) -> bytes:
        length = int.from_bytes(self._exactly(_LENGTH), "little")
        return self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        parts = []
        while length:
            part = self.control.recv(min(length, 1 << 20))
            if not part:
                os._exit(1)  # the client is gone
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _run(self, command: Command) -> Result:
        group = cgroups.ControlGroup(self.name, command) if cgroups.needed(command) else None
        started = time.monotonic()
        reports, report = os.pipe2(os.O_CLOEXEC)
        syscalls.unshare(syscalls.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            try:
                os.close(reports)
                Step(self.helper, command, self.outputs, report, group).run()
            finally:
                os._exit(1)
        os.close(report)
        for descriptor in self.outputs:
            os.close(descriptor)
        cancelled = self._wait(child)
        _, status, usage = os.wait4(child, 0)
        duration = time.monotonic() - started
        mount_points, error, setup_failed = _read_reports(reports)
        code = os.waitstatus_to_exitcode(status)
        result = Result(
            None if error or code < 0 else code,
            signal=-code if code < 0 else 0,
            error=error,
            setup_failed=setup_failed,
            cancelled=cancelled,
            duration=duration,
            user_time=usage.ru_utime,
            system_time=usage.ru_stime,
            max_memory=usage.ru_maxrss * 1024,
            mount_points=mount_points,
        )
        if group:
            result.out_of_memory = group.out_of_memory()
            group.remove()
        return result

    def _wait(self, child: int) -> bool:
        """Wait for the command's end; kill it, and say so, if the client hangs up."""
        ended = os.pidfd_open(child)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self.control.fileno(), select.POLLIN)
        cancelled = False
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if ended in ready:
                os.close(ended)
                return cancelled
            cancelled = True
            poll.unregister(self.control.fileno())
            os.kill(child, _SIGKILL)


class Step:
    """The process that becomes the command. What goes wrong is written to `report`, which closes when it succeeds."""

    def __init__(
        self, helper: Helper, command: Command, outputs: list[int], report: int, group: cgroups.ControlGroup | None
    ) -> None:
        self.helper = helper
        self.command = command
        self.outputs = outputs
        self.report = report
        self.group = group

    def run(self) -> None:
        try:
            self._run()
        except process.StartError as error:
            self._report(_STARTING, str(error))
        except (SandboxError, OSError) as error:
            self._report(_SETTING_UP, _describe(error))
        except BaseException as error:  # a defect: without a report it would look like the command's own failure
            self._report(_SETTING_UP, f"unexpected {type(error).__name__}: {error}")

    def _report(self, kind: str, *texts: str) -> None:
        os.write(self.report, "\0".join((kind, *texts)).encode(errors="surrogateescape") + b"\0\0")

    def _run(self) -> None:
        command = self.command
        os.setsid()
        os.umask(0)
        if self.group:
            self.group.join()
        namespaces.isolate(command.network)
        sources = Sources(command, self.helper.user_namespace)
        root = Root(command, sources, self.helper.user_namespace)
        root.mount_layers()
        System(root).mount()
        root.mount_requested()
        null = syscalls.open_in_root(root.descriptor, "/dev/null", os.O_RDONLY)
        # From here on an import would execute the image's files with all privileges.
        sys.path.clear()
        sys.meta_path.clear()
        root.enter()
        if root.stubs:
            self._report(_MOUNT_POINTS, *root.stubs)
        syscalls.sethostname(command.hostname)
        os.dup2(null, 0)
        os.dup2(self.outputs[0], 1)
        os.dup2(self.outputs[1], 2)
        self._close_all()
        process.set_limits(command.ulimits)
        process.leave_keyrings()
        inside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        process.enter_directory(inside, command)
        os.close(inside)
        process.become_user(command, self.helper.bounding, self.helper.filter)
        process.execute(command)

    def _close_all(self) -> None:
        """Close every descriptor but the standard ones and the report, which closes itself on exec."""
        if self.report > 3:
            syscalls.close_range(3, self.report - 1)
        syscalls.close_range(self.report + 1, 0xFFFFFFFF)


def _read_reports(descriptor: int) -> tuple[tuple[str, ...], str, bool]:
    """The mount points that were made, the error, and whether it was one of setting up; the process is gone."""
    data = b""
    while part := os.read(descriptor, 65536):
        data += part
    mount_points: tuple[str, ...] = ()
    error, setup_failed = "", False
    for record in data.decode(errors="surrogateescape").split("\0\0")[:-1]:
        kind, *texts = record.split("\0")
        if kind == _MOUNT_POINTS:
            mount_points = tuple(texts)
        else:
            error, setup_failed = texts[0], kind == _SETTING_UP
    return mount_points, error, setup_failed


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _answer(control: _socket.socket, result: Result) -> None:
    try:
        control.sendall(marshal.dumps(result.pack()))
    except OSError:
        return  # the client is gone


def _protect() -> None:
    """Execute this again from a read-only mount, in a new mount namespace, which a user namespace can always make."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    program = syscalls.read_only_copy(os.open(os.path.realpath(sys.executable), os.O_PATH | os.O_CLOEXEC))
    os.set_inheritable(3, True)
    os.execve(f"/proc/self/fd/{program}", sys.orig_argv[:-1], os.environ)


def main() -> None:
    """Serve on descriptor 3."""
    if sys.argv[-1] == PROTECT:
        _protect()
    gc.disable()
    socket = _socket.socket(fileno=3)
    os.set_inheritable(3, False)
    Helper(socket).serve()
