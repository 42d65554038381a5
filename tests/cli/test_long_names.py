"""Names that are longer than any file system allows: an error of the line that gives them, never of the store's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builds import Cli, Done, context, needs_sandbox

LONG = "a" * 300
MISSING = "was not found"
REFUSED = "one of its names has 300 bytes, and file systems allow 255"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (f"COPY --from=one /{LONG} /x", f"/{LONG} {MISSING}"),
        ("COPY --from=one /link/z /x", f"/link/z {MISSING}"),
        (f"COPY --from=one /d/{LONG}/z /x", f"/d/{LONG}/z {MISSING}"),
        (f"COPY f /{LONG}", f"/{LONG}: {REFUSED}"),
        (f"COPY f /d/{LONG}/x", f"/d/{LONG}: {REFUSED}"),
        (f"COPY --link f /{LONG}", f"/{LONG}: {REFUSED}"),
        (f"ADD f /{LONG}", f"/{LONG}: {REFUSED}"),
        ("COPY f /link/", f"/{LONG}: {REFUSED}"),
        (f"WORKDIR /{LONG}", f"/{LONG}: {REFUSED}"),
    ],
)
def test_one_clear_error(cli: Cli, tmp_path: Path, line: str, cause: str) -> None:
    done = build(cli, tmp_path, line)
    assert done.status == 1
    assert f"error: Dockerfile:4: {cause}\n" in done.err
    assert str(cli.root) not in done.err


@needs_sandbox
def test_accounts_that_cannot_be_there(cli: Cli, tmp_path: Path) -> None:
    done = build(cli, tmp_path, 'USER joe\nRUN ["/bin/id"]')
    assert "error: Dockerfile:5: there is no user 'joe' in the image's /etc/passwd\n" in done.err


def build(cli: Cli, directory: Path, lines: str) -> Done:
    """Build on an image with links to a name that no file can have."""
    directory = context(directory / "context", f"FROM scratch AS one\nCOPY base /\nFROM one\n{lines}\n", f="f")
    (directory / "base/etc").mkdir(parents=True)
    (directory / "base/d").mkdir()
    (directory / "base/link").symlink_to(LONG)
    (directory / "base/etc/passwd").symlink_to(LONG)
    return cli("build", "-q", directory)
