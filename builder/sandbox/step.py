"""The process that becomes the command: it makes its namespaces and its root, and gives up its privileges."""

from __future__ import annotations

import _socket
import os
import sys

from . import cgroups, namespaces, process, syscalls
from .command import Command, Profile, SandboxError
from .messages import STREAMS, describe, read_command, receive_descriptors
from .rootfs import Host, Root, Scratch, Sources, harmless_point, scratch_point
from .system import System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .helper import Helper

_MOUNT_POINTS, _STARTING, _SETTING_UP = "mount points", "start", "set-up"  # kinds of reports


class Step:
    """What goes wrong is written to `report`, which closes when the command is executed.

    The command and its streams come over `commands`; all that `profile` decides is set up before.
    """

    def __init__(
        self,
        helper: Helper,
        profile: Profile,
        commands: _socket.socket,
        report: int,
        group: cgroups.ControlGroup | None,
    ) -> None:
        self.helper = helper
        self.profile = profile
        self.commands = commands
        self.report = report
        self.group = group
        self.system: System | None = None

    def run(self) -> None:
        try:
            self._prepare()
            self._run()
        except process.StartError as error:
            self._report(_STARTING, str(error))
        except (SandboxError, OSError) as error:
            self._report(_SETTING_UP, describe(error))
        except BaseException as error:  # a defect: without a report it would look like the command's own failure
            self._report(_SETTING_UP, f"unexpected {type(error).__name__}: {error}")

    def _report(self, kind: str, *texts: str) -> None:
        os.write(self.report, "\0".join((kind, *texts)).encode(errors="surrogateescape") + b"\0\0")

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

    def _receive(self) -> tuple[Command, list[int]]:
        data, descriptors = receive_descriptors(self.commands, 1, 1 + STREAMS)
        if not data:
            os._exit(0)  # there is no command for this process
        return read_command(descriptors[0]), descriptors[1:]

    def _run(self) -> None:
        command, streams = self._receive()
        sources = Sources(command)
        system = self.system or System(self.profile, self.host, Scratch(scratch_point()))
        root = Root(command, sources, system.scratch, self.helper.user_namespace)
        root.mount_layers()
        system.mount(root)
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
        if root.stubs:
            self._report(_MOUNT_POINTS, *root.stubs)
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
        """Close every descriptor but the standard ones and the report, which closes itself on exec."""
        if self.report > 3:
            syscalls.close_range(3, self.report - 1)
        syscalls.close_range(self.report + 1, 0xFFFFFFFF)


def read_reports(descriptor: int) -> tuple[tuple[str, ...], str, bool]:
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
