"""Work done at once, for tests of what happens then."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from typing import Any

Work = Callable[[], object]


def together(*works: Work, processes: Sequence[Work] = (), method: str = "spawn", seconds: float = 60) -> None:
    """Do all of this at once, each in a thread, or in a process that `method` makes, to the end. Raises what one of the
    threads raised; each process must do, and everything within so many seconds."""
    failures: list[BaseException] = []

    def kept(work: Work) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    context: Any = multiprocessing.get_context(method)
    others = [context.Process(target=work) for work in processes]
    threads = [threading.Thread(target=kept, args=(work,), daemon=True) for work in works]
    everyone: list[Any] = [*others, *threads]
    for one in everyone:
        one.start()
    for one in everyone:
        one.join(seconds)
    if failures:
        raise failures[0]
    assert not any(one.is_alive() for one in everyone), "it did not end"
    assert [other.exitcode for other in others] == [0] * len(others)
