"""URLs in registries' answers: taken apart, resolved and compared. They may hold anything."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from builder.errors import RegistryError
from builder.proxies import PORTS


def split(url: str) -> SplitResult:
    """The parts of a URL. Raises RegistryError for what is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is read only when asked for
    except ValueError as error:
        raise RegistryError(f"{url!r} is not a URL: {error}") from error
    return parts


def join(base: str, url: str) -> str:
    """`url` as seen from `base`. Raises RegistryError for what is no URL."""
    try:
        return urljoin(base, url)
    except ValueError as error:
        raise RegistryError(f"{url!r} is not a URL: {error}") from error


def is_same_origin(one: str, other: str) -> bool:
    """Whether two URLs lead to the same server: registries and the proxies before them write their own URLs with the
    scheme's default port or without it, whatever we asked for."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str, str, int | None]:
    parts = split(url)
    user = parts.netloc.rpartition("@")[0]
    return parts.scheme, user, (parts.hostname or "").rstrip("."), parts.port or PORTS.get(parts.scheme)
