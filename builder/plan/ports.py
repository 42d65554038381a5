"""EXPOSE's port specifications, with BuildKit's rules (`convert_expose.go`): `[[IP:]HOST:]PORT[-PORT][/PROTOCOL]`."""

from __future__ import annotations

from builder.errors import PlanError

PROTOCOLS = ("tcp", "udp", "sctp")
_DIGITS = 18
"""Of a number at most."""


def parse_port(text: str) -> list[str]:
    """The ports that `text` names, like `["80/tcp"]`. A host part is checked and dropped. Raises PlanError."""
    address, host_port, container = _split(text)
    port, _, protocol = container.partition("/")
    if not port:
        raise _invalid(text, "no port specified")
    if protocol and protocol.lower() not in PROTOCOLS:
        raise _invalid(text, f"unknown protocol {protocol!r} (expected tcp, udp or sctp)")
    if address:
        _check_address(text, address)
    start, end = _range(text, port)
    if host_port:
        host_start, host_end = _range(text, host_port)
        if end - start != host_end - host_start and end != start:
            raise _invalid(text, "the host's and the container's ranges differ in length")
    return [f"{number}/{protocol.lower() or 'tcp'}" for number in range(start, end + 1)]


def _split(text: str) -> tuple[str, str, str]:
    parts = text.split(":")
    if len(parts) == 1:
        return "", "", parts[0]
    if len(parts) == 2:
        return "", parts[0], parts[1]
    return ":".join(parts[:-2]), parts[-2], parts[-1]


def _check_address(text: str, address: str) -> None:
    import ipaddress  # rare, and slow to load

    try:
        ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        raise _invalid(text, f"{address!r} is not an IP address") from None


def _range(text: str, ports: str) -> tuple[int, int]:
    start, dash, end = ports.partition("-")
    first = _number(text, start)
    last = _number(text, end) if dash and end != start else first
    if last < first:
        raise _invalid(text, f"the range {ports} ends before it starts")
    return first, last


def _number(text: str, digits: str) -> int:
    digits = digits.removeprefix("+")  # which Go's ParseInt takes
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS and int(digits) <= 65535):
        raise _invalid(text, f"{digits!r} is not a port number (0 to 65535)")
    return int(digits)


def _invalid(text: str, why: str) -> PlanError:
    return PlanError(f"invalid port {text!r}: {why}", remedy="write EXPOSE PORT[-PORT][/tcp|/udp|/sctp]")
