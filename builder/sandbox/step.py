"""The process that becomes the command: it makes its namespaces and its root, and gives up its privileges."""

from __future__ import annotations

import _socket
import os
import sys

from . import cgroups, landlock, namespaces, process, syscalls
from .command import Command, Profile, SandboxError
from .messages import (
    COMMAND,
    FORESEEN,
    STREAMS,
    describe,
    read_command,
    read_value,
    receive_descriptors,
    report,
    send_descriptors,
    write_value,
)
from .rootfs import Host, Root, Sources
from .scratch import Scratch, harmless_point, scratch_point
from .system import System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .helper import Helper

_ROOT, _STARTING, _SETTING_UP = b"r", b"s", b"f"  # kinds of reports, which are their first bytes
_LONGEST = 1 << 13  # bytes of a report


class Step:
    """The command and its streams come over `commands`, which closes when the command is executed; all that `profile`
    decides is set up before, and the root, too, if the command is foreseen.

    Over the same socket goes what there is to report, see `Reports`: the root, with a file that names the mount
    points that were made, and what goes wrong. Nobody reads it before the process has ended.
    """

    def __init__(
        self, helper: Helper, profile: Profile, commands: _socket.socket, group: cgroups.ControlGroup | None
    ) -> None:
        self.helper = helper
        self.profile = profile
        self.commands = commands
        self.group = group
        self.system: System | None = None

    def run(self) -> None:
        try:
            self._prepare()
            self._run()
        except process.StartError as error:
            self._report(_STARTING, str(error))
        except BaseException as error:  # without a report a defect would look like the command's own failure
            self._report(_SETTING_UP, describe(error))

    def _report(self, kind: bytes, text: str) -> None:
        self.commands.send(kind + report(text))

    def _prepare(self) -> None:
        os.setsid()
        os.umask(0)
        if self.group:
            self.group.join()
        namespaces.isolate(self.profile.network)
        process.leave_keyrings()
        self.capabilities = process.kept_capabilities(self.profile.security, self.helper.bounding)
        process.limit_capabilities(self.helper.bounding, self.capabilities)
        self.host = Host(self.helper.user_namespace)
        point = harmless_point()
        if point is not None:
            self.system = System(self.profile, self.host, Scratch(point))

    def _receive(self) -> tuple[Command, Root, list[int]]:
        """The command, the root that it was made, and its streams."""
        root: Root | None = None
        failure: Exception | None = None
        while True:
            data, descriptors = receive_descriptors(self.commands, 1, 1 + STREAMS)
            if not data:
                os._exit(0)  # there is no command for this process
            command = read_command(descriptors[0])
            if root is None and failure is None:
                try:
                    root = self._make_root(command, descriptors[1] if data == FORESEEN else -1)
                except (SandboxError, OSError) as error:
                    failure = error
            if data == COMMAND:
                if root is None:
                    raise failure or SandboxError("there is no root")
                if root.command.shape() != command.shape():
                    raise SandboxError("the command is not the one that was foreseen")
                root.command = command
                return command, root, descriptors[1:]

    def _make_root(self, command: Command, opened: int) -> Root:
        """The command's root, all but the mounts that it asks for. `opened` is closed when its layers are open."""
        try:
            sources = Sources(command)
        finally:
            if opened >= 0:
                os.close(opened)
        if self.helper.ruleset >= 0 and self.profile.security == "sandbox":
            landlock.confine(self.helper.ruleset)  # not before: layers may be mounts that belong to the client
        system = self.system or System(self.profile, self.host, Scratch(scratch_point()))
        root = Root(command, sources, system.scratch, self.helper.user_namespace)
        root.mount_layers()
        system.mount(root)
        return root

    def _run(self) -> None:
        command, root, streams = self._receive()
        root.mount_requested()
        process.own_pipes(streams, command.uid)
        if command.terminal is not None:
            from .terminal import control, open_terminal  # steps of a build do without

            streams = [open_terminal(root, command.terminal, command.uid, streams[2])] * STREAMS
            control(streams[0])
        elif len(streams) < STREAMS:
            streams.append(syscalls.open_in_root(root.descriptor, "/dev/null", os.O_RDONLY))
        # From here on an import would execute the image's files with all privileges.
        sys.path.clear()
        sys.meta_path.clear()
        root.enter()
        stubs = [write_value(root.stubs)] if root.stubs else []
        send_descriptors(self.commands, _ROOT, [root.descriptor, *stubs])
        syscalls.sethostname(command.hostname)
        os.dup2(streams[2], 0)
        os.dup2(streams[0], 1)
        os.dup2(streams[1], 2)
        self._close_all()
        process.set_limits(command.ulimits)
        inside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        process.enter_directory(inside, command)
        os.close(inside)
        process.become_user(command, self.capabilities, self.helper.filter)
        process.execute(command)

    def _close_all(self) -> None:
        """Close every descriptor but the standard ones and the way to report, which closes itself on exec."""
        kept = self.commands.fileno()
        if kept > 3:
            syscalls.close_range(3, kept - 1)
        syscalls.close_range(kept + 1, 0xFFFFFFFF)


class Reports:
    """What a process that is gone has reported: `root`, a descriptor of its root (-1 if it came to none), the mount
    points that were made in it, and the error, if any, with whether it was one of setting up."""

    def __init__(self, commands: _socket.socket) -> None:
        self.root = -1
        self.mount_points: tuple[str, ...] = ()
        self.error = ""
        self.setup_failed = False
        while True:
            try:
                data, descriptors = receive_descriptors(commands, _LONGEST, 2)
            except ConnectionError:  # said once, before what there is: it has left its command unread
                continue
            if not data:
                return
            if data == _ROOT and descriptors:
                self.root, *stubs = descriptors
                self.mount_points = read_value(stubs[0]) if stubs else ()
            else:
                self.error = data[1:].decode(errors="surrogateescape")
                self.setup_failed = data[:1] == _SETTING_UP
