"""Budgets: what an image may take, and by what a build exceeded them.

They are checked when the layers are known (squashed, if that was asked for) and before anything is tagged, pushed or
exported; the steps stay in the cache. All sizes are those without compression, as `builder images` and `builder layers`
show them, of the whole image, what it has from its base included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from builder.api.options import Budget
from builder.errors import BudgetExceeded, UsageError
from builder.filesystem.names import printable
from builder.oci.digests import hex_of
from builder.oci.spec import Descriptor
from builder.plan.locate import Locator
from builder.plan.steps import ImageNode, Plan, PlannedImage
from builder.progress import human_size
from builder.solver.solve import Root
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.filesystem.analysis import Analysis
    from builder.filesystem.decompress import Reader

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) *(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) *%")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_WASTE = "waste-1"
_SHOWN = 5  # files of a layer, and hidden copies
_LAYERS_SHOWN = 3
_WIDEST = 100


def parse_budget(size: str, layer: str, waste: str) -> Budget:
    """The budget that `--max-size`, `--max-layer` and `--max-waste` give ('' for no limit).

    Units are those that sizes are shown in: `300MB` is 300 000 000 bytes, `300MiB` 314 572 800. Raises UsageError.
    """
    share = _SHARE.fullmatch(waste.strip())
    return Budget(
        size=_parse_size(size, "--max-size"),
        layer=_parse_size(layer, "--max-layer"),
        waste=None if share is not None else _parse_size(waste, "--max-waste"),
        waste_share=float(share[1]) / 100 if share is not None else None,
    )


def _parse_size(text: str, option: str) -> int | None:
    if not text:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        example = "5% or 10MB" if option == "--max-waste" else "300MB or 1.5GiB"
        raise UsageError(f"invalid value {text!r} for {option}", remedy=f"write for example {example}")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS.get((match[2] or "").lower(), 0))


class _Layer(msgspec.Struct, frozen=True):
    """A layer of an image (`number` from 1), and the instruction that made it, with its place if that is known."""

    number: int
    diff_id: str
    size: int
    place: str | None
    instruction: str

    @property
    def described(self) -> str:
        by = ": ".join(part for part in (self.place, self.instruction) if part)
        return f"layer {self.number}, {human_size(self.size)}" + (f": {by}" if by else "")


def approver(
    store: Store, budget: Budget, plan: Plan, locate: Locator
) -> Callable[[Sequence[PlannedImage], Mapping[int, Root]], None]:
    """What raises BudgetExceeded for images that are over the budget."""

    def approve(images: Sequence[PlannedImage], roots: Mapping[int, Root]) -> None:
        for image in images:
            layers = _layers(store, plan, locate, image, roots[image.node].layers)
            _Check(store, layers, f"the image for {image.platform}" if len(images) > 1 else "the image").run(budget)

    return approve


def _layers(
    store: Store, plan: Plan, locate: Locator, image: PlannedImage, diff_ids: Sequence[str]
) -> Sequence[_Layer]:
    base = next((node for node in plan.nodes if isinstance(node, ImageNode) and node.image == image.base), None)
    from_ = locate.place(base.range) if base is not None and base.range is not None else None
    own = [line for line in image.history if line.node is not None]
    inherited = [line.created_by for line in image.config.history or () if not line.empty_layer]
    layers = []
    for number, diff_id in enumerate(diff_ids):
        line = own[number - len(diff_ids)] if len(diff_ids) - number <= len(own) else None
        if line is None:
            made = inherited[number] if number < len(inherited) else ""
            place, instruction = from_, f"in the base image: {made}" if made else "in the base image"
        elif line.node is not None and line.node < len(plan.nodes):
            node = plan.nodes[line.node]
            place, instruction = locate.place(node.range) if node.range is not None else None, node.label
        else:
            place, instruction = None, line.created_by  # squashed: of all steps
        instruction = " ".join(instruction.split())
        instruction = instruction if len(instruction) <= _WIDEST else instruction[: _WIDEST - 1] + "…"
        layers.append(_Layer(number + 1, diff_id, _size(store, diff_id), place, instruction))
    return layers


def _size(store: Store, diff_id: str) -> int:
    """The size of a layer's tar stream; one that nobody read so far is read now, and the size noted."""
    record = store.layers.record(diff_id)
    if record is None or not record.uncompressed:
        record = store.layers.ensure_blob(diff_id, proved=True)
    return record.uncompressed


