"""Pinning: which names are found, what the text is afterwards, and how it is written."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.api.pinning import Pinning, find_pins, replace_file
from builder.dockerfile.parser import parse
from builder.errors import BuilderError, ContextError, InvalidReference, NotFoundError, RegistryError
from builder.oci.reference import Reference
from tests.dockerfile.written import Writer

DATA = Path(__file__).parents[2] / "testdata/pin/cases.toml"
CASES = tomllib.loads(DATA.read_text())["case"]
OLD = "sha256:" + "0" * 64


def digest(reference: Reference) -> str:
    """What every tag has here."""
    return "sha256:" + hashlib.sha256(str(reference).encode()).hexdigest()


def pins(text: str | bytes) -> Pinning:
    return find_pins(text.encode() if isinstance(text, str) else text, "Dockerfile", digest)


def with_digests(text: str) -> str:
    """`NAME@` with the digest that the pins of NAME have."""

    def complete(match: re.Match[str]) -> str:
        (pin,) = pins(f"FROM {match[1]}\n").pins
        return f"{match[1]}@{pin.current}"

    return re.sub(r"([^\s=,]+)@(?=[\s,]|$)", complete, text)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_cases(case: dict[str, Any]) -> None:
    found = pins(case["before"])
    assert found.rewritten().decode() == with_digests(case["after"])
    assert [pin.use.name or pin.use.written for pin in found.pins if pin.use.obstacle] == [
        {"alpine:$V": "alpine:1"}.get(name, name) for name in case.get("obstacles", [])
    ]
    again = pins(found.rewritten())
    assert not again.changes(update=True)
    assert not again.outdated


def test_bytes_that_are_not_utf_8() -> None:
    text = b"# caf\xe9\nFROM a\n# \xff\xfe\r"
    assert pins(text).rewritten() == text.replace(b"FROM a", with_digests("FROM a:latest@").encode())


def test_pins_that_are_there() -> None:
    text = f"FROM a:1@{OLD}\nFROM b@{OLD}\nFROM c:1\n"
    found = pins(text)
    assert [pin.outdated for pin in found.pins] == [True, False, False]
    assert found.rewritten().decode() == text.replace("c:1", with_digests("c:1@"))
    assert found.rewritten(update=True).decode() == with_digests(f"FROM a:1@\nFROM b@{OLD}\nFROM c:1@\n")


def test_named_contexts_are_no_images() -> None:
    text = b"FROM alpine:latest\nCOPY --from=assets / /\nRUN --mount=from=Files,target=/f ls\nFROM alpine:3\n"
    asked: list[str] = []

    def look_up(reference: Reference) -> str:
        asked.append(reference.familiar)
        return OLD

    found = find_pins(text, "Dockerfile", look_up, ["alpine", "docker.io/library/assets:latest", "Files"])
    assert asked == ["alpine:3"]
    assert found.rewritten() == text.replace(b"alpine:3", f"alpine:3@{OLD}".encode())
    assert [pin.use.obstacle for pin in found.pins] == [*["it is a named context"] * 3, ""]


def test_an_image_is_looked_up_once() -> None:
    asked: list[str] = []

    def look_up(reference: Reference) -> str:
        asked.append(str(reference))
        return OLD

    find_pins(b"FROM a\nFROM docker.io/library/a:latest\nFROM b:1@" + OLD.encode() + b"\n", "Dockerfile", look_up)
    assert sorted(asked) == ["docker.io/library/a:latest", "docker.io/library/b:1"]


def test_one_error_tells_of_all_images() -> None:
    def look_up(reference: Reference) -> str:
        if reference.path == "library/b":
            return OLD
        raise NotFoundError(f"there is no {reference.familiar}", remedy="look again")

    with pytest.raises(NotFoundError, match="Dockerfile:2: there is no a:latest"):
        find_pins(b"FROM b\nFROM a\nFROM a:latest\n", "Dockerfile", look_up)
    with pytest.raises(RegistryError, match="2 images cannot be looked up") as refused:
        find_pins(b"FROM b\nFROM a\nFROM b AS x\nCOPY --from=c:1 / /\n", "Dockerfile", look_up)
    assert refused.value.details == (
        "    Dockerfile:2: there is no a:latest",
        "    Dockerfile:4: there is no c:1",
    )
    assert refused.value.remedy == "look again"


def test_a_name_that_is_none() -> None:
    with pytest.raises(InvalidReference) as refused:
        pins("FROM a\nFROM Upper/Case\n")
    assert refused.value.place == "Dockerfile:2"


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_nothing_else_changes(seed: int) -> None:
    """Taking the pins out again gives the text as it was, and what was pinned is pinned to what it was."""
    text = Writer(Random(seed)).dockerfile().encode()
    try:
        parse(text)
        found = pins(text)
    except BuilderError:
        return
    made = found.rewritten().decode()
    for pin in found.changes(update=False):
        assert made.count(pin.replacement) >= 1
        made = made.replace(pin.replacement, pin.use.written, 1)
    assert made == text.decode()


# --- files


def test_a_file_keeps_its_mode_and_its_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file = tmp_path / "real/Dockerfile"
    file.write_bytes(b"a")
    file.chmod(0o604)
    (tmp_path / "one").symlink_to("real/Dockerfile")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    replace_file(str(tmp_path / "two"), b"a", b"b")
    assert file.read_bytes() == b"b"
    assert file.stat().st_mode & 0o7777 == 0o604
    assert (tmp_path / "two").is_symlink()
    assert (tmp_path / "one").is_symlink()
    assert os.listdir(tmp_path / "real") == ["Dockerfile"]


@pytest.mark.skipif(os.geteuid() != 0, reason="files of another owner need root")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_bytes(b"a")
    os.chown(file, 1234, 2345)
    replace_file(str(file), b"a", b"b")
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 2345)


def test_a_file_that_was_changed_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_bytes(b"mine")
    with pytest.raises(ContextError, match="changed meanwhile"):
        replace_file(str(file), b"a", b"b")
    assert file.read_bytes() == b"mine"
    assert os.listdir(tmp_path) == ["Dockerfile"]


def test_a_write_that_fails_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "Dockerfile"
    file.write_bytes(b"a")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ContextError, match="cannot be written: No space left on device"):
        replace_file(str(file), b"a", b"b")
    assert file.read_bytes() == b"a"
    assert os.listdir(tmp_path) == ["Dockerfile"]
