"""Users and groups by name, from an image's own `/etc/passwd` and `/etc/group`.

Two sets of rules: `find_owner` is that of --chown and WORKDIR (a name that nobody has means 0, as in BuildKit);
`find_user` is that of RUN (runc's and moby/sys `user.GetExecUser`: an unknown name is an error). RUN after RUN asks the
same files, so what they hold is kept for a build's stacks of layers: see `Accounts`.

What stands in these files in the place of an ID and is no number means 0, as in both; a number that no ID can be is an
error here, and never 0: whoever it was meant for must not be root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from builder.errors import StepFailed
from builder.filesystem import kinds
from builder.filesystem.overlay_format import attributes, is_opaque
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileTree
from builder.solver.roots import Layers, root_tree

if TYPE_CHECKING:
    from builder.solver.environment import Environment

_PASSWD, _GROUP = "etc/passwd", "etc/group"
_LIMIT = 10 << 20
_MAX_ID = (1 << 31) - 1
"""The largest ID that may be given as a number, as in both."""
_MAX_LISTED_ID = (1 << 32) - 2
"""The largest ID that the files may hold, as for `nfsnobody`: the one above means "leave it" to chown(2)."""


class ExecUser(msgspec.Struct, frozen=True):
    """Who a command runs as; `groups` are the supplementary ones; `home` '' when passwd does not say."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = ""


def find_owner(tree: FileTree, text: str) -> tuple[int, int]:
    """The owner that `--chown=text` names."""
    user, colon, group = text.partition(":")
    uid = gid = 0
    number = _number(user)
    if user == "root":
        number = 0
    if number is not None:
        uid = gid = number
    else:
        for entry in _records(tree, _PASSWD, 4):
            if entry[0] == user:
                uid, gid = _id(entry, 2, _PASSWD), _id(entry, 3, _PASSWD)
                break
    if colon:
        number = 0 if group in ("", "root") else _number(group)
        if number is None:
            number = next((_id(entry, 2, _GROUP) for entry in _records(tree, _GROUP, 3) if entry[0] == group), gid)
        gid = number
    return uid, gid


def check_owner(text: str, option: str) -> None:
    """Raises StepFailed for an owner by name, but root, of what has no files at all yet, as in BuildKit."""
    for name in text.split(":"):
        if name not in ("", "root") and _number(name) is None:
            raise StepFailed(
                f"{option} names {name!r}, and this stage has no files yet that could say who that is",
                remedy="write numbers, or begin with an image that has /etc/passwd",
            )


class Accounts(msgspec.Struct, frozen=True):
    """The lines of an image's passwd and group, split into their fields. `plain` if no link leads to the files."""

    users: tuple[list[str], ...] = ()
    groups: tuple[list[str], ...] = ()
    plain: bool = True


def read_accounts(tree: FileTree) -> Accounts:
    """The accounts of a root file system; none where it lacks the files."""
    plain = all(resolve(tree, path) == path for path in (_PASSWD, _GROUP))
    return Accounts(tuple(_records(tree, _PASSWD, 4)), tuple(_records(tree, _GROUP, 3)), plain)


def accounts_of(environment: Environment, layers: Layers) -> Accounts:
    """The accounts of a stack of layers. Where the topmost has nothing of /etc they are those of the stack below it, if
    that was asked before, as in a chain of RUNs."""
    known = environment.accounts.get(layers)
    if known is None:
        below = environment.accounts.get(layers[:-1])
        if below is not None and below.plain and not _has_accounts(environment.store.unpacked.paths(layers)[-1]):
            known = below
        else:
            known = read_accounts(root_tree(environment, layers))
        environment.accounts[layers] = known
    return known


def _has_accounts(directory: str) -> bool:
    """Whether an unpacked layer may change /etc: with files in it, with a whiteout, or by hiding all below."""
    return os.path.lexists(f"{directory}/etc") or is_opaque(directory, attributes(directory, follow=True))


def find_user(accounts: Accounts, text: str) -> ExecUser:
    """The user that a command runs as, for the image's `User` field. Raises StepFailed for names nobody has."""
    user, colon, group = text.partition(":")
    user = user or "0"
    number = _number(user)
    uid, gid, home, name = number or 0, 0, "", ""
    for entry in accounts.users:
        if entry[0] == user or (number is not None and _listed(entry[2]) == number):
            uid, gid, name = _id(entry, 2, _PASSWD), _id(entry, 3, _PASSWD), entry[0]
            home = entry[5] if len(entry) > 5 else ""
            break
    else:
        if number is None:
            raise StepFailed(
                f"there is no user {user!r} in the image's /etc/passwd",
                remedy="create it in an earlier RUN, or give a number",
            )
    if colon and group:
        return ExecUser(uid, _find_group(accounts, group), (), home)
    member = [entry for entry in accounts.groups if name and len(entry) > 3 and name in entry[3].split(",")]
    return ExecUser(uid, gid, tuple(dict.fromkeys(_id(entry, 2, _GROUP) for entry in member)), home)


def _find_group(accounts: Accounts, group: str) -> int:
    number = _number(group)
    for entry in accounts.groups:
        if entry[0] == group or (number is not None and _listed(entry[2]) == number):
            return _id(entry, 2, _GROUP)
    if number is None:
        raise StepFailed(
            f"there is no group {group!r} in the image's /etc/group",
            remedy="create it in an earlier RUN, or give a number",
        )
    return number


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) < 32 and int(text) <= _MAX_ID:
        return int(text)
    return None


def _id(entry: list[str], field: int, path: str) -> int:
    """The ID in a field of an entry of the file `path`. Raises StepFailed for a number that is none."""
    found = _listed(entry[field])
    if not 0 <= found <= _MAX_LISTED_ID:
        raise StepFailed(
            f"/{path} gives {entry[0]!r} the number {entry[field].strip()}, which is not an ID",
            remedy=f"correct it in an earlier RUN: IDs are from 0 to {_MAX_LISTED_ID}",
        )
    return found


def _listed(text: str) -> int:
    """The number in a field; 0 where there is none, -1 for one that is too large to be read."""
    text = text.strip()
    digits = text[1:] if text.startswith(("-", "+")) else text
    if not (digits.isascii() and digits.isdigit()):
        return 0
    return int(text) if len(digits) < 32 else -1


def _records(tree: FileTree, path: str, fields: int) -> Iterator[list[str]]:
    """The lines of a colon-separated file that have at least `fields` fields; none if the file is missing."""
    real = resolve(tree, path)
    info = tree.lstat(real)
    if info is None or info.kind != kinds.FILE:
        return
    descriptor = tree.open(real)
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(_LIMIT).decode("utf-8", "surrogateescape")
    for line in text.split("\n"):
        entry = line.strip().split(":")
        if len(entry) >= fields and not line.lstrip().startswith("#"):
            yield entry
