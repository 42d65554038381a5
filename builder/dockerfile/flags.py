"""The `--flags` of instructions (BuildKit's instructions/bflag.go)."""

from __future__ import annotations

from builder.dockerfile.text import did_you_mean, quote
from builder.errors import DockerfileError

BOOLEAN, STRING, STRINGS = "boolean", "string", "strings"

KNOWN: dict[str, dict[str, str]] = {
    "add": {
        "chown": STRING, "chmod": STRING, "link": BOOLEAN, "keep-git-dir": BOOLEAN, "checksum": STRING,
        "unpack": BOOLEAN, "exclude": STRINGS,
    },
    "copy": {
        "chown": STRING, "chmod": STRING, "from": STRING, "link": BOOLEAN, "parents": BOOLEAN, "exclude": STRINGS,
    },
    "from": {"platform": STRING},
    "healthcheck": {
        "interval": STRING, "timeout": STRING, "start-period": STRING, "start-interval": STRING, "retries": STRING,
    },
    "run": {"mount": STRINGS, "network": STRING, "security": STRING, "device": STRINGS},
}  # fmt: skip
"""The flags of each instruction; the others have none."""


class Flags:
    """The flags given to one instruction."""

    def __init__(self, instruction: str, written: tuple[str, ...]) -> None:
        """Check `written` (`--name` or `--name=value`, without quotes) against KNOWN.

        Raises DockerfileError (without a place).
        """
        self._values: dict[str, list[str]] = {}
        known = KNOWN.get(instruction, {})
        for flag in written:
            name, equals, value = flag[2:].partition("=")
            kind = known.get(name)
            if kind is None:
                raise DockerfileError(
                    f"unknown flag: --{name}{did_you_mean(name, known)}", remedy=_expected(instruction, known)
                )
            if name in self._values and kind != STRINGS:
                raise DockerfileError(f"duplicate flag specified: --{name}", remedy="give it once")
            if kind == BOOLEAN:
                value = _boolean(name, value, bool(equals))
            elif not equals:
                raise DockerfileError(f"missing a value on flag: --{name}", remedy=f"expected --{name}=VALUE")
            self._values.setdefault(name, []).append(value)

    def one(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[0]

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def boolean(self, name: str) -> bool | None:
        """None when not given."""
        return self._values[name][0] == "true" if name in self._values else None


def _boolean(name: str, value: str, equals: bool) -> str:
    if equals and not value:
        raise DockerfileError(f"missing a value on flag: --{name}", remedy=f"expected --{name} or --{name}=true|false")
    if value.lower() not in ("", "true", "false"):
        raise DockerfileError(
            f"expecting boolean value for flag --{name}, not: {quote(value)}", remedy=f"expected --{name}=true|false"
        )
    return value.lower() or "true"


def _expected(instruction: str, known: dict[str, str]) -> str:
    if not known:
        return f"{instruction.upper()} has no flags"
    return f"{instruction.upper()} has the flags {', '.join(f'--{name}' for name in known)}"
