"""Names that are given for all RUN steps of a build."""

from __future__ import annotations

import re
from ipaddress import ip_address

from builder.errors import UsageError

_GATEWAY = "host-gateway"
_HERE = "127.0.0.1"


def host(name: str, address: str) -> tuple[str, str]:
    """A line of /etc/hosts: a name, and an IP address, which may stand in brackets. Raises UsageError.

    As with Docker `host-gateway` is this machine: where steps have a network it is this machine's own.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise _invalid(name, address, f"{name!r} is no name of a host")
    if address == _GATEWAY:
        return name, _HERE
    plain = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        if "%" in plain:  # an interface of this machine; Docker refuses it, too
            raise ValueError
        ip_address(plain)
    except ValueError:
        raise _invalid(name, address, f"{address!r} is no IP address") from None
    return name, plain


def _invalid(name: str, address: str, why: str) -> UsageError:
    return UsageError(
        f"invalid --add-host {f'{name}:{address}'!r}: {why}",
        remedy=f"write --add-host NAME:ADDRESS with an IP address, or {_GATEWAY} for this machine",
    )
