"""What the stages of a Dockerfile are made from, as frozen data: for pictures, and for the record of a build."""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
import msgspec

STAGE, IMAGE, CONTEXT, SCRATCH = "stage", "image", "context", "scratch"
"""What a node may be."""

FROM, COPY, MOUNT = "from", "copy", "mount"
"""How a stage may use a node: it starts there, COPY --from takes files of it, or RUN --mount shows it."""


class StageNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stage, or what stages are made from beside each other. `name` is the stage's (`stage-1` without AS), or the
    image's or context's as people write it; `line` that of its FROM, 0 for what is no stage; `needed` whether the
    target is made from it."""

    name: str
    kind: str = STAGE
    line: int = 0
    needed: bool = True


class StageEdge(msgspec.Struct, frozen=True, omit_defaults=True):
    """`user` is made from `source`; both are positions in `StageGraph.nodes`. `line` is that of the first instruction
    that says so."""

    source: int
    user: int
    kind: str = FROM
    line: int = 0


class StageGraph(msgspec.Struct, frozen=True, omit_defaults=True):
    """All stages in the order of their lines, then what else they are made from. `target` is the position of the stage
    to be built."""

    nodes: tuple[StageNode, ...] = ()
    edges: tuple[StageEdge, ...] = ()
    target: int = 0
