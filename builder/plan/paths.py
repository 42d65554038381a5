"""Paths inside an image, with the rules of BuildKit's `util/system/path.go` and Go's `path` package."""

from __future__ import annotations

import posixpath

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def clean(path: str) -> str:
    """Go's path.Clean: no double slashes, no `.`, `..` resolved, no trailing slash; `//x` is `/x`, "" is `.`."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def join(*parts: str) -> str:
    """Go's path.Join: the non-empty parts, cleaned; "" when all are empty."""
    joined = "/".join(part for part in parts if part)
    return clean(joined) if joined else ""


def normalise(parent: str, path: str, *, keep_slash: bool = False) -> str:
    """`path` made absolute below `parent`. An absolute path stays as it was written; with `keep_slash` a relative
    one keeps its trailing `/` or `/.`."""
    parent = parent or "/"
    if not parent.startswith("/"):
        parent = join("/", parent)
    result = path or parent
    if not result.startswith("/"):
        result = join(parent, result)
    if keep_slash:
        if path.endswith("/") and not result.endswith("/"):
            result += "/"
        elif path.endswith("/."):
            result = (result if result == "/" else result + "/") + "."
    return result


def destination(workdir: str, path: str) -> str:
    """Where COPY and ADD put things: absolute, below the working directory, trailing slash kept."""
    if path.startswith("/"):
        return normalise("/", path, keep_slash=True)
    return normalise(workdir or "/", "./" if path in (".", "") else path, keep_slash=True)


def has_wildcards(path: str) -> bool:
    """Whether `path` has `*`, `?` or `[` that no backslash escapes."""
    skip = False
    for character in path:
        if skip:
            skip = False
        elif character == "\\":
            skip = True
        elif character in "*?[":
            return True
    return False
