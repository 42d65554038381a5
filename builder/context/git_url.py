"""Which texts name a git repository, and what in it: BuildKit's rules (`dfgitutil/git_ref.go`, `gitutil/git_url.go`).

    https://host/path.git[?QUERY][#REF[:SUBDIR]]    http and https only with a path that ends in .git
    git://host/path, ssh://user@host/path           the same, with any path
    user@host:path[?QUERY][#REF[:SUBDIR]]           as scp writes it
    github.com/owner/name                           deprecated: a context only, and only if no such directory exists

QUERY holds `ref`, `tag`, `branch`, `subdir`, `checksum` (or `commit`), `keep-git-dir`, `submodules`, `mtime`,
`fetch-by-commit`.
"""

from __future__ import annotations

import posixpath
import re

import msgspec

from builder.errors import ContextError

_PROTOCOL = r"([a-zA-Z0-9]+)://"
_SCP = r"(?as)([a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:(?:[^?#]*))(?:\?([^#]*))?(?:#(.*))?"
_FLAGS = frozenset(("submodules", "keep-git-dir", "fetch-by-commit"))
_KEYS = _FLAGS | {"ref", "tag", "branch", "subdir", "checksum", "commit", "mtime"}
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class GitRef(msgspec.Struct, frozen=True):
    """A repository and what to take from it.

    `remote` is what git is given, with credentials if there were any; `ref` a branch, a tag, a full name (`refs/…`) or
    a commit, empty for the default branch; `checksum` the beginning of the commit that it must be; `mtime` says whether
    files get the time of their `checkout` or of the `commit`. None where the text says nothing. `looks_local` marks the
    deprecated form without a scheme, which `ADD` takes for a path.
    """

    remote: str
    short_name: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    mtime: str = "checkout"
    fetch_by_commit: bool = False
    looks_local: bool = False

    @property
    def place(self) -> str:
        """The repository for messages, without credentials."""
        from builder.context.http import redacted

        return redacted(self.remote)


def parse_git_url(text: str) -> GitRef | None:
    """What `text` names if it is a git repository, else None. Raises ContextError for one with a wrong query."""
    if text.startswith(("./", "../")):
        return None
    looks_local = text.startswith("github.com/")
    address = f"https://{text}" if looks_local else text
    protocol = re.match(_PROTOCOL, address) if "://" in address else None
    if protocol is None:
        scp = re.fullmatch(_SCP, address) if "@" in address else None
        if scp is None:
            return None
        remote, query, fragment = scp[1], scp[2] or "", scp[3] or ""
    else:
        scheme = protocol[1].lower()
        if scheme not in ("http", "https", "ssh", "git"):
            return None
        from urllib.parse import unquote, urlsplit  # at the point of use: most contexts are directories

        try:
            parts = urlsplit(address)
            _ = parts.port  # a malformed one raises
        except ValueError:
            return None
        if scheme in ("http", "https") and not looks_local and not unquote(parts.path).endswith(".git"):
            return None
        remote = f"{scheme}://{parts.netloc}{parts.path}"
        query, fragment = parts.query, unquote(parts.fragment)
    ref, _, subdir = fragment.partition(":")
    subdir = posixpath.normpath("/" + subdir).lstrip("/")
    short_name = remote.rpartition("/")[2].removesuffix(".git")
    found = _with_query(GitRef(remote, short_name, ref, subdir, looks_local=looks_local), query)
    if found.ref.startswith("-") or "\0" in text:
        raise ContextError(f"invalid git reference {found.ref!r}", place=found.place)
    return found


def write_git_url(ref: GitRef) -> str:
    """A text that `parse_git_url` reads as this reference."""
    from urllib.parse import quote, urlencode

    given = {
        "checksum": ref.checksum,
        "keep-git-dir": "" if ref.keep_git_dir is None else str(ref.keep_git_dir).lower(),
        "submodules": "" if ref.submodules is None else str(ref.submodules).lower(),
        "mtime": ref.mtime if ref.mtime != "checkout" else "",
        "fetch-by-commit": "true" if ref.fetch_by_commit else "",
    }
    query = urlencode({key: value for key, value in given.items() if value})
    fragment = ref.ref + (f":{ref.subdir}" if ref.subdir else "")
    if "://" in ref.remote:
        fragment = quote(fragment, safe="/:@")
    return ref.remote + (f"?{query}" if query else "") + (f"#{fragment}" if fragment else "")


def _with_query(found: GitRef, query: str) -> GitRef:
    if not query:
        return found
    from urllib.parse import parse_qs

    values: dict[str, str] = {}
    for key, given in parse_qs(query, keep_blank_values=True).items():
        if key not in _KEYS:
            raise _wrong(found, f"unexpected query {key!r}", f"known are {', '.join(sorted(_KEYS))}")
        if len(given) > 1:
            raise _wrong(found, f"query {key!r} has several values")
        if not given[0] and key not in _FLAGS:
            raise _wrong(found, f"query {key!r} has no value")
        values[key] = given[0]
    flags = {key: _flag(found, key, values[key]) for key in _FLAGS if key in values}
    ref = _agreed(found, "ref", found.ref, values.get("ref", ""))
    if "tag" in values and "branch" in values:
        raise _wrong(found, "a branch and a tag are given, and only one can be taken")
    for key, prefix in (("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if key in values:
            ref = _agreed(found, "ref", ref, prefix + values[key].removeprefix(prefix))
    mtime = values.get("mtime", "checkout")
    if mtime not in ("checkout", "commit"):
        raise _wrong(found, f"invalid value {mtime!r} of mtime", "it is 'checkout' or 'commit'")
    return GitRef(
        found.remote,
        found.short_name,
        ref,
        _agreed(found, "subdir", found.subdir, values.get("subdir", "")),
        _agreed(found, "checksum", values.get("checksum", ""), values.get("commit", "")),
        flags.get("keep-git-dir"),
        flags.get("submodules"),
        mtime,
        flags.get("fetch-by-commit", False),
        found.looks_local,
    )


def _agreed(found: GitRef, what: str, one: str, other: str) -> str:
    if one and other and one != other:
        raise _wrong(found, f"{what} is given twice: {one!r} and {other!r}")
    return one or other


def _flag(found: GitRef, key: str, value: str) -> bool:
    if not value:
        return True
    if value not in _BOOLEANS:
        raise _wrong(found, f"invalid value {value!r} of {key}", "it is 'true' or 'false'")
    return _BOOLEANS[value]


def _wrong(found: GitRef, cause: str, remedy: str | None = None) -> ContextError:
    return ContextError(cause, place=found.place, remedy=remedy)
