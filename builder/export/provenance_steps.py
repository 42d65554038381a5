"""A build's graph of steps in the words of BuildKit's LLB (`solver/pb/ops.proto`), as far as they mean the same."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from builder.context.source import Origin
from builder.export.withheld import Variables, Withheld
from builder.oci.spec import Platform
from builder.plan.steps import (
    AnyNode,
    BindMount,
    CacheMount,
    CopyFiles,
    CopyGit,
    CopyInline,
    CopyNode,
    CopySource,
    CopyUrl,
    FromContext,
    FromNode,
    ImageKey,
    ImageNode,
    RunNode,
    SecretMount,
    SshMount,
    TreeNode,
    WorkdirNode,
)


class Steps:
    """The graph of steps as BuildKit tells it: `definition` in an order in which it can be solved; `numbers` the step
    of each node, `locations` the Dockerfile's lines of steps, `keys` the step of each cache key."""

    def __init__(
        self,
        nodes: Mapping[int, AnyNode],
        target: int,
        *,
        bases: Mapping[ImageKey, str],
        origins: Mapping[str, Origin],
        commits: Mapping[str, tuple[str, str]],
        keys: Mapping[int, str],
        withheld: Withheld,
    ) -> None:
        self.definition: list[dict[str, Any]] = []
        self.numbers: dict[int, str] = {}
        self.locations: dict[str, Any] = {}
        self.keys: dict[str, str] = {}
        self._sources: dict[str, str] = {}
        self._bases = bases
        self._origins = origins
        self._commits = commits
        self._withheld = withheld
        for number, node in nodes.items():
            step = self._add_node(node)
            if step is None:
                continue
            self.numbers[number] = step
            if node.range is not None:
                lines = {"start": {"line": node.range.start}, "end": {"line": node.range.end}}
                self.locations[step] = {"locations": [{"ranges": [lines]}]}
            if keys.get(number):
                self.keys[f"sha256:{keys[number]}"] = step
        self._add({"Op": None}, [self.numbers[target]] if target in self.numbers else [])

    def _add(self, op: dict[str, Any], inputs: Sequence[str]) -> str:
        step = f"step{len(self.definition)}"
        self.definition.append({"id": step, "op": op, "inputs": [f"{name}:0" for name in inputs]})
        return step

    def _add_node(self, node: AnyNode) -> str | None:
        """None for `FROM scratch`, which is no step."""
        platform = {"platform": _platform(node.platform)}
        if isinstance(node, ImageNode):
            name = node.image.reference
            digest = self._bases.get(node.image, "")
            kind = "oci-layout" if node.image.layout else "docker-image"
            identifier = f"{kind}://{name.partition('@')[0]}" + (f"@{digest}" if digest else "")
            return self._add({"Op": {"source": {"identifier": identifier}}, **platform}, [])
        if isinstance(node, TreeNode):
            return self._context(node.context)
        if isinstance(node, RunNode):
            return self._run(node, platform)
        if isinstance(node, CopyNode):
            return self._copy(node, platform)
        if isinstance(node, WorkdirNode):
            parent = self._parent(node.parent)
            path = self._withheld.text(node.path, node.variables)
            action = {"mkdir": {"path": path, "mode": 0o755, "makeParents": True}}
            actions = [{"input": _first(parent), "Action": action}]
            return self._add({"Op": {"file": {"actions": actions}}, **platform}, parent)
        return None

    def _parent(self, number: int) -> list[str]:
        return [self.numbers[number]] if number in self.numbers else []

    def _context(self, name: str) -> str:
        origin = self._origins.get(name)
        return self._fetched(origin.uri if origin is not None else f"local://{name or 'context'}")

    def _fetched(self, identifier: str, variables: Variables = ()) -> str:
        """The step of a source; one serves all that use it."""
        if identifier not in self._sources:
            told = self._withheld.text(identifier, variables)
            self._sources[identifier] = self._add({"Op": {"source": {"identifier": told}}}, [])
        return self._sources[identifier]

    def _run(self, node: RunNode, platform: dict[str, Any]) -> str:
        inputs = self._parent(node.parent)
        mounts: list[dict[str, Any]] = [{"input": _first(inputs), "dest": "/", "output": 0}]
        for mount in node.mounts:
            described = _mount(mount)
            if isinstance(mount, (BindMount, CacheMount)):
                source = self._tree(mount.tree)
                if source:
                    described["input"] = len(inputs)
                    described["selector"] = mount.source
                    inputs.append(source)
            mounts.append(described)
        meta = {
            "args": [self._withheld.text(argument) for argument in node.argv],
            "env": [f"{name}={self._withheld.value(name, value)}" for name, value in node.env],
            "cwd": node.workdir,
            **({"user": node.user} if node.user else {}),
        }
        run: dict[str, Any] = {"meta": meta, "mounts": mounts}
        if node.network != "default":
            run["network"] = {"host": 1, "none": 2}[node.network]
        if node.security != "sandbox":
            run["security"] = 1
        return self._add({"Op": {"exec": run}, **platform}, inputs)

    def _tree(self, tree: object) -> str | None:
        if isinstance(tree, FromNode):
            return self.numbers.get(tree.node)
        return self._context(tree.name) if isinstance(tree, FromContext) else None

    def _copy(self, node: CopyNode, platform: dict[str, Any]) -> str:
        inputs = self._parent(node.parent)
        base = _first(inputs)
        destination = self._withheld.text(node.destination, node.variables)
        actions: list[dict[str, Any]] = []
        for source in node.sources:
            action: dict[str, Any] = {"dest": destination}
            if isinstance(source, CopyInline):
                path = f"{destination.rstrip('/')}/{source.name}" if destination[-1:] == "/" else destination
                text = self._withheld.text(source.data, node.variables)
                data = base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
                actions.append({"input": base, "Action": {"mkfile": {"path": path, "data": data}}})
                continue
            origin = self._origin(source, node.variables)
            action["src"] = source.path if isinstance(source, CopyFiles) else "/"
            if node.chown:
                action["owner"] = node.chown
            if node.chmod is not None:
                action["mode"] = node.chmod
            described: dict[str, Any] = {"input": base, "Action": {"copy": action}}
            if origin is not None:
                described["secondaryInput"] = len(inputs)
                inputs.append(origin)
            actions.append(described)
        return self._add({"Op": {"file": {"actions": actions}}, **platform}, inputs)

    def _origin(self, source: CopySource, variables: Variables) -> str | None:
        if isinstance(source, CopyFiles):
            return self._tree(source.tree)
        if isinstance(source, CopyGit):
            uri, _ = self._commits.get(source.url, (source.url, ""))
            return self._fetched(f"git://{uri.partition('://')[2] or uri}", variables)
        assert isinstance(source, CopyUrl)
        return self._fetched(source.url, variables)


def _first(inputs: Sequence[str]) -> int:
    """The index of the first input; -1 stands for an empty root."""
    return 0 if inputs else -1


def _mount(mount: object) -> dict[str, Any]:
    described: dict[str, Any] = {"input": -1, "dest": getattr(mount, "target", None) or "", "output": -1}
    if isinstance(mount, BindMount):
        return {**described, "readonly": not mount.writable}
    if isinstance(mount, CacheMount):
        sharing = {"shared": 0, "private": 1, "locked": 2}[mount.sharing]
        return {**described, "mountType": 3, "cacheOpt": {"ID": mount.cache, "sharing": sharing}}
    if isinstance(mount, SecretMount):
        return {**described, "mountType": 1, "secretOpt": {"ID": mount.secret, "optional": not mount.required}}
    if isinstance(mount, SshMount):
        return {**described, "mountType": 2, "SSHOpt": {"ID": mount.agent, "optional": not mount.required}}
    return {**described, "mountType": 4}


def _platform(platform: Platform) -> dict[str, str]:
    variant = {"Variant": platform.variant} if platform.variant else {}
    return {"Architecture": platform.architecture, "OS": platform.os, **variant}
