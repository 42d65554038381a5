"""What makes a build another one of the same: the context and the Dockerfile, wherever the command was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.api.options import BuildOptions
from builder.api.recording import project_of

REMOTE = (
    "github.com/owner/name",
    "github.com/owner/name.git#main:sub",
    "git@example.com:name.git",
    "ssh://git.example.com/name",
    "https://example.com/name.git#main",
    "https://example.com/context.tar.gz",
    "-",
)


@pytest.fixture
def projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    found = tmp_path / "one", tmp_path / "two"
    for directory in found:
        directory.mkdir()
    monkeypatch.chdir(found[0])
    return found


@pytest.mark.parametrize("context", REMOTE)
@pytest.mark.parametrize("dockerfile", ["", "sub/Other"])
def test_what_is_elsewhere_is_the_same_from_everywhere(
    projects: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, context: str, dockerfile: str
) -> None:
    options = BuildOptions(context=context, dockerfile=dockerfile)
    before = project_of(options)
    assert before == f"{dockerfile or 'Dockerfile'}|{context}"
    monkeypatch.chdir(projects[1])
    assert project_of(options) == before


@pytest.mark.parametrize("context", [".", "sub", "nosuch", "github.com/owner/name", "a@b:c", "http:"])
def test_directories(projects: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, context: str) -> None:
    here, there = projects
    if context != "nosuch":
        (here / context).mkdir(parents=True, exist_ok=True)
        (there / context).mkdir(parents=True, exist_ok=True)
    before = project_of(BuildOptions(context=context))
    assert before == f"Dockerfile|{(here / context).absolute() if context != '.' else here}"
    monkeypatch.chdir(there)
    assert project_of(BuildOptions(context=context)) != before
    assert project_of(BuildOptions(context=str(here / context))) == before


def test_the_dockerfile_is_looked_for_as_the_build_does(projects: tuple[Path, Path]) -> None:
    here, there = projects
    (here / "Other").touch()
    assert project_of(BuildOptions(context=str(there), dockerfile="Other")) == f"{here}/Other|{there}"
    (here / "Other").unlink()
    assert project_of(BuildOptions(context=str(there), dockerfile="Other")) == f"{there}/Other|{there}"


@pytest.mark.parametrize("url", ["https://user:password@example.com/name.git#main", "ftp://user:password@example.com"])
def test_credentials_are_left_out(url: str) -> None:
    assert project_of(BuildOptions(context=url)) == f"Dockerfile|{url.replace('user:password', 'xxxxx')}"


def test_names_tell_what_came_on_standard_input_apart() -> None:
    assert project_of(BuildOptions(context="-", tags=("b", "a"))) == "Dockerfile|-|a|b"
