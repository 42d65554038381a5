"""--chmod: against the chmod program where both agree, and by a table where BSD's setmode differs."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from builder.errors import PlanError
from builder.plan.modes import apply_mode, parse_mode

# One operator a clause: GNU chmod takes `u=r+w` as well, and both take an empty list of permissions.
CLAUSES = st.tuples(
    st.lists(st.sampled_from("ugoa"), min_size=1, max_size=3).map("".join),
    st.sampled_from("+-="),
    st.one_of(st.sampled_from("ugo"), st.lists(st.sampled_from("rwxX"), max_size=4).map("".join)),
).map("".join)
MODES = st.lists(CLAUSES, min_size=1, max_size=3).map(",".join)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file and a directory for the chmod program to change."""
    root = tmp_path_factory.mktemp("modes")
    (root / "file").write_text("")
    (root / "directory").mkdir()
    return root / "file", root / "directory"


def _changed(path: Path, before: int, mode: str) -> int:
    path.chmod(before)
    old = os.umask(0)
    try:
        subprocess.run(["chmod", "--", mode, path], check=True)
    finally:
        os.umask(old)
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(shutil.which("chmod") is None, reason="needs the chmod program")
@settings(max_examples=100, deadline=None)
@given(MODES, st.integers(0, 0o777), st.booleans())
def test_as_the_program_does(places: tuple[Path, Path], mode: str, before: int, directory: bool) -> None:
    assume(not re.search("X.*,|,.*X", mode))  # of which setmode(3) makes something else
    path = places[directory]
    assert oct(apply_mode(parse_mode(mode), before, directory)) == oct(_changed(path, before, mode))


@given(st.integers(0, 0o7777))
def test_octal_modes(number: int) -> None:
    assert parse_mode(f"{number:o}") == number
    assert parse_mode(f"{number:05o}") == number
    assert apply_mode(number, 0o123, False) == number


# (mode, before, directory, after)
TABLE = [
    ("+x", 0o644, False, 0o755),
    ("-w", 0o666, False, 0o444),
    ("=r", 0o777, False, 0o444),
    ("u=rwX,go=rX", 0o600, False, 0o644),
    ("u=rwX,go=rX", 0o700, False, 0o755),
    ("u=rwX,go=rX", 0o600, True, 0o755),
    ("u=rw,g=u,o=g", 0o111, False, 0o666),
    ("u+s", 0o755, False, 0o4755),
    ("g+s", 0o755, False, 0o2755),
    ("ug=s", 0o755, False, 0o6005),
    ("a+t", 0o755, True, 0o1755),
    ("o+t", 0o755, True, 0o755),  # "other" has no sticky bit, as in BSD
    ("u-s", 0o4755, False, 0o755),
    ("u=rwx", 0o4700, False, 0o700),
    ("u=r-w+x", 0o000, False, 0o500),
    ("u=", 0o777, False, 0o077),
    ("a=rwx,o-rwx", 0, False, 0o770),
    # As BuildKit made them:
    ("a-x+X", 0o755, False, 0o755),
    ("a-x,u+X", 0o755, False, 0o744),
    ("a=r,a+X", 0o755, False, 0o555),
    ("a=,u=rwX", 0o755, False, 0o700),
    ("u=rw,a+X", 0o744, False, 0o755),
    ("u=rw,go=rX", 0o744, False, 0o655),
    ("go=,u+X", 0o645, False, 0o700),
    ("u=rw,go=r", 0o1755, False, 0o1644),
    ("u=g", 0o4755, False, 0o4555),
    ("g=u", 0o2755, False, 0o2775),
    ("+rwxst", 0o600, False, 0o1600),
    ("-rwxst", 0o7777, False, 0o6777),
    # As the clauses of setmode.go say:
    ("a-X", 0o755, False, 0o644),
    ("u=rwX,go-X", 0o755, True, 0o744),
    ("+t+x", 0o644, False, 0o1755),
    ("o=ru", 0o750, False, 0o757),
    ("o=ur", 0o750, False, 0o754),
    ("u+rwg", 0o051, False, 0o751),
    ("g-rwu", 0o177, False, 0o107),
    ("u=g", 0o4750, False, 0o4550),
    ("u=gX", 0o4710, False, 0o4110),
    ("u=Xg", 0o4740, False, 0o4440),
    ("=", 0o7777, False, 0o1000),
]


@pytest.mark.parametrize(("mode", "before", "directory", "after"), TABLE)
def test_table(mode: str, before: int, directory: bool, after: int) -> None:
    assert oct(apply_mode(parse_mode(mode), before, directory)) == oct(after)


@pytest.mark.parametrize(
    "text", ["8", "10000", "77777777777", "-1", "u", "x", "u=z", "u=rw,", ",u=r", "u==r,", "u=r8", "٧"]
)
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(PlanError, match="invalid mode") as caught:
        parse_mode(text)
    assert caught.value.remedy


@given(st.text("ugoa+-=rwxXst,07 8", max_size=12), st.integers(0, 0o7777), st.booleans())
def test_any_text_is_a_mode_or_refused(text: str, before: int, directory: bool) -> None:
    try:
        mode = parse_mode(text)
    except PlanError:
        return
    after = apply_mode(mode, before, directory)
    assert 0 <= after <= 0o7777
    if isinstance(mode, str) and not {"X", "-", "+"} & set(text):
        assert apply_mode(mode, after, directory) == apply_mode(mode, apply_mode(mode, after, directory), directory)
