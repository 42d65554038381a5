"""Windows: what this builder can make for it.

As with BuildKit on Linux, files can be carried to it: a stage that starts from nothing has plain layers, and images for
Windows can be copied from. On top of such an image layers would need another form, and nothing of it can run here.
"""

from __future__ import annotations

from builder.errors import PlanError
from builder.plan.locate import Locator
from builder.plan.steps import AnyNode, ImageNode, Plan, RunNode, StepNode, WorkdirNode

_WINDOWS = "windows"


def refuse_windows(plan: Plan, locate: Locator) -> None:
    """Raise PlanError, with its place, for what would give an image that does not work."""
    for node in plan.nodes:
        if isinstance(node, StepNode) and node.platform.os == _WINDOWS:
            with locate(node):
                _refuse(node, _root(plan, node))
    for image in plan.images:
        root = _root(plan, plan.nodes[image.node])
        if image.platform.os == _WINDOWS and isinstance(root, ImageNode):
            with locate(root):
                raise _on_image()


def _refuse(node: StepNode, root: AnyNode) -> None:
    if isinstance(root, ImageNode):
        raise _on_image()
    if isinstance(node, (RunNode, WorkdirNode)):
        raise PlanError(
            f"{node.instruction.split()[0].upper()} is not supported for {node.platform}",
            remedy="do it in a stage with FROM --platform=$BUILDPLATFORM, and copy what it makes with COPY --from",
        )
    destination = node.destination.removeprefix("/")
    if "\\" in destination or destination[1:2] == ":":
        raise PlanError(
            f"the destination {destination!r} is a path of Windows",
            remedy="write it with slashes and without a drive: /directory/file",
        )


def _on_image() -> PlanError:
    return PlanError(
        "this stage stands on an image for Windows, which cannot be built on here",
        remedy="name a Linux platform with --platform, or start FROM scratch and copy from that image with COPY --from",
    )


def _root(plan: Plan, node: AnyNode) -> AnyNode:
    """What the steps up to a node stand on."""
    while isinstance(node, StepNode):
        node = plan.nodes[node.parent]
    return node
