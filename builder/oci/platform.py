"""Reading platforms as people write them: `linux/arm64`, `arm64`, `linux/arm/v7` (containerd's platforms package)."""

from __future__ import annotations

import os
import re

from builder.errors import UsageError
from builder.oci.spec import Platform, normalise_platform

_COMPONENT = r"[A-Za-z0-9_.-]+"
_SYSTEMS = frozenset(
    "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos"
    " macos".split()
)
_ARCHITECTURES = frozenset(
    "386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32"
    " mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm x86_64 x86-64 aarch64 armhf armel i386 i486 i586"
    " i686".split()
)


def parse_platform(text: str) -> Platform:
    """`OS[/ARCH[/VARIANT]]` or a lone architecture, normalised. Raises UsageError."""
    parts = text.split("/")
    if len(parts) > 3 or not all(re.fullmatch(_COMPONENT, part) for part in parts):
        raise _invalid(text, "it is not of the form OS/ARCHITECTURE[/VARIANT]")
    if len(parts) == 3 and not all(is_small_number(part) for part in re.findall(r"\d+", parts[2])):
        raise _invalid(text, "its variant's number is above 99")
    if len(parts) == 1:
        word = parts[0].lower()
        if word in _SYSTEMS:
            return normalise_platform(word, host_platform().architecture)
        if word in _ARCHITECTURES:
            return normalise_platform("linux", word)
        raise _invalid(text, "unknown operating system or architecture")
    return normalise_platform(*parts)


def parse_target(text: str) -> Platform:
    """The same of what `--platform` names for a build: there `local` is the platform of this machine, as in buildx
    (`platformutil.Parse`). Raises UsageError."""
    return host_platform() if text.lower() == "local" else parse_platform(text)


def host_platform() -> Platform:
    """The platform that this machine runs without emulation."""
    return normalise_platform("linux", os.uname().machine)


def is_small_number(text: str) -> bool:
    """Whether a text is one of the numbers that variants have: each lower one serves as well, and is listed."""
    return len(text) <= 2 and text.isdecimal()


def _invalid(text: str, why: str) -> UsageError:
    return UsageError(
        f"invalid platform {text!r}: {why}", remedy="write for example linux/amd64, linux/arm64 or linux/arm/v7"
    )
