"""The graph while it grows: nodes in the order in which they can be solved."""

from __future__ import annotations

import msgspec

from builder.oci.spec import Platform
from builder.plan.steps import AnyNode, ImageNode, ScratchNode, TreeNode


class Nodes:
    """A list of nodes in which every root that stages begin from stands once."""

    def __init__(self) -> None:
        self._nodes: list[AnyNode] = []
        self._roots: dict[object, int] = {}

    def add(self, node: AnyNode) -> int:
        """Add a node; returns its position, or that of the one that begins from the same root."""
        root = _root(node)
        if root is not None and root in self._roots:
            return self._roots[root]
        self._nodes.append(node)
        if root is not None:
            self._roots[root] = len(self._nodes) - 1
        return len(self._nodes) - 1

    def labelled(self) -> tuple[AnyNode, ...]:
        """The nodes with labels like `[build 2/5] RUN make`, counted within their stage."""
        totals: dict[tuple[str, Platform], int] = {}
        for node in self._nodes:
            if not isinstance(node, ScratchNode):
                key = (node.stage, node.platform)
                totals[key] = totals.get(key, 0) + 1
        several = len({node.platform for node in self._nodes}) > 1
        counts: dict[tuple[str, Platform], int] = {}
        found: list[AnyNode] = []
        for node in self._nodes:
            key = (node.stage, node.platform)
            if isinstance(node, ScratchNode):
                found.append(node)
                continue
            counts[key] = counts.get(key, 0) + 1
            width = len(str(totals[key]))
            prefix = f"{node.platform} " if several else ""
            label = f"[{prefix}{node.stage} {counts[key]:{width}}/{totals[key]}] {node.label}"
            found.append(msgspec.structs.replace(node, label=label))
        return tuple(found)


def _root(node: AnyNode) -> object:
    """What tells a root from others; None for a step."""
    if isinstance(node, ImageNode):
        return node.image
    if isinstance(node, TreeNode):
        return ("context", node.context)
    return "scratch" if isinstance(node, ScratchNode) else None
