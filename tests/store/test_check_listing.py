"""What a check expects of an unpacked layer is what unpacking its archive gives."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import LayerError
from builder.filesystem.archive import TarReader, pieces
from builder.filesystem.unpack import unpack
from builder.store.check_listing import Listing
from tests.support.archives import archive

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")

FIFO, LINK, SYMLINK = ({"type": kind} for kind in (tarfile.FIFOTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE))
FILE = {"data": b"content"}
ZERO = {"type": tarfile.CHRTYPE, "device": (1, 5)}


def fault(raw: bytes, files: Path) -> str:
    """How what was unpacked differs from what a check expects."""
    unpack(io.BytesIO(raw), str(files), layer=True)
    listing = Listing(deep=True, devices=True)
    for entry in TarReader(pieces(io.BytesIO(raw))):
        listing.add(entry)
    return listing.compare(str(files)) or listing.surplus(str(files))


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([("x", FILE), ("x", FIFO)], id="a pipe in place of a file"),
        pytest.param([("x", FILE), ("x", {**SYMLINK, "link": "/dev/zero"})], id="a link in place of a file"),
        pytest.param([("x", FILE), ("x", ZERO)], id="a device in place of a file"),
        pytest.param([("x", FILE), ("x", {})], id="a directory in place of a file"),
        pytest.param(
            [("s", {**SYMLINK, "link": "t"}), ("x", FILE), ("x", {**LINK, "link": "s"})], id="a hard link to a link"
        ),
        pytest.param(
            [("a", FILE), ("b", {**LINK, "link": "a", "mode": 0o600}), ("c", {**LINK, "link": "b", "mode": 0o755})],
            id="the last mode of three names",
        ),
        pytest.param(
            [("a", FILE), ("b", {**LINK, "link": "a"}), ("b", FILE), ("c", {**LINK, "link": "b", "mode": 0o600})],
            id="a name of another file by now",
        ),
        pytest.param([("no/such/.wh..wh..opq", FILE)], id="an opaque directory that is not there"),
    ],
)
def test_what_was_unpacked_is_in_order(tmp_path: Path, entries: list[tuple[str, dict[str, Any]]]) -> None:
    (tmp_path / "files").mkdir()
    assert fault(archive(*entries), tmp_path / "files") == ""


NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a"])
KINDS = st.one_of(
    st.builds(lambda data, mode: {"data": data, "mode": mode}, st.binary(max_size=2), st.sampled_from([0o600, 0o755])),
    st.just({}),
    st.just(FIFO),
    st.builds(lambda link, mode: {**LINK, "link": link, "mode": mode}, NAMES, st.sampled_from([0o600, 0o755])),
)
HIDING = st.tuples(st.sampled_from([".wh.a", "d/.wh.b", "d/.wh..wh..opq", "d/e/.wh..wh..opq"]), st.just(FILE))


NAMED = st.tuples(NAMES, KINDS).filter(lambda entry: entry[0] != entry[1].get("link"))


@given(st.lists(st.one_of(NAMED, HIDING), max_size=7))
def test_whatever_was_unpacked_is_in_order(entries: list[tuple[str, dict[str, Any]]]) -> None:
    files = Path(tempfile.mkdtemp())
    try:
        assert fault(archive(*entries), files) == ""
    except LayerError:
        return  # nothing was unpacked
    finally:
        shutil.rmtree(files)
