"""The graph of steps that a plan consists of, as frozen data.

A node stands for a root file system: an image's, or that of its parent after one step. Nodes refer to each other by
their position in `Plan.nodes`, where every node comes after those it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from builder.dockerfile.instructions import Range
from builder.dockerfile.stage_graph import StageGraph
from builder.oci.spec import ImageConfig, Platform

MAIN_CONTEXT = ""


class ImageKey(msgspec.Struct, frozen=True, order=True):
    """An image that a build starts from: a full reference, and for which platform. `layout` is the path of an OCI
    layout when the image comes from there instead of a registry."""

    reference: str
    platform: Platform
    layout: str = ""


# --- where files come from


class FromNode(msgspec.Struct, frozen=True, tag=True):
    """The root file system of another node."""

    node: int


class FromContext(msgspec.Struct, frozen=True, tag=True):
    """A build context; `MAIN_CONTEXT` is the one given as the build's argument."""

    name: str


class FromNothing(msgspec.Struct, frozen=True, tag=True):
    """An empty directory."""


Tree = FromNode | FromContext | FromNothing


class CopyFiles(msgspec.Struct, frozen=True, tag=True):
    """Files of a tree. `path` may hold wildcards, unless it is `literal` (a mount's). With `pattern` (COPY --parents)
    the files below `path` that match it are taken with their directories; `required` is then a path that must exist.
    `unpack`: extract archives."""

    tree: Tree
    path: str
    unpack: bool = False
    pattern: str | None = None
    required: str | None = None
    literal: bool = False


class CopyUrl(msgspec.Struct, frozen=True, tag=True):
    """A file from HTTP(S); `checksum` like `sha256:…`. A policy may take it `instead_of` another URL, by which the file
    is called."""

    url: str
    checksum: str | None = None
    unpack: bool = False
    instead_of: str = ""


class CopyGit(msgspec.Struct, frozen=True, tag=True):
    """A git repository's files; `url` with its fragment or query, as written."""

    url: str
    checksum: str | None = None
    keep_git_dir: bool = False


class CopyInline(msgspec.Struct, frozen=True, tag=True):
    """A here-document."""

    name: str
    data: str


CopySource = CopyFiles | CopyUrl | CopyGit | CopyInline

# --- mounts of RUN


class BindMount(msgspec.Struct, frozen=True, tag=True):
    target: str
    tree: Tree
    source: str = "/"
    writable: bool = False


class CacheMount(msgspec.Struct, frozen=True, tag=True):
    """`sharing` is shared, private or locked; the tree (with `source`) fills a new cache."""

    target: str
    cache: str
    sharing: str = "shared"
    tree: Tree = FromNothing()
    source: str = "/"
    read_only: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class TmpfsMount(msgspec.Struct, frozen=True, tag=True):
    """`size` in bytes, 0 for no limit."""

    target: str
    size: int = 0


class SecretMount(msgspec.Struct, frozen=True, tag=True):
    """A secret as a file at `target`, as the variable `variable`, or both."""

    secret: str
    target: str | None
    variable: str | None = None
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


class SshMount(msgspec.Struct, frozen=True, tag=True):
    """An agent's socket at `target`, which `SSH_AUTH_SOCK` names."""

    agent: str
    target: str | None
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


Mount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount

# --- nodes


