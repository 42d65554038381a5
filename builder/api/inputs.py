"""The inputs of a build: the Dockerfile's text and the contexts, wherever they come from."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.api.options import DEFAULT_POLICY, REGO, SOURCE_POLICY
from builder.context.source import (
    MAX_DOCKERFILE,
    Context,
    ContextDirectory,
    GitContext,
    HTTPContext,
    ImageContext,
    LayoutContext,
    LocalContext,
    Origin,
    StdinContext,
    TargetContext,
    parse_context,
)
from builder.errors import ContextError, DockerfileError, UsageError
from builder.oci import reference
from builder.oci.layout import Layout
from builder.plan.options import ContextKind
from builder.plan.stages import SCRATCH, context_key
from builder.plan.steps import MAIN_CONTEXT
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.api.fetching import Fetching
    from builder.context.ignore import IgnoreFile, Rules
    from builder.filesystem.tree import FileTree
    from builder.plan.source_policy import SourcePolicy

DOCKERFILES = ("Dockerfile", "dockerfile", "Containerfile")
"""What a Dockerfile is called that no -f names."""
_RULES = "ignore-2"


class Inputs(msgspec.Struct, frozen=True):
    """The Dockerfile (`name` as people know it, and its text), how to open each context as files, what the named
    contexts are for the plan, and the ignore rules of the main context (None without an ignore file, and for a context
    that is no directory of the host: its ignore files are files like any other).

    `remote` are the contexts that must be fetched, as they were given; `origins` what those that were fetched already
    turned out to be. `time` is that of the main context (`ContextDirectory`). `path` is the Dockerfile's in a main
    context that was fetched, '' of one from anywhere else. `policy` says which sources may be taken."""

    name: str
    text: bytes
    openers: dict[str, Callable[[], FileTree]]
    kinds: dict[str, ContextKind]
    rules: Callable[[], Rules | None] = lambda: None
    remote: dict[str, str] = {}
    origins: dict[str, Origin] = {}
    time: int | None = None
    path: str = ""
    policy: SourcePolicy | None = None


def load_inputs(
    store: Store,
    context: str,
    dockerfile: str,
    named: dict[str, str],
    scratch: str,
    stdin: BinaryIO | None = None,
    *,
    keep_git_dir: bool = False,
    commit_times: bool = False,
    secrets: Mapping[str, Callable[[], bytes]] | None = None,
    agent: str = "",
    offline: bool = False,
    environ: Mapping[str, str] | None = None,
    rego: bool = True,
) -> Inputs:
    """Find the Dockerfile and the contexts. Remote ones are fetched into `scratch`; with `keep_git_dir` a main context
    from a repository has its `.git`, with `commit_times` its files have the time of the commit. `secrets`, of certain
    names (`context.authorization`), and `agent`, the socket of an SSH agent, are for what is remote, as is
    `environ` (by default the process's): proxies, authorities. A source policy is followed; with `rego` one in that
    language is refused.

    Raises ContextError, UsageError, OfflineError; StepFailed for a secret that cannot be read; PlanError for what a
    policy denies.
    """
    source, checksum = parse_context(context), ""
    policy = _source_policy(os.environ if environ is None else environ, rego)
    if isinstance(source, StdinContext) and dockerfile == "-":
        raise UsageError(
            "standard input cannot be both the Dockerfile and the context", remedy="give one of them as a path"
        )
    stream = stdin or sys.stdin.buffer
    openers: dict[str, Callable[[], FileTree]] = {}
    remote: dict[str, str] = {}
    origins: dict[str, Origin] = {}

    @cache
    def fetching() -> Fetching:
        from builder.api.fetching import Fetching

        return Fetching(
            scratch,
            remote,
            origins,
            secrets=secrets or {},
            agent=agent,
            offline=offline,
            commit_times=commit_times,
            limits=lambda: store.limits,
            environ=environ,
        )

    if policy is not None and isinstance(source, (GitContext, HTTPContext)):
        from builder.api.policies import take_remote

        source, checksum = take_remote(policy, source, keep_git_dir=keep_git_dir)
    if isinstance(source, LocalContext):
        main = ContextDirectory(source.path)
    elif isinstance(source, StdinContext):
        main = fetching().unpack(stream, "standard input")
    else:
        remote[MAIN_CONTEXT] = _redacted(context)
        main = fetching().fetch(MAIN_CONTEXT, source, keep_git_dir=keep_git_dir)
        _check_origin(origins, MAIN_CONTEXT, checksum)
    found = _dockerfile(source, main, remote.get(MAIN_CONTEXT, "standard input"), dockerfile, stream, fetching)
    if len(found.text) > MAX_DOCKERFILE:
        raise DockerfileError("the Dockerfile is larger than 16 MiB", place=found.name)
    if rego and found.path is not None and not isinstance(source, StdinContext) and os.path.exists(found.path + REGO):
        from builder.api.policies import rego_refused

        raise rego_refused((found.within or found.path) + REGO)
    if policy is not None and not found.within:
        policy.local("dockerfile")
    # what was fetched or piped in is whole, as in BuildKit (frontend/dockerui): whoever packed it chose its files
    rules = cache(lambda: _ignore_rules(store, main.path, found.path) if isinstance(source, LocalContext) else None)
    openers[MAIN_CONTEXT] = lambda: _tree(main, rules())
    if MAIN_CONTEXT not in remote:
        openers[MAIN_CONTEXT] = _allowed(openers[MAIN_CONTEXT], policy, "context")
    kinds: dict[str, ContextKind] = {}
    for key, value in named.items():
        kinds[context_key(key)] = _named(store, key, value, fetching, openers, remote, origins, policy)
    return Inputs(found.name, found.text, openers, kinds, rules, remote, origins, main.time, found.within, policy)


class _Found(msgspec.Struct, frozen=True):
    """A Dockerfile: its name for people, its text, its path where that is a file of a context or of the host, and the
    one `within` a main context that was fetched."""

    name: str
    text: bytes
    path: str | None = None
    within: str = ""


def _dockerfile(
    source: Context,
    main: ContextDirectory,
    place: str,
    given: str,
    stream: BinaryIO,
    fetching: Callable[[], Fetching],
) -> _Found:
    """The Dockerfile that -f names for a context, which is called `place`. As in buildx (`build/opt.go`, loadInputs) a
    URL is fetched whatever the context is, and beside a remote one an absolute path is one of this machine; in an
    archive on standard input it is one of the archive."""
    fetched = isinstance(source, (GitContext, HTTPContext))
    local = isinstance(source, LocalContext) or (fetched and os.path.isabs(given))
    if main.dockerfile is not None:
        if given and (not fetched or local or given == "-" or is_url(given)):
            raise UsageError(
                f"{place} is a Dockerfile, and -f names another",
                remedy="leave out -f, or give a directory or an archive as the context",
            )
        return _Found("Dockerfile", main.dockerfile, within="Dockerfile" if fetched else "")
    if given == "-":
        return _Found("Dockerfile", stream.read(MAX_DOCKERFILE + 1))
    if is_url(given):
        return _Found("Dockerfile", fetching().fetch_dockerfile(given))
    if local and is_stream(given):
        return _Found("Dockerfile", _read(given))
    path = find_dockerfile(main.path, given, local=local)
    within = os.path.relpath(path, main.path) if fetched and not local else ""
    return _Found(os.path.basename(path), _read(path), path, within)


def _redacted(url: str) -> str:
    """A URL without credentials."""
    from builder.context.http import redacted

    return redacted(url)


def is_url(dockerfile: str) -> bool:
    """Whether what -f names is fetched."""
    return dockerfile.startswith(("http://", "https://"))


def is_stream(dockerfile: str) -> bool:
    """Whether what -f names can be read once only: a pipe, such as a shell makes of `-f <(…)`, or a terminal."""
    try:
        mode = os.stat(dockerfile).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def find_dockerfile(directory: str, given: str, *, local: bool = True) -> str:
    """Where the Dockerfile is. A `local` one is relative to the working directory, as with Docker (and if there is
    nothing there, to the context). Of one in any other context no link and no `..` leads out of it."""
    if given:
        candidates = [given, os.path.join(directory, given)] if local else [os.path.join(directory, given.lstrip("/"))]
        for path in candidates:
            if os.path.isfile(path) and (local or _is_within(directory, path)):
                return path
        raise DockerfileError(
            "there is no such Dockerfile" if not os.path.isdir(given) else "is a directory, not a Dockerfile",
            place=given,
            remedy=_meant(directory, given) or "give the Dockerfile's path with -f",
        )
    if not os.path.isdir(directory):
        raise ContextError(
            "the build context is not a directory" if os.path.exists(directory) else "there is no such directory",
            place=directory,
            remedy="give a directory, a URL, or - for standard input",
        )
    for name in DOCKERFILES:
        path = os.path.join(directory, name)
        if os.path.isfile(path) and (local or _is_within(directory, path)):
            return path
    raise DockerfileError(
        "there is no Dockerfile in the build context", place=directory, remedy="add one, or name another with -f"
    )


def _meant(directory: str, given: str) -> str:
    """A file beside the Dockerfile that is not there whose name resembles it."""
    from difflib import get_close_matches

    folder, name = os.path.split(given)
    for place in (folder or ".", os.path.join(directory, folder)):
        try:
            close = get_close_matches(name, [entry.name for entry in os.scandir(place) if entry.is_file()], 1, 0.75)
        except OSError:
            continue
        if close:
            return f"did you mean {os.path.join(folder, close[0])}?"
    return ""


def _is_within(directory: str, path: str) -> bool:
    root = os.path.realpath(directory)
    return os.path.commonpath((root, os.path.realpath(path))) == root


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_DOCKERFILE + 1)
    except OSError as error:
        raise DockerfileError(f"cannot be read: {error.strerror}", place=path) from error


def _tree(directory: ContextDirectory, rules: Rules | None) -> FileTree:
    from builder.context.ignore import Matcher
    from builder.context.local import LocalTree

    matcher = Matcher(rules) if rules is not None else None
    return LocalTree(directory.path, matcher, owners=directory.owners)


def _source_policy(environ: Mapping[str, str], rego: bool) -> SourcePolicy | None:
    if not environ.get(SOURCE_POLICY) and DEFAULT_POLICY not in environ:
        return None
    from builder.api.policies import source_policy

    return source_policy(environ, rego=rego)


def _allowed(open_tree: Callable[[], FileTree], policy: SourcePolicy | None, name: str) -> Callable[[], FileTree]:
    """Opens the directory `name` of the host, if the policy lets it."""
    if policy is None:
        return open_tree

    def open_allowed() -> FileTree:
        policy.local(name)
        return open_tree()

    return open_allowed


def _check_origin(origins: Mapping[str, Origin], key: str, checksum: str) -> None:
    if checksum:
        from builder.api.policies import check_origin

        check_origin(origins[key], checksum)


def _ignore_rules(store: Store, directory: str, dockerfile: str | None) -> Rules | None:
    from builder.context.ignore import find_ignore_file

    found = find_ignore_file(directory, dockerfile)
    return None if found is None else _rules(store, found)


def _rules(store: Store, file: IgnoreFile) -> Rules:
    """The compiled rules of an ignore file, from the store if it was compiled before."""
    import hashlib

    from builder.context.ignore import Rules, compile_rules

    key = hashlib.sha256(f"{file.name}\0{file.text}".encode("utf-8", "surrogateescape")).hexdigest()
    data = store.database.memo(_RULES, key)
    if data is not None:
        return msgspec.msgpack.decode(data, type=Rules)
    rules = compile_rules(file.text, file.name)
    store.database.add_memo(_RULES, key, msgspec.msgpack.encode(rules))
    return rules


def _named(
    store: Store,
    name: str,
    value: str,
    fetching: Callable[[], Fetching],
    openers: dict[str, Callable[[], FileTree]],
    remote: dict[str, str],
    origins: dict[str, Origin],
    policy: SourcePolicy | None,
) -> ContextKind:
    source = parse_context(value, name=name)
    if isinstance(source, ImageContext):
        if source.reference == SCRATCH:
            return ContextKind(reference=SCRATCH)
        return ContextKind(reference=str(reference.parse(source.reference)))
    if isinstance(source, LayoutContext):
        if policy is None:
            return ContextKind(reference=source.digest or source.tag, layout=source.path)
        from builder.solver.bases import layout_entry

        digest = layout_entry(Layout(source.path), source.digest or source.tag).digest
        return ContextKind(reference=digest, layout=source.path, digest=digest)
    if isinstance(source, TargetContext):
        return ContextKind(stage=source.name)
    key = context_key(name)
    if isinstance(source, LocalContext):
        path = source.path
        called = f"_{name}" if name in ("context", "dockerfile") else name  # as buildx calls it
        openers[key] = _allowed(lambda: _tree(ContextDirectory(path), _ignore_rules(store, path, None)), policy, called)
        return ContextKind()
    if isinstance(source, StdinContext):
        raise UsageError(f"context {name!r} cannot be standard input", remedy="give a directory, a URL or an image")
    remote[key] = _redacted(value)

    def open_fetched() -> FileTree:
        taken, checksum = source, ""
        if policy is not None:
            from builder.api.policies import take_remote

            taken, checksum = take_remote(policy, source)
        if isinstance(taken, HTTPContext):
            directory = fetching().fetch_file(key, taken)
            _check_origin(origins, key, checksum)
            return _tree(directory, None)
        return _tree(fetching().fetch(key, taken), None)

    openers[key] = open_fetched
    return ContextKind()