def _open(store: Store, diff_id: str) -> AbstractContextManager[Reader]:
    """A layer's tar stream."""
    from builder.store.contents import open_layer

    record = store.layers.ensure_blob(diff_id)
    return open_layer(store, Descriptor(record.media_type, record.digest, record.size))


class _Excess(msgspec.Struct, frozen=True):
    """A limit that was exceeded: a sentence, where to look first, and by what."""

    cause: str
    place: str | None
    lines: Sequence[str]


class _Check:
    """Compares one image with a budget. The layers are read only for what they waste, and to say what is in them."""

    def __init__(self, store: Store, layers: Sequence[_Layer], name: str) -> None:
        self._store = store
        self._layers = layers
        self._name = name
        self._total = sum(layer.size for layer in layers)
        self._largest = sorted(layers, key=lambda layer: -layer.size)

    def run(self, budget: Budget) -> None:
        """Raises BudgetExceeded, with all that is over the budget."""
        found = [
            excess for excess in (self._size(budget), self._layer(budget), self._waste(budget)) if excess is not None
        ]
        if not found:
            return
        details = [*found[0].lines]
        for excess in found[1:]:
            details += [f"  also: {excess.cause}", *excess.lines]
        raise BudgetExceeded(
            found[0].cause,
            place=found[0].place,
            details=tuple(details),
            remedy="make it smaller or raise the limit; 'builder layers' shows more of an image built without one",
        )

    def _size(self, budget: Budget) -> _Excess | None:
        if budget.size is None or self._total <= budget.size:
            return None
        cause = f"{self._name} has {human_size(self._total)}, more than --max-size={human_size(budget.size)}"
        return self._by_layers(cause, self._largest)

    def _layer(self, budget: Budget) -> _Excess | None:
        if budget.layer is None:
            return None
        over = [layer for layer in self._largest if layer.size > budget.layer]
        if not over:
            return None
        have = "a layer has" if len(over) == 1 else f"{len(over)} layers have up to"
        cause = f"{have} {human_size(over[0].size)}, more than --max-layer={human_size(budget.layer)}"
        return self._by_layers(cause if self._name == "the image" else f"{self._name}: {cause}", over)

    def _waste(self, budget: Budget) -> _Excess | None:
        if budget.waste is None and budget.waste_share is None:
            return None
        wasted = self._wasted()
        if budget.waste_share is not None:
            limit, allowed = budget.waste_share * self._total, f"{100 * budget.waste_share:g}%"
        else:
            limit, allowed = budget.waste or 0, human_size(budget.waste or 0)
        if wasted <= limit:
            return None
        share = f"{human_size(wasted)} ({100 * wasted / self._total:.1f}%)"
        copies = [(copy, one.path) for one in self._analysis.waste for copy in one.copies]
        lines = []
        for copy, path in copies[:_SHOWN]:
            by = self._layers[copy.by - 1]
            did = "removed" if copy.removed else "replaced"
            lines.append(
                f"    {human_size(copy.size):>7} {printable('/' + path)}, stored in layer {copy.layer}, {did} by"
            )
            lines.append(f"            {by.described}")
        place = self._layers[copies[0][0].by - 1].place if copies else None
        return _Excess(f"{self._name} wastes {share}, more than --max-waste={allowed}", place, lines)

    def _by_layers(self, cause: str, layers: Sequence[_Layer]) -> _Excess:
        lines = []
        for layer in layers[:_LAYERS_SHOWN]:
            lines.append(f"    {layer.described}")
            largest = self._analysis.layers[layer.number - 1].largest
            lines += [f"    {human_size(one.size):>11} {printable('/' + one.path)}" for one in largest]
        return _Excess(cause, layers[0].place, lines)

    def _wasted(self) -> int:
        """The bytes that are wasted, which depend on nothing but the layers and so are remembered."""
        key = hex_of("\n".join(layer.diff_id for layer in self._layers).encode())
        known = self._store.database.memo(_WASTE, key)
        if known is not None:
            return int(known)
        wasted = self._analysis.wasted
        self._store.database.add_memo(_WASTE, key, str(wasted).encode())
        return wasted

    @cached_property
    def _analysis(self) -> Analysis:
        from builder.filesystem.analysis import Analyser

        analyser = Analyser(_SHOWN)
        for layer in self._layers:
            with _open(self._store, layer.diff_id) as stream:
                analyser.add(stream)
        return analyser.finish()
