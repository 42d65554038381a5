"""What is done while a step's command runs, and its thread only waits: directories are removed that are no longer
needed, and made that the next step will need. Either takes the file system as long as a tenth of a step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from builder.errors import StoreError


class Janitor:
    """Keeps what is to be removed and to be made. For any number of threads.

    Errors are ignored: what stays is swept by a later process, what was not made is made when it is needed.
    """

    def __init__(self, remove: Callable[[str], None]) -> None:
        self._remove = remove
        self._doomed: deque[str] = deque()
        self._spares: list[Spares] = []

    def discard(self, path: str) -> None:
        """Have `path` removed some time, at the latest at the end."""
        self._doomed.append(path)

    def spares(self, make: Callable[[], str], renew: Callable[[str], object] | None = None) -> Spares:
        """Directories that `make` makes; `renew` makes one that was used be as new."""
        found = Spares(make, renew)
        self._spares.append(found)
        return found

    def catch_up(self) -> None:
        """Do all that there is to do."""
        for spares in self._spares:
            with suppress(OSError, StoreError):
                spares.refill()
        self._remove_all()

    def finish(self) -> None:
        """Remove what is to be removed, and what was made and nobody took."""
        for spares in self._spares:
            self._doomed.extend(spares.left())
        self._remove_all()

    def _remove_all(self) -> None:
        while True:
            try:
                path = self._doomed.popleft()
            except IndexError:
                return
            with suppress(OSError):
                self._remove(path)


class Spares:
    """Directories of one kind, as many ready as were taken at once so far."""

    def __init__(self, make: Callable[[], str], renew: Callable[[str], object] | None = None) -> None:
        self._make = make
        self._renew = renew
        self._ready: deque[str] = deque()
        self._used: deque[str] = deque()
        self._wanted: deque[None] = deque()  # one for each that was taken and not made again

    def take(self) -> str:
        """A new directory, the caller's from now on. Raises what `make` raises."""
        self._wanted.append(None)
        try:
            return self._ready.popleft()
        except IndexError:
            return self._make()

    def give_back(self, path: str) -> None:
        """Have a directory renewed that was taken, rather than another made. One that cannot be is tried again, and
        removed at last."""
        self._used.append(path)

    def refill(self) -> None:
        """Make as many ready as were taken since. Raises what `make` and `renew` raise."""
        while self._is_wanted():
            self._ready.append(self._next())

    def _is_wanted(self) -> bool:
        try:
            self._wanted.popleft()
        except IndexError:
            return False
        return True

    def _next(self) -> str:
        if self._renew is None:
            return self._make()
        try:
            path = self._used.popleft()
        except IndexError:
            return self._make()
        try:
            self._renew(path)
        except BaseException:
            self._used.append(path)
            raise
        return path

    def left(self) -> list[str]:
        """Take all that are here."""
        left, self._ready, self._used = [*self._ready, *self._used], deque(), deque()
        return left
