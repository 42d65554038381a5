"""The inputs of a build: the Dockerfile's text and the contexts, wherever they come from."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import BinaryIO

import msgspec

from builder.context.ignore import IgnoreFile, Matcher, Rules, compile_rules, find_ignore_file
from builder.context.local import LocalTree
from builder.context.source import (
    Context,
    GitContext,
    HTTPContext,
    ImageContext,
    LayoutContext,
    LocalContext,
    StdinContext,
    TargetContext,
    parse_context,
)
from builder.errors import ContextError, DockerfileError, UsageError
from builder.filesystem.tree import FileTree
from builder.oci import reference
from builder.plan.options import ContextKind
from builder.plan.stages import SCRATCH, context_name
from builder.plan.steps import MAIN_CONTEXT
from builder.store.store import Store

_MAX_DOCKERFILE = 16 << 20
_DEFAULTS = ("Dockerfile", "dockerfile", "Containerfile")
_RULES = "ignore-1"


class _Directory(msgspec.Struct, frozen=True):
    """A context as a directory of the host. `owners` are those of files that are not 0:0; `dockerfile` is the text of a
    context that is nothing else (its directory is empty)."""

    path: str
    owners: dict[str, tuple[int, int]] = {}
    dockerfile: bytes | None = None


class Inputs(msgspec.Struct, frozen=True):
    """The Dockerfile (`name` as people know it, and its text), how to open each context as files, what the named
    contexts are for the plan, and the ignore rules of the main context (None without an ignore file)."""

    name: str
    text: bytes
    openers: dict[str, Callable[[], FileTree]]
    kinds: dict[str, ContextKind]
    rules: Callable[[], Rules | None] = lambda: None


def load_inputs(
    store: Store,
    context: str,
    dockerfile: str,
    named: dict[str, str],
    scratch: str,
    stdin: BinaryIO | None = None,
    *,
    keep_git_dir: bool = False,
) -> Inputs:
    """Find the Dockerfile and the contexts. Remote ones are fetched into `scratch`; with `keep_git_dir` a main context
    from a repository has its `.git`. Raises ContextError, UsageError."""
    source = parse_context(context)
    if isinstance(source, StdinContext) and dockerfile == "-":
        raise UsageError(
            "standard input cannot be both the Dockerfile and the context", remedy="give one of them as a path"
        )
    stream = stdin or sys.stdin.buffer
    openers: dict[str, Callable[[], FileTree]] = {}
    main = _main_directory(source, scratch, stream, keep_git_dir)
    directory = main.path
    if main.dockerfile is not None:
        name, text = "Dockerfile", main.dockerfile
        path = None
    elif dockerfile == "-":
        name, text, path = "Dockerfile", stream.read(_MAX_DOCKERFILE + 1), None
    else:
        path = _dockerfile_path(directory, dockerfile, local=isinstance(source, LocalContext))
        name, text = os.path.basename(path), _read(path)
    if len(text) > _MAX_DOCKERFILE:
        raise DockerfileError("the Dockerfile is larger than 16 MiB", place=name)
    rules = cache(lambda: _ignore_rules(store, directory, path))
    openers[MAIN_CONTEXT] = lambda: _tree(main, rules())
    kinds: dict[str, ContextKind] = {}
    for key, value in named.items():
        kinds[_context_key(key)] = _named(store, key, value, scratch, openers)
    return Inputs(name, text, openers, kinds, rules)


def _context_key(name: str) -> str:
    return context_name(name) if name == name.lower() else name


def _main_directory(source: Context, scratch: str, stream: BinaryIO, keep_git_dir: bool) -> _Directory:
    if isinstance(source, LocalContext):
        return _Directory(source.path)
    if isinstance(source, StdinContext):
        return _from_stream(stream, "standard input", scratch)
    return _fetched(source, os.path.join(scratch, "context"), keep_git_dir)


def _fetched(source: Context, into: str, keep_git_dir: bool = False) -> _Directory:
    if isinstance(source, GitContext):
        from builder.context.git import checkout

        os.mkdir(into)
        checkout(source.ref, into, keep_git_dir=keep_git_dir or None)
        return _Directory(into)
    if isinstance(source, HTTPContext):
        from builder.context.http import fetch

        path = into + ".download"
        with open(path, "w+b") as file:
            fetch(source.url, file)
            file.seek(0)
            return _from_stream(file, source.url, os.path.dirname(into))
    raise UsageError("an image cannot be the main build context", remedy="give a directory, a URL or -")


def _from_stream(stream: BinaryIO, name: str, scratch: str) -> _Directory:
    from builder.context.archive import is_archive, peek, unpack

    into = os.path.join(scratch, f"archive-{os.urandom(4).hex()}")
    os.mkdir(into)
    head, whole = peek(stream)
    if not head:
        raise ContextError("nothing was given", place=name, remedy="pipe a Dockerfile or a tar archive into it")
    if not is_archive(head):
        return _Directory(into, dockerfile=whole.read(_MAX_DOCKERFILE + 1))
    return _Directory(into, unpack(whole, into, name=name).owners)


def _dockerfile_path(directory: str, given: str, *, local: bool) -> str:
    """Where the Dockerfile is. For a local context `given` is relative to the working directory, as with Docker (and if
    there is nothing there, to the context). In any other context no link and no `..` leads out of it."""
    if given:
        candidates = [given, os.path.join(directory, given)] if local else [os.path.join(directory, given.lstrip("/"))]
        for path in candidates:
            if os.path.isfile(path) and (local or _is_within(directory, path)):
                return path
        raise DockerfileError(
            "there is no such Dockerfile" if not os.path.isdir(given) else "is a directory, not a Dockerfile",
            place=given,
            remedy="give the Dockerfile's path with -f",
        )
    if not os.path.isdir(directory):
        raise ContextError(
            "the build context is not a directory" if os.path.exists(directory) else "there is no such directory",
            place=directory,
            remedy="give a directory, a URL, or - for standard input",
        )
    for name in _DEFAULTS:
        path = os.path.join(directory, name)
        if os.path.isfile(path) and (local or _is_within(directory, path)):
            return path
    raise DockerfileError(
        "there is no Dockerfile in the build context", place=directory, remedy="add one, or name another with -f"
    )


def _is_within(directory: str, path: str) -> bool:
    root = os.path.realpath(directory)
    return os.path.commonpath((root, os.path.realpath(path))) == root


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_DOCKERFILE + 1)
    except OSError as error:
        raise DockerfileError(f"cannot be read: {error.strerror}", place=path) from error


def _tree(directory: _Directory, rules: Rules | None) -> FileTree:
    matcher = Matcher(rules) if rules is not None else None
    return LocalTree(directory.path, matcher, owners=directory.owners)


def _ignore_rules(store: Store, directory: str, dockerfile: str | None) -> Rules | None:
    found = find_ignore_file(directory, dockerfile)
    return None if found is None else _rules(store, found)


def _rules(store: Store, file: IgnoreFile) -> Rules:
    """The compiled rules of an ignore file, from the store if it was compiled before."""
    import hashlib

    key = hashlib.sha256(f"{file.name}\0{file.text}".encode("utf-8", "surrogateescape")).hexdigest()
    data = store.database.memo(_RULES, key)
    if data is not None:
        return msgspec.msgpack.decode(data, type=Rules)
    rules = compile_rules(file.text, file.name)
    store.database.add_memo(_RULES, key, msgspec.msgpack.encode(rules))
    return rules


def _named(
    store: Store, name: str, value: str, scratch: str, openers: dict[str, Callable[[], FileTree]]
) -> ContextKind:
    source = parse_context(value, name=name)
    if isinstance(source, ImageContext):
        if source.reference == SCRATCH:
            return ContextKind(reference=SCRATCH)
        return ContextKind(reference=str(reference.parse(source.reference)))
    if isinstance(source, LayoutContext):
        return ContextKind(reference=source.digest or source.tag, layout=source.path)
    if isinstance(source, TargetContext):
        return ContextKind(stage=source.name)
    key = _context_key(name)
    if isinstance(source, LocalContext):
        path = source.path
        openers[key] = lambda: _tree(_Directory(path), _ignore_rules(store, path, None))
        return ContextKind()
    if isinstance(source, StdinContext):
        raise UsageError(f"context {name!r} cannot be standard input", remedy="give a directory, a URL or an image")
    into = os.path.join(scratch, f"context-{os.urandom(4).hex()}")

    def open_fetched() -> FileTree:
        directory = _fetched(source, into)
        if directory.dockerfile is not None:
            raise ContextError("is neither an archive nor a repository", place=value)
        return _tree(directory, None)

    openers[key] = open_fetched
    return ContextKind()
