"""What the kernel refuses for a moment, because it still ends what a process has left."""

from __future__ import annotations

import errno
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = (0.001, 0.01, 0.02)  # seconds between attempts


def until_free(act: Callable[[], object]) -> bool:
    """Act, and again while that is refused with EBUSY. Whether it was not, in the end; other errors are passed over."""
    for seconds in (*PATIENCE, 0):
        try:
            act()
        except OSError as error:
            if error.errno == errno.EBUSY:
                time.sleep(seconds)
                continue
        return True
    return False
