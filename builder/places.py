"""Where things lie on this machine: the store, the configuration files.

Standard library only, since a repeated build (`api.repeat`) loads nothing else.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_FILE = "/etc/builder/builder.toml"


def default_root(environ: Mapping[str, str]) -> str:
    """Where images, layers and cache live: `$BUILDER_ROOT`, `/var/lib/builder` for root, else the user's data."""
    if root := environ.get("BUILDER_ROOT"):
        return root
    if os.geteuid() == 0:
        return "/var/lib/builder"
    return os.path.join(_base(environ, "XDG_DATA_HOME", os.path.join(".local", "share")), "builder")


def configuration_directory(environ: Mapping[str, str]) -> str:
    """The user's directory for the configuration of all programs."""
    return _base(environ, "XDG_CONFIG_HOME", ".config")


def configuration_files(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The files to read, the later going before the earlier; that of `$BUILDER_CONFIG` must exist."""
    if named := environ.get("BUILDER_CONFIG"):
        return (named,)
    return (SYSTEM_FILE, os.path.join(configuration_directory(environ), "builder", "builder.toml"))


def _base(environ: Mapping[str, str], variable: str, below_home: str) -> str:
    # The base directory specification: a relative path in $XDG_… is to be ignored.
    given = environ.get(variable, "")
    return given if os.path.isabs(given) else os.path.join(environ.get("HOME") or os.path.expanduser("~"), below_home)
