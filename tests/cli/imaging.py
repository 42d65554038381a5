"""An image of one file, built for the tests of what is done with images."""

from __future__ import annotations

import json
from typing import Any

from tests.support.builds import Cli, context, lines

DOCKERFILE = """\
FROM scratch
LABEL stage=one who="a b"
ENV A=1
COPY file /dir/file
CMD ["/dir/file"]
"""
OLD, NEW = "1577836800", "1609459200"  # 2020 and 2021


def build(cli: Cli, *arguments: str, epoch: str = OLD, content: str = "content", dockerfile: str = DOCKERFILE) -> None:
    directory = context(cli.root.parent / "context", dockerfile, file=content)
    cli.build(*arguments, directory, environ={"SOURCE_DATE_EPOCH": epoch})


def rebuild(cli: Cli) -> int:
    """Build the last image once more; how many steps were cached."""
    return cli.build("-t", "a", cli.root.parent / "context", environ={"SOURCE_DATE_EPOCH": OLD}).cached()


def document(cli: Cli, name: str, *options: str) -> dict[str, Any]:
    (found,) = json.loads("\n".join(lines(cli("inspect", *options, name))))
    return dict(found)


def blobs(cli: Cli) -> set[str]:
    return {path.name for path in (cli.root / "blobs/sha256").iterdir()}
