"""Removes what is no longer needed beside the work, in one thread: taking a step's directories away takes the file
system as long as a tenth of the step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Janitor:
    """Calls `remove` with one path after the other. Errors are ignored: what stays is swept by a later process."""

    def __init__(self, remove: Callable[[str], None]) -> None:
        self._remove = remove
        self._paths: SimpleQueue[str | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def discard(self, path: str) -> None:
        """Have `path` removed soon."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)
                self._thread.start()
        self._paths.put(path)

    def finish(self) -> None:
        """Wait until all is removed."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._paths.put(None)
            thread.join()

    def _work(self) -> None:
        while (path := self._paths.get()) is not None:
            try:
                self._remove(path)
            except OSError:
                continue
