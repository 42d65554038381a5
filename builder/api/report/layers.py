"""What is in the image of a build: a tree map of its layers, and the same as a table."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import msgspec
from markupsafe import Markup

from builder.api.drawing.stages import clean
from builder.api.report.treemap import Rectangle, treemap
from builder.errors import BuilderError
from builder.progress import human_size
from builder.store.analysis import ImageAnalysis, ImageLayer, analyse_image
from builder.store.builds import Build
from builder.store.contents import select
from builder.store.store import Store

_TOP = 12  # paths of each layer
_COLOURS = 8
_WIDE, _HIGH = 1000.0, 460.0  # what the shapes are computed for; the picture follows the window


class LayersPart(msgspec.Struct, frozen=True):
    """The layers, largest first in `picture` and lowest first in the table; without them, `absent` says why."""

    picture: Markup = Markup()
    analysis: ImageAnalysis | None = None
    absent: str = ""


def layers_part(store: Store, build: Build) -> LayersPart:
    """Read the layers of what was built."""
    if not build.digest:
        return LayersPart(absent="The build made no image." if build.error else "The build made files, and no image.")
    try:
        analysis = analyse_image(store, select(store, build.digest), _TOP)
    except BuilderError as error:
        return LayersPart(absent=f"The layers cannot be shown: {error.cause}.")
    if not analysis.layers:
        return LayersPart(absent="The image has no layers.")
    return LayersPart(_picture(analysis.layers), analysis)


def _picture(layers: Sequence[ImageLayer]) -> Markup:
    root = Element(
        "svg", {"class": "treemap", "role": "img", "aria-label": "Sizes of the layers and of what is in them"}
    )
    area = Rectangle(0, 0, _WIDE, _HIGH)
    for position, place in treemap([layer.changes.size for layer in layers], area):
        _layer(root, layers[position], place)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # escaped by ElementTree


def _layer(root: Element, layer: ImageLayer, place: Rectangle) -> None:
    changes = layer.changes
    colour = f"colour-{(changes.layer - 1) % _COLOURS}"
    link = SubElement(root, "a", {"href": f"#layer-{changes.layer}"})
    named = " ".join(clean(layer.created_by).split()) or "unknown instruction"
    told = f"layer {changes.layer}, {human_size(changes.size)}: {named}"
    cell = _cell(link, place, Rectangle(0, 0, _WIDE, _HIGH), f"layer {colour}", told)
    head = min(22.0, place.height)
    _text(cell, f"{human_size(changes.size)} {named}", "6", "15")
    files = [(f"/{file.path}", file.size) for file in changes.largest]
    other = changes.size - sum(size for _, size in files)
    inner = Rectangle(0, head, place.width, place.height - head)
    if inner.height < 14 or inner.width < 30:
        return
    parts = [*files, ("everything else", max(0, other))]
    for position, spot in treemap([size for _, size in parts], inner):
        path, size = parts[position]
        style = "file" if position < len(files) else "file rest"
        box = _cell(cell, spot, Rectangle(0, 0, place.width, place.height), style, f"{clean(path)}, {human_size(size)}")
        if spot.width > 34 and spot.height > 12:
            _text(box, f"{clean(path).rpartition('/')[2] or clean(path)} {human_size(size)}", "5", "15")


def _cell(parent: Element, place: Rectangle, whole: Rectangle, style: str, told: str) -> Element:
    """A rectangle that clips what is in it, at a place in percent of the whole."""
    cell = SubElement(
        parent,
        "svg",
        {
            "x": f"{100 * place.x / whole.width:.3f}%",
            "y": f"{100 * place.y / whole.height:.3f}%",
            "width": f"{100 * place.width / whole.width:.3f}%",
            "height": f"{100 * place.height / whole.height:.3f}%",
        },
    )
    SubElement(cell, "title").text = told
    SubElement(cell, "rect", {"class": style, "width": "100%", "height": "100%"})
    return cell


def _text(cell: Element, text: str, x: str, y: str) -> None:
    SubElement(cell, "text", {"x": x, "y": y}).text = text
