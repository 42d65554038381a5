"""A page about a build: one HTML file that needs nothing else, for a browser with or without a network.

`page.html.jinja` is the page, `page.css` and `page.js` are put into it. Whatever a Dockerfile, a log or an image says
is escaped by Jinja's autoescape or by ElementTree; beside that, the page's own Content-Security-Policy admits only the
one style sheet and the one script, by their digests, and no request at all. So nothing in it has a `style` attribute:
pictures are SVG with places in percent.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import BinaryIO

from builder.api.critical import NOTICEABLE
from builder.api.drawing.stages import STYLE
from builder.api.report.page import page_of
from builder.export.destination import destination
from builder.filesystem.names import printable
from builder.progress import human_size
from builder.store.builds import BASES, Build
from builder.store.store import Store


def write_report(store: Store, build: Build, path: str) -> None:
    """Write the page of a recorded build to a file, or to standard output for `-`. Raises StoreError."""
    with destination(path) as file:
        render_report(store, build, file)


def render_report(store: Store, build: Build, file: BinaryIO) -> None:
    """Write the page of a recorded build. The layers of its image are read, if they are in the store: that may take
    seconds."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def part(name: str) -> str:
        return resources.files(__package__).joinpath(name).read_text("utf-8")

    style, script = f"{part('page.css')}\n{STYLE}", part("page.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"size": human_size, "path": printable}
    template = environment.from_string(part("page.html.jinja"))
    stream = template.stream(
        page=page_of(store, build),
        noticeable=NOTICEABLE,
        bases=BASES,
        style=Markup(style),
        script=Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
    )
    stream.enable_buffering(64)
    stream.dump(file, encoding="utf-8", errors="backslashreplace")


def _digest(text: str) -> str:
    """What a Content-Security-Policy calls an inline style sheet or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
