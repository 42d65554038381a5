"""What is known of a stage between two of its instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from builder.dockerfile import instructions as df
from builder.oci.spec import Platform
from builder.plan.findings import Checks
from builder.plan.image import ImageState
from builder.plan.options import PlanOptions
from builder.plan.scope import Scope
from builder.plan.stages import StageEntry
from builder.plan.steps import AnyNode, Surroundings, Tree


class DeclaredArgument(msgspec.Struct, frozen=True):
    """A build argument: its value ('' where it has none) and the ARG that declares it."""

    name: str
    value: str
    instruction: df.Arg


class StageState:
    """A stage while its instructions are dispatched: its scope, its configuration and its last node."""

    def __init__(
        self, entry: StageEntry, image: ImageState, scope: Scope, node: int, platform: Platform, options: PlanOptions
    ) -> None:
        self.entry = entry
        self.image = image
        self.scope = scope
        self.node = node
        self.platform = platform
        self.options = options
        self.global_args: dict[str, str] = {}
        self.proxies: tuple[tuple[str, str], ...] = ()
        self.used_args: set[str] = set()
        self.add_node: Callable[[AnyNode], int] = _no_nodes
        self.tree_of: Callable[[str, bool], Tree] = _no_trees
        self.has_stage: Callable[[str], bool] = _no_stages
        self.checks = Checks()
        self.workdir_set = False
        self.last: dict[type[df.Instruction], df.Range] = {}
        self.arguments: dict[str, DeclaredArgument | None] = {}

    @property
    def ignore_cache(self) -> bool:
        filter_ = self.options.no_cache
        return filter_ is not None and (not filter_ or self.entry.name in {name.lower() for name in filter_})

    def common(self, instruction: df.Instruction) -> dict[str, Any]:
        """The fields that every node has."""
        return {
            "label": label_of(instruction),
            "stage": self.entry.label,
            "platform": self.platform,
            "range": instruction.range,
            "ignore_cache": self.ignore_cache,
        }

    def surroundings(self) -> Surroundings:
        """What a command would have here."""
        config = self.image.config
        return Surroundings(
            env=tuple(self.scope.env.items()),
            proxies=self.proxies,
            user=config.user,
            workdir=config.working_dir or "/",
            network=self.options.network,
        )

    def step(self, node: AnyNode, created_by: str) -> None:
        """Add a node that makes a layer."""
        if self.scope.used:
            kinds = {name: "ARG" if name in self.scope.declared else "ENV" for name in self.scope.used}
            variables = tuple((kinds[name], name, value) for name, value in self.scope.used.items())
            node = msgspec.structs.replace(node, variables=variables)
        self.node = self.add_node(node)
        self.image.record(created_by, self.node)


def label_of(instruction: df.Instruction) -> str:
    """What people see of an instruction: its first line."""
    return " ".join(instruction.source.split("\n", 1)[0].split())


def _no_nodes(node: AnyNode) -> int:
    raise AssertionError("no graph to add to")


def _no_trees(name: str, numbers: bool) -> Tree:
    raise AssertionError("no stages to look in")


def _no_stages(name: str) -> bool:
    return False
