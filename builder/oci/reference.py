"""Image references: `[domain/]path[:tag][@digest]`, with Docker's rules for what a short name means.

Source: distribution/reference (the grammar in its `reference.go`, the defaults in `normalize.go`).
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from builder.errors import InvalidReference
from builder.oci.digests import is_hex

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"

# Regular expressions would say the same, and take a millisecond of every build to be compiled.
_DIGITS = frozenset("0123456789")
_HEXADECIMAL = _DIGITS | frozenset("abcdef")
_LOWER = _DIGITS | frozenset("abcdefghijklmnopqrstuvwxyz")
_LETTERS = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class Reference(msgspec.Struct, frozen=True, order=True, dict=True):
    """A complete image name. `tag` and `digest` may both be given; then the digest counts."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @cached_property
    def name(self) -> str:
        """The full name without tag and digest: `docker.io/library/alpine`."""
        return f"{self.domain}/{self.path}"

    @cached_property
    def familiar_name(self) -> str:
        """The name as people write it: `alpine`, `user/app`, `ghcr.io/org/app`."""
        if self.domain != DEFAULT_DOMAIN or _names_registry(self.path.partition("/")[0]):
            return self.name
        short = self.path.removeprefix("library/")
        return short if "/" not in short else self.path

    def __str__(self) -> str:
        """The full reference, fit to be parsed again and used as a key."""
        return self.name + self._suffix()

    @property
    def familiar(self) -> str:
        """The reference as people write it, with its tag and digest."""
        return self.familiar_name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def manifest_key(self) -> str:
        """What a registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG


def _names_registry(head: str) -> bool:
    """Whether what is before the first slash is a registry, and no part of a path."""
    return "." in head or ":" in head or head == "localhost" or head.lower() != head or head.startswith("[")


def parse(text: str, *, default_tag: bool = True) -> Reference:
    """Read a reference, adding `docker.io`, `library/` and (with `default_tag`) `:latest` where Docker does.

    Raises InvalidReference with the part that is wrong.
    """
    remainder, at, digest = text.partition("@")
    if at and not _is_digest(digest):
        raise _invalid(text, f"{digest!r} is not a digest (sha256: and 64 lower-case hexadecimal digits)")
    head, slash, tail = remainder.partition("/")
    if slash and _names_registry(head):
        domain, path = head, tail
    else:
        domain, path = DEFAULT_DOMAIN, remainder
    path, colon, tag = path.partition(":")
    if domain in ("index.docker.io", "registry-1.docker.io"):
        domain = DEFAULT_DOMAIN
    if is_hex(text, 64):
        raise _invalid(text, "64 hexadecimal digits name an image ID, not a repository")
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    if domain != DEFAULT_DOMAIN and not _is_domain(domain):
        raise _invalid(text, f"{domain!r} is not a registry's host name")
    if path != path.lower():
        why = "a repository's name must be lower case"
        if not _is_path(path.lower()):
            raise _invalid(text, why)
        head, name, rest = text.rpartition(path.removeprefix("library/"))
        raise _invalid(text, why, f"write {head}{name.lower()}{rest}")
    if not _is_path(path):
        raise _invalid(text, f"{path.removeprefix('library/')!r} is not a repository's name")
    if len(path) > 255:
        raise _invalid(text, "a repository's name has at most 255 characters")
    if colon and not _is_tag(tag):
        raise _invalid(
            text, f"{tag!r} is not a tag (letters, digits, '_', '.', '-', at most 128, not first '.' or '-')"
        )
    return Reference(domain, path, tag or (DEFAULT_TAG if default_tag and not at else None), digest or None)


def _is_digest(text: str) -> bool:
    algorithm, _, digits = text.partition(":")
    return len(digits) == _DIGEST_LENGTHS.get(algorithm) and _HEXADECIMAL.issuperset(digits)


def _is_domain(text: str) -> bool:
    """`HOST[:PORT]`; a host is labels between dots, or an IPv6 address in brackets."""
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        is_host = bool(bracket and address) and (_HEXADECIMAL | frozenset("ABCDEF:")).issuperset(address)
        return is_host and (not port or (port.startswith(":") and _is_port(port[1:])))
    host, colon, port = text.partition(":")
    return all(map(_is_label, host.split("."))) and (not colon or _is_port(port))


def _is_label(text: str) -> bool:
    return text != "" and (_LETTERS | {"-"}).issuperset(text) and text[0] != "-" != text[-1]


def _is_port(text: str) -> bool:
    return text != "" and _DIGITS.issuperset(text)


def _is_path(text: str) -> bool:
    return all(map(_is_component, text.split("/")))


def _is_component(text: str) -> bool:
    """Lower-case letters and digits, and between them a dot, one or two underscores, or hyphens."""
    if _LOWER.issuperset(text):
        return text != ""
    if not (text[0] in _LOWER and text[-1] in _LOWER):
        return False
    between = "".join("/" if character in _LOWER else character for character in text).split("/")
    return all(part in ("", ".", "_", "__") or not part.strip("-") for part in between)


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= 128 and (_LETTERS | frozenset("_.-")).issuperset(text) and text[0] not in ".-"


def _invalid(text: str, why: str, remedy: str = "write [HOST[:PORT]/]NAME[:TAG][@DIGEST]") -> InvalidReference:
    return InvalidReference(f"invalid image reference {text!r}: {why}", remedy=remedy)
