"""What is done beside the work, in one thread: directories are removed that are no longer needed, and those made that
the next step will need. Either takes the file system as long as a tenth of a step."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue


class Janitor:
    """Does one thing after the other. Errors of the operating system are ignored: what stays is swept by a later
    process, what was not made is made when it is needed."""

    def __init__(self, remove: Callable[[str], None]) -> None:
        self._remove = remove
        self._tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._spares: list[Spares] = []

    def discard(self, path: str) -> None:
        """Have `path` removed soon."""
        self._do(lambda: self._remove(path))

    def spares(self, make: Callable[[], str]) -> Spares:
        """Directories that `make` makes; the one after next is made beside the work."""
        found = Spares(make, self._do)
        self._spares.append(found)
        return found

    def _do(self, task: Callable[[], object]) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)
                self._thread.start()
        self._tasks.put(task)

    def finish(self) -> None:
        """Wait until all is removed, also what nobody took."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._tasks.put(None)
            thread.join()
        for spares in self._spares:
            for path in spares.left():
                with suppress(OSError):
                    self._remove(path)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            with suppress(OSError):
                task()


class Spares:
    """Directories of one kind, for any number of threads. Each time that one is taken another is made."""

    def __init__(self, make: Callable[[], str], do: Callable[[Callable[[], object]], None]) -> None:
        self._make = make
        self._do = do
        self._ready: deque[str] = deque()

    def take(self) -> str:
        """A new directory, the caller's from now on. Raises what `make` raises."""
        try:
            path = self._ready.popleft()
        except IndexError:
            path = self._make()
        self._do(lambda: self._ready.append(self._make()))
        return path

    def left(self) -> list[str]:
        """Take all that are ready."""
        left, self._ready = list(self._ready), deque()
        return left
