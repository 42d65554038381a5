"""The record of a build while it is written: the logs of its steps as they come, and all the rest when it ends."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any, BinaryIO

import msgspec

from builder.errors import StoreError
from builder.store.builds import Build
from builder.store.record_names import LOG, RECORD, record_stem


class Recorder:
    """What becomes the record of one build. Threads may share it."""

    def __init__(self, path: str, temporary: str) -> None:
        self.started = time.time()
        self.build = os.urandom(4).hex()
        self._path = os.path.join(path, record_stem(self.started, self.build))
        self._temporary = temporary
        self._logs: dict[str, BinaryIO] = {}
        self._held: int | None = None  # the directory of the logs, locked until the record is written
        self._lock = threading.Lock()
        self.log_sizes: dict[str, int] = {}

    def log(self, step: str, data: bytes) -> None:
        """Keep what a step wrote. A log that cannot be written is cut there: that fails no build."""
        with self._lock, contextlib.suppress(OSError):
            file = self._logs.get(step)
            if file is None:
                self._hold()
                path = os.path.join(self._path, f"{step}{LOG}")
                file = self._logs[step] = open(path, "ab", buffering=0)  # noqa: SIM115  # `finish` closes it
            file.write(data)
            self.log_sizes[step] = self.log_sizes.get(step, 0) + len(data)

    def _hold(self) -> None:
        """Make the directory of the logs, and tell others that this build runs. Raises OSError."""
        if self._held is not None:
            return
        import fcntl

        os.makedirs(self._path, mode=0o700, exist_ok=True)
        self._held = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._held, fcntl.LOCK_SH)

    def finish(self, build: Build) -> None:
        """Write the record, which appears whole. Raises StoreError."""
        with self._lock:
            for file in self._logs.values():
                file.close()
        temporary = os.path.join(self._temporary, f"build.{self.build}")
        try:
            with open(temporary, "wb") as file:
                file.write(_encode(build))
            os.rename(temporary, self._path + RECORD)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise StoreError(f"the build cannot be recorded: {error.strerror}", place=self._path) from error
        finally:
            if self._held is not None:
                os.close(self._held)
                self._held = None


def _encode(build: Build) -> bytes:
    """The record as JSON. Of texts that are not Unicode (bytes of file names) the digits are kept."""
    try:
        return msgspec.json.encode(build)
    except UnicodeEncodeError:
        exact = msgspec.structs.replace(build, images=())  # a configuration is known exactly, or not at all
        return msgspec.json.encode(_printable(msgspec.to_builtins(exact)))


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(inner) for inner in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
