"""Which boot of the machine this is: what was not flushed to the disk is believed until the next one.

Standard library only, since a repeated build (`api.repeat`) loads nothing else.
"""

from __future__ import annotations

UNKNOWN = "unknown"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def current_boot(path: str = _BOOT_ID) -> str:
    """A name of this boot, UNKNOWN where the kernel does not tell."""
    try:
        with open(path, "rb") as file:  # as text it would take a module for its encoding
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return UNKNOWN
