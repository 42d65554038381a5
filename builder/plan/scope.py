"""The variables that an instruction sees: global arguments, a stage's arguments and environment, and expansion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from builder.dockerfile.instructions import Arg
from builder.dockerfile.words import Word, expand, expand_words
from builder.oci.spec import Platform

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")

NEVER_VARIABLES = frozenset(("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"))
"""Arguments that tell BuildKit something: they can be declared, and are never set (its `nonEnvArgs`)."""


def platform_arguments(build: Platform, target: Platform, stage: str) -> dict[str, str]:
    """The arguments that every Dockerfile has in its global scope (`dockerfile2llb/platform.go`)."""
    return {
        "BUILDPLATFORM": str(build),
        "BUILDOS": build.os,
        "BUILDOSVERSION": "",
        "BUILDARCH": build.architecture,
        "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": str(target),
        "TARGETOS": target.os,
        "TARGETOSVERSION": "",
        "TARGETARCH": target.architecture,
        "TARGETVARIANT": target.variant,
        "TARGETSTAGE": stage or "default",
    }


def global_scope(
    arguments: Iterable[Arg], predefined: dict[str, str], given: Mapping[str, str], used: set[str]
) -> dict[str, str]:
    """The global arguments with their values: given on the command line, else the default, else absent.

    The platform arguments can be overridden from the command line. Names that were consumed are added to `used`.
    """
    scope = {name: given.get(name, value) for name, value in predefined.items()}
    used.update(predefined.keys() & given.keys())
    for argument in arguments:
        for pair in argument.pairs:
            name = expand(pair.key, scope).text
            if name in given:
                scope[name] = given[name]
                used.add(name)
            elif pair.given:
                scope[name] = expand(pair.value, scope).text
            # BuildKit: a bare ARG without a value leaves a platform argument's value, and otherwise no value
    return scope


def proxies(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The proxy variables for RUN, in both spellings, from the build arguments of those names. An empty one sets none,
    as in BuildKit (`proxyEnvList` of its `solver/llbsolver/ops/exec.go`)."""
    found = {name.upper(): given[name] for name in sorted(given) if is_proxy(name)}
    return tuple(pair for name, value in found.items() if value for pair in ((name, value), (name.lower(), value)))


def is_proxy(name: str) -> bool:
    """Whether a build argument of that name is for the proxy variables, however it is written."""
    return name.upper() in PROXIES


class Scope:
    """The environment of a stage while its instructions are planned, and what its ARGs declared.

    BuildKit keeps both in one list: an ARG overrides an ENV before it and the other way round, and a stage built on
    another inherits both.
    """

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self.declared: dict[str, str | None] = {}
        self.watch: Callable[[tuple[str, ...]], None] | None = None
        self.used: dict[str, str] = {}

    def child(self) -> Scope:
        """The scope that a stage built on this one begins with."""
        scope = Scope()
        scope.env = dict(self.env)
        scope.declared = dict(self.declared)
        return scope

    def expand(self, word: Word) -> str:
        """The word's text; `watch` is told the names that nothing defines, `used` collects those that had a value."""
        expansion = expand(word, self.env)
        for name in expansion.used:
            self.used[name] = self.env.get(name, "")
        if expansion.unmatched and self.watch is not None:
            self.watch(expansion.unmatched)
        return expansion.text

    def expand_optional(self, word: Word | None) -> str:
        return self.expand(word) if word is not None else ""

    def expand_words(self, word: Word) -> list[str]:
        return expand_words(word, self.env)

    def history_prefix(self) -> list[str]:
        """How BuildKit shows the arguments of a RUN in its history: `|2 A=1 B=2`."""
        if not self.declared:
            return []
        pairs = [f"{name}={self.env.get(name, value or '')}" for name, value in self.declared.items()]
        return [f"|{len(pairs)}", *pairs]
