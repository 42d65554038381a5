"""Where things lie on this machine: the store, the configuration files.

Standard library only but for a failure, since a repeated build (`api.repeat`) loads nothing else.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.errors import StoreError

SYSTEM_FILE = "/etc/builder/builder.toml"


def default_root(environ: Mapping[str, str]) -> str:
    """Where images, layers and cache live: `$BUILDER_ROOT`, `/var/lib/builder` for root, else the user's data.

    Raises StoreError for a user without a home directory."""
    root = find_root(environ)
    if root is None:
        raise no_root()
    return root


def find_root(environ: Mapping[str, str]) -> str | None:
    """The same; None for a user without a home directory."""
    if root := environ.get("BUILDER_ROOT"):
        return root
    if os.geteuid() == 0:
        return "/var/lib/builder"
    data = _base(environ, "XDG_DATA_HOME", os.path.join(".local", "share"))
    return data and os.path.join(data, "builder")


def no_root() -> StoreError:
    """The error that says that there is no place for a store."""
    from builder.errors import StoreError

    return StoreError(
        f"it is not known where the store is: HOME is not set, and user {os.getuid()} has no home directory",
        remedy="set HOME, or give --root DIR",
    )


def configuration_directory(environ: Mapping[str, str]) -> str | None:
    """The user's directory for the configuration of all programs; None for a user without a home directory."""
    return _base(environ, "XDG_CONFIG_HOME", ".config")


def configuration_files(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The files to read, the later going before the earlier; that of `$BUILDER_CONFIG` must exist."""
    if named := environ.get("BUILDER_CONFIG"):
        return (named,)
    user = configuration_directory(environ)
    return (SYSTEM_FILE, os.path.join(user, "builder", "builder.toml")) if user else (SYSTEM_FILE,)


def docker_file(environ: Mapping[str, str]) -> str:
    """Docker's configuration file: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; '' for a user without a
    home directory."""
    directory = environ.get("DOCKER_CONFIG")
    if not directory:
        user = home(environ)
        directory = user and os.path.join(user, ".docker")
    return os.path.join(directory, "config.json") if directory else ""


def home(environ: Mapping[str, str]) -> str | None:
    """The user's home directory; None if neither `$HOME` nor the system knows one. A relative path is none: it would be
    another one in each directory."""
    given = environ.get("HOME", "")
    if not os.path.isabs(given):
        import pwd

        try:
            given = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:  # as in a container that runs as any user
            return None
    return given if os.path.isabs(given) else None


def _base(environ: Mapping[str, str], variable: str, below_home: str) -> str | None:
    # The base directory specification: a relative path in $XDG_… is to be ignored.
    given = environ.get(variable, "")
    if os.path.isabs(given):
        return given
    directory = home(environ)
    return directory and os.path.join(directory, below_home)
