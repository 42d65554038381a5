"""What a cached ADD of a git repository is known by: all that changes its files."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from builder.context.git import Resolved
from builder.context.git_url import GitRef
from builder.solver.remote import git_identity

REF = GitRef("https://example.com/r.git", "r", "main")
COMMIT = "a" * 40
NAMED = Resolved("refs/heads/main", COMMIT, COMMIT)

OTHER = {
    "remote": "https://example.com/other.git", "short_name": "other", "ref": "v1", "subdir": "sub",
    "checksum": "aaaaaaa", "keep_git_dir": True, "submodules": False, "mtime": "commit", "fetch_by_commit": True,
    "looks_local": True,
}  # fmt: skip
"""Another value for each field."""
WITHOUT_EFFECT = {
    "short_name": "names what is made of it, nothing in it",
    "ref": "the commit says what it is, where no .git is kept",
    "checksum": "only refuses",
    "fetch_by_commit": "the commit is the same",
    "looks_local": "how it was written",
}


def identity(ref: GitRef, resolved: Resolved = NAMED, **options: Any) -> dict[str, object]:
    return git_identity(ref, resolved, keep=options.get("keep", bool(ref.keep_git_dir)), excludes=())


@pytest.mark.parametrize("field", GitRef.__struct_fields__)
def test_each_field_makes_another_key(field: str) -> None:
    other = msgspec.structs.replace(REF, **{field: OTHER[field]})
    assert (identity(other) == identity(REF)) == (field in WITHOUT_EFFECT)


def test_a_git_directory_that_is_kept_names_its_branch() -> None:
    tag = Resolved("refs/tags/v1", COMMIT, COMMIT)
    assert identity(REF) == identity(REF, tag)
    assert identity(REF, keep=True) != identity(REF, tag, keep=True)


def test_what_says_the_default_is_no_other_source() -> None:
    assert identity(msgspec.structs.replace(REF, submodules=True, keep_git_dir=False)) == identity(REF)
    assert set(identity(REF)) == {"git", "commit", "subdir", "keep", "excludes"}
