"""How the commands of RUN are kept apart from this machine, by what it allows.

- `namespaces`: namespaces and an overlay mount, as root or in a user namespace of one's own;
- `chroot`: a chroot of a whole copy, where a container lacks CAP_SYS_ADMIN. What it cannot do is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from builder.sandbox import capabilities

if TYPE_CHECKING:
    from builder.sandbox.client import Sandbox

CHROOT = "chroot"
CHOICES = ("default", CHROOT)
"""What `--isolation` may be: the best that this machine allows, or always a chroot."""


class Isolation(msgspec.Struct, frozen=True):
    """The rung that was chosen, `namespaces` or `chroot`, and why, for people."""

    rung: str
    reason: str


def choose(wanted: str = "default") -> Isolation:
    """The rung for `--isolation wanted`, one of CHOICES."""
    if wanted == CHROOT:
        return Isolation(CHROOT, "--isolation=chroot asks for it")
    if capabilities.has(capabilities.SYS_ADMIN):
        return Isolation("namespaces", "this process may make namespaces and mounts")
    return Isolation(CHROOT, "this process lacks CAP_SYS_ADMIN, so that it can make neither namespaces nor mounts")


def open_sandbox(wanted: str = "default") -> Sandbox:
    """The sandbox of the rung that is chosen."""
    if choose(wanted).rung == CHROOT:
        from builder.sandbox.chroot import ChrootSandbox

        return ChrootSandbox()
    from builder.sandbox.client import Sandbox

    return Sandbox()
