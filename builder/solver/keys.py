"""Cache keys: what a step can see, as a readable recipe, and its SHA-256.

A recipe is plain data (dictionaries, lists, strings, numbers) that names everything the result depends on and nothing
else. It is encoded in one canonical form, framed by a version, so that equal recipes have equal keys and an old
version's records are never taken for a new one's.

What metadata is in a key, by one rule: what can reach the layer, and nothing that the step overrides.

- Times of files in a context, of a download or a git checkout never are: `touch` or a new clone makes nothing run.
- Times of files that COPY --from takes are not, at the same place of the same Dockerfile: a stage that ran again and
  made the same files keeps what comes after it. Elsewhere they are, since another Dockerfile's stage is not this one.
- Modes, kinds, link targets, devices, hard links among the files and (from images) owners and extended attributes are:
  a changed mode is a changed layer. Modes of a context too: a clone under another umask is another input.
- A mode that a numeric `--chmod` replaces, and an owner that `--chown` replaces, are not.
- A command sees its parent's layers as they are, with all times. What its mounts show of stages counts by layers first,
  and then, as with COPY --from, without times (see `mounted`).
- Values of variables that look like secrets (`is_sensitive`) stand there as digests: recipes are kept and shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from builder.oci.digests import hex_of
from builder.plan.checks import is_sensitive
from builder.plan.steps import (
    BindMount,
    CacheMount,
    CopyNode,
    FromNode,
    FromNothing,
    Mount,
    Node,
    RunNode,
    SecretMount,
    SshMount,
    TmpfsMount,
    Tree,
    WorkdirNode,
)

if TYPE_CHECKING:
    from builder.solver.staging import Fact

FORMAT = b"builder step 2\n"
KEYS = FORMAT.decode().strip()
"""The version of the keys, for people and records."""

Recipe = dict[str, Any]


def encode(recipe: Recipe | list[Any]) -> bytes:
    """The canonical JSON of a recipe, or of a part of one. Texts that are not Unicode (bytes of file names) are written
    in digits."""
    try:
        return msgspec.json.encode(recipe, order="sorted")
    except UnicodeEncodeError:
        return msgspec.json.encode(_unicode(recipe), order="sorted")


def _unicode(value: Any) -> Any:
    """The same with every text that cannot be encoded as `{"bytes": hexadecimal}`, which no other text looks like."""
    if isinstance(value, dict):
        return {key: _unicode(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_unicode(inner) for inner in value]
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return {"bytes": value.encode("utf-8", "surrogatepass").hex()}
    return value


def key_of(recipe: Recipe) -> str:
    """The cache key of a recipe: 64 hexadecimal digits."""
    return key_of_encoded(encode(recipe))


def key_of_encoded(data: bytes) -> str:
    """The cache key of a recipe that `encode` wrote."""
    return hex_of(data, after=FORMAT)


def run_recipe(
    node: RunNode,
    parent: Sequence[str],
    trees: Mapping[int, Sequence[str]],
    contents: Mapping[str, str],
    settings: Recipe,
) -> Recipe:
    """What a command sees: its parent's layers, its arguments, environment, user and mounts.

    `trees` are the layers of the nodes that mounts show, `contents` the keys of the layers with what they show of
    contexts (times are no part of those), and maybe digests of what they show of nodes, which then count instead;
    `settings` what else reaches the command (host names, the time to clamp to).
    """
    return {
        "step": "run",
        "platform": str(node.platform),
        "parent": list(parent),
        "argv": list(node.argv),
        "env": [[name, masked(value) if is_sensitive(name) else value] for name, value in node.env],
        "user": node.user,
        "workdir": node.workdir,
        "network": node.network,
        "security": node.security,
        "script": list(node.script) if node.script else None,
        "mounts": [_mount(mount, trees, contents) for mount in node.mounts],
        **settings,
    }


def masked(value: str) -> Recipe:
    """What stands for a value that nobody is to read."""
    return {"sha256": hex_of(value.encode("utf-8", "surrogateescape"))}


def _mask_values(recipe: Recipe, values: Sequence[str]) -> Recipe:
    """A recipe in whose texts each of these values is replaced by its digest."""

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [replaced(inner) for inner in value]
        if isinstance(value, str):
            for hidden in values:
                value = value.replace(hidden, f"(sha256 {masked(hidden)['sha256']})")
        return value

    return {key: replaced(value) for key, value in recipe.items()}


def _mount(mount: Mount, trees: Mapping[int, Sequence[str]], contents: Mapping[str, str]) -> Recipe:
    if isinstance(mount, BindMount):
        seen = _seen(mount.tree, mount.source, trees, contents)
        return {"type": "bind", "target": mount.target, "writable": mount.writable, **seen}
    if isinstance(mount, CacheMount):
        plain = {"type": "cache", "target": mount.target, "cache": mount.cache, "read_only": mount.read_only}
        return {**plain, **_start(mount, trees, contents)}
    if isinstance(mount, TmpfsMount):
        return {"type": "tmpfs", "target": mount.target, "size": mount.size}
    if isinstance(mount, SecretMount):
        seen = {"type": "secret", "target": mount.target, "secret": mount.secret, "variable": mount.variable}
    else:
        assert isinstance(mount, SshMount)
        seen = {"type": "ssh", "target": mount.target, "agent": mount.agent}
    return {**seen, "mode": mount.mode, "uid": mount.uid, "gid": mount.gid}


def _start(mount: CacheMount, trees: Mapping[int, Sequence[str]], contents: Mapping[str, str]) -> Recipe:
    """What fills a new cache, and its root's mode and owner: a command may see no more of it than that. BuildKit makes
    both the mount's input, and so a part of the key. Nothing for a cache that starts empty and as any other."""
    start = {} if isinstance(mount.tree, FromNothing) else _seen(mount.tree, mount.source, trees, contents)
    if any(value is not None for value in (mount.mode, mount.uid, mount.gid)):
        start = {**start, "mode": mount.mode, "uid": mount.uid, "gid": mount.gid}
    return start


