"""`builder search`, `tags` and `catalog`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.builds import Cli, lines
from tests.support.registry import FakeRegistry

RESULTS = [
    {"name": "library/one", "description": "first\nline " + "x" * 60, "star_count": 1200, "is_official": True},
    {"name": "two", "description": "", "star_count": 3, "is_official": False},
]


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        for tag in ("1", "2", "10"):
            running.add_image("team/app", tag)
        running.add_image("other", "latest")
        yield running


def test_search(cli: Cli, registry: FakeRegistry) -> None:
    registry.results = RESULTS
    term = f"{registry.host}/o"
    header, first, second = lines(cli("search", term))
    assert header.split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert first.split() == ["library/one", "first", "line", "x" * 33 + "…", "1200", "[OK]"]
    assert second.split() == ["two", "3"]
    assert "x" * 60 in lines(cli("search", "--no-trunc", term))[1]
    assert lines(cli("search", "--format", "{{.Name}} {{.IsOfficial}}", "-f", "stars=4", term)) == ["library/one [OK]"]
    assert lines(cli("search", "--format", "{{.Name}}", "-f", "is-official=false", term)) == ["two"]
    assert lines(cli("search", "--format", "{{.Name}}", "-f", "is-automated=true", term)) == []
    assert json.loads(lines(cli("search", "--format", "json", term))[0])["IsOfficial"] == "true"
    assert len(lines(cli("search", "--limit", "1", term))) == 2
    assert registry.requests[-1] == "GET /v1/search?q=o&n=1"
    for wrong in (["--limit", "0"], ["--limit", "101"], ["-f", "stars=x"], ["-f", "colour=red"]):
        assert cli("search", *wrong, term).status == 2


def test_a_search_where_there_is_none(cli: Cli, registry: FakeRegistry) -> None:
    assert lines(cli("search", "--format", "{{.Name}}", f"{registry.host}/APP")) == ["team/app"]
    registry.has_catalog = False
    done = cli("search", f"{registry.host}/app")
    assert done.status == 1
    assert f"{registry.host} has no search" in done.err


def test_tags(cli: Cli, registry: FakeRegistry) -> None:
    assert lines(cli("tags", f"{registry.host}/team/app")) == ["1", "10", "2"]
    assert json.loads(lines(cli("tags", "--format", "json", f"{registry.host}/team/app"))[0]) == {
        "Repository": f"{registry.host}/team/app",
        "Tag": "1",
    }
    assert cli("tags", f"{registry.host}/team/app:1").status == 2
    missing = cli("tags", f"{registry.host}/nothing")
    assert missing.status == 1
    assert "was not found" in missing.err


def test_a_catalog(cli: Cli, registry: FakeRegistry) -> None:
    assert lines(cli("catalog", registry.host)) == ["other", "team/app"]
    assert lines(cli("catalog", "--format", "table", registry.host))[0].split() == ["REGISTRY", "REPOSITORY"]
    registry.has_catalog = False
    done = cli("catalog", registry.host)
    assert done.status == 1
    assert "does not list its repositories" in done.err