class Node(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What all nodes have: what people see, the stage, where it stands, for which platform; `ignore_cache` makes it
    run whatever the cache holds. `variables` are those that the instruction's words used, as (ARG or ENV, name, value):
    they tell people why a step changed, and are no part of the cache key."""

    label: str
    stage: str
    platform: Platform
    range: Range | None = None
    ignore_cache: bool = False
    variables: tuple[tuple[str, str, str], ...] = ()

    @property
    def instruction(self) -> str:
        """The label without the stage and the count in front of it."""
        return self.label.partition("] ")[2] if self.label.startswith("[") else self.label

    def trees(self) -> Iterator[Tree]:
        """What it takes files from, besides its parent."""
        return iter(())

    def needs(self) -> tuple[int, ...]:
        """The nodes that this one is made from, its parent first."""
        return tuple(tree.node for tree in self.trees() if isinstance(tree, FromNode))

    def contexts(self) -> list[str]:
        """The contexts that it reads."""
        return [tree.name for tree in self.trees() if isinstance(tree, FromContext)]


class Surroundings(msgspec.Struct, frozen=True):
    """What a command would have at a place of a stage: for people who want to stand there. No part of any cache key."""

    env: tuple[tuple[str, str], ...] = ()
    proxies: tuple[tuple[str, str], ...] = ()
    user: str = ""
    workdir: str = "/"
    network: str = "default"


class ScratchNode(Node, frozen=True, tag=True, kw_only=True):
    """An empty root file system."""


class ImageNode(Node, frozen=True, tag=True, kw_only=True):
    """An image's root file system."""

    image: ImageKey


class TreeNode(Node, frozen=True, tag=True, kw_only=True):
    """A root file system that holds what a context holds (a directory named in FROM)."""

    context: str

    def trees(self) -> Iterator[Tree]:
        yield FromContext(self.context)


class ChildNode(Node, frozen=True, kw_only=True):
    """A node that stands on another."""

    parent: int

    def needs(self) -> tuple[int, ...]:
        return (self.parent, *super().needs())


class RunNode(ChildNode, frozen=True, tag=True, kw_only=True):
    """One command. `env` is complete and in order, `arguments` the names in it that ARG declared; `proxies` are set too
    but are no part of the cache key.
    `script` is a here-document with an interpreter line: its file name and text, shown at /dev/pipes/."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    arguments: tuple[str, ...] = ()
    proxies: tuple[tuple[str, str], ...] = ()
    user: str = ""
    workdir: str = "/"
    network: str = "default"
    security: str = "sandbox"
    mounts: tuple[Mount, ...] = ()
    script: tuple[str, str] | None = None

    def trees(self) -> Iterator[Tree]:
        return (mount.tree for mount in self.mounts if isinstance(mount, (BindMount, CacheMount)))


class CopyNode(ChildNode, frozen=True, tag=True, kw_only=True):
    """COPY or ADD. `destination` is absolute and keeps its trailing slash; `chmod` is a number or a symbolic mode.
    `surroundings` are those before it."""

    sources: tuple[CopySource, ...]
    destination: str
    chown: str | None = None
    chmod: int | str | None = None
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    surroundings: Surroundings = Surroundings()

    @property
    def owner_is_named(self) -> bool:
        """Whether the owner holds a name, which only the parent's own files can tell."""
        return any(part and not part.isdigit() and part != "root" for part in (self.chown or "").split(":"))

    @property
    def asks_parent(self) -> bool:
        """Whether it looks at its parent: at what is where it puts its files, or for an owner's name."""
        return not self.link or self.owner_is_named

    def trees(self) -> Iterator[Tree]:
        return (source.tree for source in self.sources if isinstance(source, CopyFiles))


class WorkdirNode(ChildNode, frozen=True, tag=True, kw_only=True):
    """A directory that is made, with its parents, unless it is there; new ones belong to `user`. `surroundings` are
    those before it."""

    path: str
    user: str = ""
    surroundings: Surroundings = Surroundings()


AnyNode = ScratchNode | ImageNode | TreeNode | RunNode | CopyNode | WorkdirNode
StepNode = RunNode | CopyNode | WorkdirNode
"""What changes the root file system that it stands on."""


class HistoryLine(msgspec.Struct, frozen=True):
    """A line that this build adds to the history; `node` made its layer, None for an empty layer."""

    created_by: str
    node: int | None = None


class PlannedImage(msgspec.Struct, frozen=True):
    """One image: `config` holds everything but the new layers and times; its history is the base's, followed by
    `history`. `moments` are what its configuration was behind each node and what was said before the next."""

    platform: Platform
    node: int
    config: ImageConfig
    history: tuple[HistoryLine, ...]
    base: ImageKey | None = None
    moments: tuple[tuple[int, ImageConfig], ...] = ()


class Finding(msgspec.Struct, frozen=True):
    """Something that a build check reports. `column` counts characters from 1, 0 where only the lines are known."""

    rule: str
    message: str
    range: Range | None = None
    column: int = 0


class UnneededStep(msgspec.Struct, frozen=True):
    """An instruction that would make a layer, in a stage that no image needs."""

    stage: str
    instruction: str
    range: Range | None = None


class Plan(msgspec.Struct, frozen=True):
    """All that has to be done: nodes in an order in which they can be solved, and the images made from them.

    `used_args` are the build arguments that something consumed; `unneeded` what is left out; `stages` how the stages
    depend on each other.
    """

    nodes: tuple[AnyNode, ...]
    images: tuple[PlannedImage, ...]
    findings: tuple[Finding, ...] = ()
    used_args: frozenset[str] = frozenset()
    unneeded: tuple[UnneededStep, ...] = ()
    stages: StageGraph = StageGraph()

    def needed(self, targets: Iterable[int]) -> list[int]:
        """The nodes that these are made from, and themselves, in order."""
        found = set(targets)
        for number in range(len(self.nodes) - 1, -1, -1):  # each comes after those that it needs
            if number in found:
                found.update(self.nodes[number].needs())
        return sorted(found)


class Missing(msgspec.Struct, frozen=True):
    """What must be resolved before planning can go on, and the lines that name it."""

    images: frozenset[ImageKey]
    places: Mapping[ImageKey, Range | None] = {}