def _seen(tree: Tree, source: str, trees: Mapping[int, Sequence[str]], contents: Mapping[str, str]) -> Recipe:
    name = content_name(tree, source)
    if isinstance(tree, FromNode) and name not in contents:
        return {"layers": list(trees[tree.node]), "source": source}
    return {"content": contents.get(name, ""), "source": source}


def content_name(tree: Tree, source: str) -> str:
    """How a mounted path of a context is named among `contents` and a step's parts, and one of a stage among the
    former; no context has a blank in its name."""
    return f"stage {tree.node}:{source}" if isinstance(tree, FromNode) else f"{getattr(tree, 'name', '')}:{source}"


def hide(recipe: Recipe, node: Node) -> Recipe:
    """The recipe, or a part of it, without what variables that look like secrets put into the step's words."""
    hidden = [value for _, name, value in node.variables if value and is_sensitive(name)]
    return _mask_values(recipe, hidden) if hidden else recipe


def copy_by_identity(node: CopyNode, identities: list[Any], parent: Sequence[str], epoch: int | None) -> Recipe:
    """What a copy is first looked up by: its sources' identities, its flags, and all of the parent if it asks that."""
    seen = {"parent": list(parent) if node.asks_parent else []}
    return {"step": "copy", "sources": identities, **_flags(node, epoch), **seen}


def copy_by_content(
    node: CopyNode, contents: list[Any], asked: Recipe, owner: list[int] | None, epoch: int | None
) -> Recipe:
    """What a copy depends on: its sources' contents, its flags, the owner that they mean, and the `facts` that it asked
    of its parent."""
    return {"step": "copy", "sources": contents, **_flags(node, epoch), "owner": owner, **hide(asked, node)}


def _flags(node: CopyNode, epoch: int | None) -> Recipe:
    """What the instruction itself says."""
    flags: Recipe = {
        "destination": node.destination,
        "chown": node.chown,
        "chmod": node.chmod,
        "link": node.link,
        "excludes": list(node.excludes),
        "epoch": epoch,
    }
    return hide(flags, node)


def exact_recipe(content: str, times: list[int]) -> Recipe:
    """A copy from a stage by the key of its content (which has the facts), and the times of the files taken."""
    return {"step": "copy", "content": content, "facts": True, "times": times}


def placed_recipe(key: str, place: str) -> Recipe:
    """A copy from a stage by the key of its recipe, found with other times than its sources have: good at one place."""
    return {"step": "copy", "known_as": key, "place": masked(place)["sha256"]}


def workdir_by_parent(node: WorkdirNode, parent: Sequence[str], epoch: int | None) -> Recipe:
    """What a WORKDIR is first looked up by: all of its parent."""
    return _workdir(node, {"parent": list(parent), "epoch": epoch})


def workdir_by_content(node: WorkdirNode, asked: Recipe, owner: list[int], epoch: int | None) -> Recipe:
    """What a WORKDIR depends on: the `facts` that it asked of its parent, and the owner that USER means there."""
    return _workdir(node, {**asked, "epoch": epoch, "owner": owner})


def _workdir(node: WorkdirNode, seen: Recipe) -> Recipe:
    return hide({"step": "workdir", "path": node.path, "user": node.user, **seen}, node)


def facts(asked: tuple[Fact, ...]) -> Recipe:
    """What was asked of the parent, as a part of a recipe."""
    return {"facts": [list(msgspec.structs.astuple(fact)) for fact in asked]}
