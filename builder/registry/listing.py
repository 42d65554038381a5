"""What a registry holds: the tags of a repository, its repositories, and what a search finds.

Lists come page by page, each naming the next in a `Link` header (distribution-spec, "Listing Tags"; `_catalog` is the
distribution project's, which not every registry offers). Search is Docker's version 1 API, `GET /v1/search`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from builder.errors import NotFoundError, RegistryError, UsageError
from builder.oci.reference import Reference
from builder.oci.spec import NOT_JSON
from builder.registry.auth import repository_scope
from builder.registry.endpoints import DOCKER_HUB, Endpoint
from builder.registry.failures import refused
from builder.registry.replies import Reply
from builder.registry.transport import Session
from builder.registry.urls import join, split

MOST = 1_000_000  # names of one list: more are taken for a registry that never ends
_MOST_PAGES = 10_000  # of one list: some may hold no names
_PAGE = 1000  # names asked for at once; registries give fewer when they want
_HUB_SEARCH = Endpoint("https", "index.docker.io", DOCKER_HUB)
_LINK = re.compile(r'<([^>]*)>\s*((?:;\s*[^;,"]+(?:"[^"]*")?\s*)*)')
_CATALOG_SCOPE = "registry:catalog:*"


class Found(msgspec.Struct, frozen=True):
    """One result of a search."""

    name: str = ""
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Tags(msgspec.Struct, frozen=True):
    tags: list[str] | None = None


class _Repositories(msgspec.Struct, frozen=True):
    repositories: list[str] | None = None


class _Results(msgspec.Struct, frozen=True):
    results: list[Found] | None = None


def list_tags(session: Session, reference: Reference) -> list[str]:
    """The tags of a repository, as the registry itself lists them, sorted. Raises NotFoundError, RegistryError."""
    endpoint = session.endpoints(reference.domain, push=True)[0]
    scope = repository_scope(endpoint.repository(reference.path), "pull")
    url = endpoint.url(reference.path, f"tags/list?n={_PAGE}")
    tags: list[str] = []
    for reply in _pages(session, endpoint, url, scope, reference.familiar_name):
        tags += _decode(reply, _Tags, endpoint).tags or ()
        _bound(len(tags), endpoint)
    return sorted(tags)  # not every registry sorts them, as it should


def list_repositories(session: Session, domain: str) -> Iterator[str]:
    """The repositories of a registry, as the pages come. Raises RegistryError."""
    endpoint = session.endpoints(domain, push=True)[0]
    listed = 0
    try:
        for reply in _pages(
            session, endpoint, f"{endpoint.origin}/v2/_catalog?n={_PAGE}", _CATALOG_SCOPE, f"the catalog of {domain}"
        ):
            page = _decode(reply, _Repositories, endpoint).repositories or []
            listed += len(page)
            _bound(listed, endpoint)
            yield from page
    except NotFoundError as error:
        raise RegistryError(
            f"{domain} does not list its repositories", remedy="look in the registry's web pages", details=error.details
        ) from error


def search(session: Session, term: str, limit: int = 25) -> list[Found]:
    """What a registry finds for `[HOST[:PORT]/]TERM`; without a host Docker Hub is asked.

    A registry without a search is asked for its list of repositories, of which those with the term in them count.
    Raises RegistryError, also where a registry has neither; UsageError for a term that is none.
    """
    domain, words = split_term(term)
    if not words:
        raise UsageError(f"there is nothing to search for in {term!r}", remedy="write [HOST[:PORT]/]TERM")
    endpoint = _HUB_SEARCH if domain == DOCKER_HUB else session.endpoints(domain, push=True)[0]
    url = f"{endpoint.origin}/v1/search?{urlencode({'q': words, 'n': limit})}"
    reply = session.request(endpoint, "GET", url, scopes=(), headers={"Accept": "application/json"})
    if reply.status == 200 and (results := _results(reply)) is not None:
        return results[:limit]
    if reply.status in (200, 404, 405) and domain != DOCKER_HUB:
        return _search_catalog(session, domain, words, limit)
    raise refused(reply.status, reply.body, f"the search of {domain}", endpoint.host, session.credentials.path)


def split_term(term: str) -> tuple[str, str]:
    """A search term's registry and the rest, by the rule for references: `quay.io/app` → `quay.io`, `app`."""
    head, slash, rest = term.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        domain = DOCKER_HUB if head in ("index.docker.io", "registry-1.docker.io") else head
        return domain, rest
    return DOCKER_HUB, term.removeprefix("library/")


def next_page(link: str | None, origin: str, url: str) -> str | None:
    """The next page's URL out of a `Link` header (RFC 8288), on the same server, or None."""
    for match in _LINK.finditer(link or ""):
        relations = re.search(r'(?i);\s*rel\s*=\s*"?([^";]*)', match[2])
        if relations is None or "next" not in relations[1].lower().split():
            continue
        parts = split(join(url, match[1]))
        # Behind a proxy registries may write an inner address or the wrong scheme: only path and query count.
        return f"{origin}{parts.path}{'?' + parts.query if parts.query else ''}"
    return None


def _search_catalog(session: Session, domain: str, words: str, limit: int) -> list[Found]:
    found = []
    try:
        for name in list_repositories(session, domain):
            if words.lower() in name.lower():
                found.append(Found(name))
                if len(found) == limit:
                    break
    except RegistryError as error:
        raise RegistryError(
            f"{domain} has no search, and no list of its repositories",
            remedy="look in the registry's web pages, or name a repository: builder tags REPOSITORY",
            details=(*error.details, str(error.cause)),
        ) from error
    return found


def _results(reply: Reply) -> list[Found] | None:
    """None for an answer that is none, as of a registry that answers everything with its web page."""
    try:
        return msgspec.json.decode(reply.body, type=_Results, strict=False).results
    except NOT_JSON:
        return None


def _pages(session: Session, endpoint: Endpoint, url: str, scope: str, subject: str) -> Iterator[Reply]:
    seen: set[int] = set()  # not the addresses, which may be long
    following: str | None = url
    while following is not None and hash(following) not in seen:
        if len(seen) == _MOST_PAGES:
            raise RegistryError(f"{endpoint} lists more than {_MOST_PAGES} pages")
        seen.add(hash(following))
        reply = session.request(endpoint, "GET", following, scopes=(scope,))
        if reply.status != 200:
            raise refused(reply.status, reply.body, subject, endpoint.host, session.credentials.path)
        yield reply
        following = next_page(reply.headers.get("link"), endpoint.origin, following)


def _bound(listed: int, endpoint: Endpoint) -> None:
    if listed > MOST:
        raise RegistryError(f"{endpoint} lists more than {MOST} names")


_T = TypeVar("_T")


def _decode(reply: Reply, kind: type[_T], endpoint: Endpoint) -> _T:
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except NOT_JSON as error:
        raise RegistryError(f"{endpoint} answered with no valid list: {error}") from error
