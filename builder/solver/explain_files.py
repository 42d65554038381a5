"""What differs between the files that a copy took then and takes now: path by path, from the two recipes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from builder.filesystem import kinds
from builder.filesystem.kinds import Kind

_NAMES = {kinds.FILE: "file", kinds.DIRECTORY: "directory", kinds.SYMLINK: "link", kinds.FIFO: "FIFO"}


class FileState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file as a recipe has it: its kind in a word, its mode in octal and its owner (None where they do not count),
    the SHA-256 of its content, or where a link leads to."""

    kind: str
    mode: str | None = None
    owner: str | None = None
    digest: str = ""
    link: str = ""


class FileChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that is another one now. `change` is added, removed or changed; `what` names what changed: content, mode,
    owner, kind, link, or other (a hard link, an attribute)."""

    path: str
    change: str
    what: tuple[str, ...] = ()
    old: FileState | None = None
    new: FileState | None = None


def compare_files(old: Sequence[Any], new: Sequence[Any], written: str) -> Iterator[FileChange]:
    """Compare what one source of a copy took, as recipes describe it (`FilesSource`). `written` is the source as the
    instruction has it; the paths that come back begin with it, so that people find the file."""
    before, after = _by_name(old), _by_name(new)
    different = {
        _path(written, *name): (before.get(name), after.get(name))
        for name in {*before, *after}
        if before.get(name) != after.get(name)
    }
    for path, (one, two) in sorted(different.items(), key=lambda item: item[0]):
        if one is None or two is None:
            change = "added" if one is None else "removed"
            yield FileChange(path, change, (), _state(one), _state(two))
        else:
            yield _changed(path, one, two)


def summary(files: Sequence[FileChange]) -> str:
    """The changes in a few words: `package-lock.json changed`, `a.sh: mode 644 → 755 and 2 more files`."""
    rest = sum(not _is_consequence(file) for file in files) - 1
    return in_words(told_first(files)) + (f" and {rest} more {'file' if rest == 1 else 'files'}" if rest > 0 else "")


def told_first(files: Sequence[FileChange]) -> FileChange:
    """The change that says most: of content, before one of a mode or an owner alone."""
    told = [file for file in files if not _is_consequence(file)] or files
    return min(told, key=lambda file: (file.change == "changed" and "content" not in file.what, file.path))


def in_words(file: FileChange) -> str:
    """One change in a few words."""
    if file.change != "changed" or "content" in file.what:
        return f"{file.path} {file.change}"
    assert file.old is not None
    assert file.new is not None
    for what in ("kind", "link", "mode", "owner"):
        if what in file.what:
            label = "" if what == "kind" else f"{what} "
            return f"{file.path}: {label}{getattr(file.old, what)} → {getattr(file.new, what)}"
    return f"{file.path} changed"


def describe_node(kind: int, mode: int | None, uid: int | None, gid: int | None) -> str:
    """`directory, mode 755, owner 0:0`."""
    name = _NAMES.get(Kind(kind), "special file")
    shown = f", mode {mode:o}" if mode is not None else ""
    return f"{name}{shown}" + (f", owner {uid}:{gid}" if uid is not None else "")


def _is_consequence(file: FileChange) -> bool:
    """Whether an added or removed directory goes without saying: what is in it is told."""
    state = file.old or file.new
    return file.change in ("added", "removed") and state is not None and state.kind == "directory"


def _by_name(source: Sequence[Any]) -> dict[tuple[str, str], list[Any]]:
    """The items of a source by the match's name and the path below it."""
    return {
        (str(match["name"]), str(item[0])): item
        for match in source
        if isinstance(match, dict)
        for item in match["items"]
    }


def _path(written: str, name: Any, relative: Any) -> str:
    """Where a file of a match is, as people write it. A source with wildcards is known up to the first of them, and by
    the name that it matched."""
    named = relative if isinstance(relative, str) else f"{relative}"
    base = written.rstrip("/")
    wild = min((base.find(character) for character in "*?[" if character in base), default=-1)
    if wild >= 0:
        directory = base[:wild].rpartition("/")[0]
        base = "/".join(part for part in (directory, str(name)) if part)
    if base in (".", ""):
        return named or "."
    return f"{base}/{named}" if named else base


def _changed(path: str, one: list[Any], two: list[Any]) -> FileChange:
    old, new = _state(one), _state(two)
    assert old is not None
    assert new is not None
    names = {"kind": "kind", "digest": "content", "mode": "mode", "owner": "owner", "link": "link"}
    what = tuple(name for field, name in names.items() if getattr(old, field) != getattr(new, field))
    if "kind" in what:
        what = ("kind",)
    return FileChange(path, "changed", what or ("other",), old, new)


def _state(item: list[Any] | None) -> FileState | None:
    if item is None:
        return None
    _, kind, mode, uid, gid, *rest = item
    digest = rest[0] if kind == kinds.FILE and rest and isinstance(rest[0], str) else ""
    link = rest[0] if kind == kinds.SYMLINK and rest else ""
    return FileState(
        _NAMES.get(Kind(kind), "special file"),
        f"{mode:o}" if mode is not None else None,
        f"{uid}:{gid}" if uid is not None else None,
        digest,
        link if isinstance(link, str) else f"{link}",
    )
