"""Which setting of the kernel keeps users from making namespaces."""

from __future__ import annotations

import os

_SETTINGS = (
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu from 23.10 on
    ("kernel/unprivileged_userns_clone", "0", "1"),  # Debian
    ("user/max_user_namespaces", "0", "15000"),
)
_PLACE = "/proc/sys"


def setting_to_change() -> str:
    """The command that lets users make namespaces, '' where no setting forbids it.

    With AppArmor's restriction a user namespace can be made, but a process there has no capability: whatever needs one
    ends with EPERM or EACCES."""
    for name, forbidding, allowing in _SETTINGS:
        try:
            with open(os.path.join(_PLACE, name), encoding="ascii") as file:
                value = file.read().strip()
        except (OSError, ValueError):
            continue
        if value == forbidding:
            return f"sysctl -w {name.replace('/', '.')}={allowing}"
    return ""
