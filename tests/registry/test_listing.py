"""Tags, catalogs and searches."""

from __future__ import annotations

import pytest

from builder.errors import NotFoundError, RegistryError, UsageError
from builder.oci import reference
from builder.registry import listing
from builder.registry.listing import Found, list_repositories, list_tags, next_page, search, split_term
from builder.registry.transport import Session
from tests.registry.conftest import MakeSession
from tests.support.registry import FakeRegistry, Faults

URL = "https://h/v2/a/tags/list"


def test_tags_over_pages(registry: FakeRegistry, session: Session) -> None:
    for tag in ("a", "b", "c", "d", "e"):
        registry.add_image("app", tag)
    name = reference.parse(f"{registry.host}/app")
    assert list_tags(session, name) == ["a", "b", "c", "d", "e"]
    assert registry.count("GET") == 3
    with pytest.raises(NotFoundError):
        list_tags(session, reference.parse(f"{registry.host}/nothing"))


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (None, None),
        ("", None),
        ('</v2/a/tags/list?last=b>; rel="next"', "https://h/v2/a/tags/list?last=b"),
        ("<?last=b>;rel=next", "https://h/v2/a/tags/list?last=b"),
        ('<http://h/x>; rel="next"', "https://h/x"),  # a proxy took HTTPS off
        ('<http://inner:5000/x?y>; title="a, b"; rel="last next"', "https://h/x?y"),
        ('</first>; rel="first", </second>; rel="next"', "https://h/second"),
        ('</x>; rel="prev"', None),
        ('</x>; title="rel=next"', None),
        ("nonsense", None),
    ],
)
def test_links(link: str | None, expected: str | None) -> None:
    assert next_page(link, "https://h", URL) == expected


def test_a_list_that_never_ends(registry: FakeRegistry, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    for tag in "abcdef":
        registry.add_image("app", tag)
    monkeypatch.setattr(listing, "MOST", 3)
    with pytest.raises(RegistryError, match="more than 3 names"):
        list_tags(session, reference.parse(f"{registry.host}/app"))


def test_pages_that_never_end(registry: FakeRegistry, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold no names, and each names another."""
    links = [{"Link": f'<?last={number}>; rel="next"'} for number in range(9)]
    registry.faults = Faults(statuses=[(200, link) for link in links], only="tags/list")
    registry.add_image("app", "a")
    monkeypatch.setattr(listing, "_MOST_PAGES", 5)
    with pytest.raises(RegistryError, match="more than 5 pages"):
        list_tags(session, reference.parse(f"{registry.host}/app"))
    assert len(registry.requests) == 5


def test_a_catalog(registry: FakeRegistry, session: Session) -> None:
    for name in ("team/app", "app", "other"):
        registry.add_image(name, "1")
    assert list(list_repositories(session, registry.host)) == ["app", "other", "team/app"]
    registry.has_catalog = False
    with pytest.raises(RegistryError, match="does not list its repositories"):
        list(list_repositories(session, registry.host))


def test_the_catalogs_scope(session_for: MakeSession) -> None:
    with FakeRegistry(auth="token") as registry:
        registry.faults = Faults(
            statuses=[(401, {"WWW-Authenticate": f'Bearer realm="{registry.origin}/token",service="s"'})],
            only="_catalog",
        )
        assert list(list_repositories(session_for(), registry.host)) == []
        assert list(registry.tokens.values()) == ["registry:catalog:*"]


def test_search(registry: FakeRegistry, session: Session) -> None:
    registry.results = [
        {"name": "one", "description": None, "star_count": 3, "is_official": True, "is_automated": False},
        {"name": "two"},
    ]
    assert search(session, f"{registry.host}/o") == [Found("one", None, 3, True), Found("two")]
    assert registry.requests == ["GET /v1/search?q=o&n=25"]
    assert len(search(session, f"{registry.host}/o", 1)) == 1


def test_a_registry_without_search_is_asked_for_its_catalog(registry: FakeRegistry, session: Session) -> None:
    for name in ("team/app", "application", "other"):
        registry.add_image(name, "1")
    assert [one.name for one in search(session, f"{registry.host}/App")] == ["application", "team/app"]
    assert [one.name for one in search(session, f"{registry.host}/app", 1)] == ["application"]
    registry.has_catalog = False
    with pytest.raises(RegistryError, match="has no search, and no list") as caught:
        search(session, f"{registry.host}/app")
    assert "builder tags" in (caught.value.remedy or "")
    with pytest.raises(UsageError):
        search(session, f"{registry.host}/")


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("debian", ("docker.io", "debian")),
        ("library/debian", ("docker.io", "debian")),
        ("team/app", ("docker.io", "team/app")),
        ("docker.io/team/app", ("docker.io", "team/app")),
        ("quay.io/app", ("quay.io", "app")),
        ("localhost/app", ("localhost", "app")),
        ("localhost:5000/a/b", ("localhost:5000", "a/b")),
    ],
)
def test_terms(term: str, expected: tuple[str, str]) -> None:
    assert split_term(term) == expected
