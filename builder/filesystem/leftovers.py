"""Caches that package managers leave behind in an image, known by where they keep them."""

from __future__ import annotations

import re
from functools import cache

import msgspec

_HOME = r"(?:root|home/[^/]+)"


class Leftover(msgspec.Struct, frozen=True):
    """Where a package manager keeps what it can fetch again. `pattern` matches from the beginning of a path to the end
    of the directory; `remedy` says how not to keep it."""

    manager: str
    pattern: str
    remedy: str


def _mounted(target: str) -> str:
    return f"RUN --mount=type=cache,target={target}"


LEFTOVERS = (
    Leftover("apt lists", r"var/lib/apt/lists/", "rm -rf /var/lib/apt/lists/* in the same RUN"),
    Leftover("apt", r"var/cache/apt/", f"apt-get clean in the same RUN, or {_mounted('/var/cache/apt')}"),
    Leftover("apk", r"(?:var/cache/apk|etc/apk/cache)/", "apk add --no-cache"),
    Leftover("dnf", r"var/cache/(?:dnf|libdnf5)/", f"dnf clean all in the same RUN, or {_mounted('/var/cache/dnf')}"),
    Leftover("yum", r"var/cache/yum/", "yum clean all in the same RUN"),
    Leftover("zypper", r"var/cache/zypp/", "zypper clean --all in the same RUN"),
    Leftover("pacman", r"var/cache/pacman/pkg/", "pacman -Scc --noconfirm in the same RUN"),
    Leftover("pip", rf"{_HOME}/\.cache/pip/", f"pip install --no-cache-dir, or {_mounted('/root/.cache/pip')}"),
    Leftover("uv", rf"{_HOME}/\.cache/uv/", f"uv --no-cache, or {_mounted('/root/.cache/uv')}"),
    Leftover("poetry", rf"{_HOME}/\.cache/pypoetry/", _mounted("/root/.cache/pypoetry")),
    Leftover("conda", r"opt/[^/]*conda[^/]*/pkgs/", "conda clean -afy in the same RUN"),
    Leftover("npm", rf"{_HOME}/\.npm/_(?:cacache|logs)/", f"npm cache clean --force, or {_mounted('/root/.npm')}"),
    Leftover(
        "yarn",
        rf"(?:{_HOME}/\.cache/yarn|usr/local/share/\.cache/yarn|{_HOME}/\.yarn/berry/cache)/",
        "yarn cache clean in the same RUN",
    ),
    Leftover("pnpm", rf"{_HOME}/\.local/share/pnpm/store/", _mounted("/root/.local/share/pnpm/store")),
    Leftover("go build", rf"{_HOME}/\.cache/go-build/", _mounted("/root/.cache/go-build")),
    Leftover("go modules", rf"(?:go|{_HOME}/go)/pkg/mod/", _mounted("/go/pkg/mod")),
    Leftover(
        "cargo",
        rf"(?:usr/local/cargo|{_HOME}/\.cargo)/(?:registry|git)/",
        _mounted("/usr/local/cargo/registry"),
    ),
    Leftover("composer", rf"{_HOME}/\.(?:cache/composer|composer/cache)/", "composer clear-cache in the same RUN"),
    Leftover("gem", r"(?:usr/local/bundle/cache|var/lib/gems/[^/]+/cache)/", "rm -rf it in the same RUN"),
    Leftover("maven", rf"{_HOME}/\.m2/repository/", _mounted("/root/.m2")),
    Leftover("gradle", rf"{_HOME}/\.gradle/caches/", _mounted("/root/.gradle")),
)


@cache
def _expression() -> re.Pattern[str]:
    return re.compile("|".join(f"({leftover.pattern})" for leftover in LEFTOVERS))


def leftover_of(path: str) -> tuple[Leftover, str] | None:
    """The cache that a file (a path without leading slash) belongs to, and the cache's directory; None if to none."""
    match = _expression().match(path)
    if match is None:
        return None
    assert match.lastindex is not None
    return LEFTOVERS[match.lastindex - 1], match[0].removesuffix("/")
