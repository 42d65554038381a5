"""Files and contexts fetched over HTTP.

As in BuildKit (`source/http`): the file's time is the answer's Last-Modified, its name comes from Content-Disposition
or the URL's path, and an answer that the server calls unchanged (304) is not sent again. What a server says is not
trusted: a name is reduced to one plain component.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import unicodedata
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

import msgspec

from builder import proxies
from builder.authorities import system_context
from builder.context.bodies import TooSlow, Undecodable, decoded, paced
from builder.errors import ContextError, ProxyError
from builder.progress import Check, unchecked

if TYPE_CHECKING:
    import httpx

_REDIRECTS = 10
_TIMEOUT = 60.0
_LATEST = 253_402_300_799
"""The last second of the year 9999, of which a header can tell."""


class Fetched(msgspec.Struct, frozen=True):
    """The answer to a request. `unchanged` when the caller's validators still hold: then nothing was written, and
    `digest` and `size` are those of no data. `last_modified` is in seconds since the epoch; `digest` is `sha256:…` of
    the content."""

    unchanged: bool
    filename: str
    last_modified: int | None
    etag: str | None
    digest: str
    size: int


def fetch(
    url: str,
    into: BinaryIO,
    *,
    etag: str | None = None,
    last_modified: int | None = None,
    authorization: str | None = None,
    check: Check = unchecked,
    environ: Mapping[str, str] | None = None,
) -> Fetched:
    """Write what `url` (http or https) names to `into`.

    `etag` and `last_modified` (seconds) of an earlier answer make the request conditional. `authorization` is the value
    of a header of that name, which counts more than credentials in the URL; no other host that the server redirects to
    gets it. `check` is called with each piece that arrives. `environ`, by default the process's, names proxies and
    authorities. Raises ContextError, with the URL without credentials as its place.
    """
    import httpx

    place = redacted(url)
    environ = os.environ if environ is None else environ
    request_headers = {"Accept-Encoding": "identity", "User-Agent": "builder"}
    if authorization is not None:
        request_headers["Authorization"] = authorization
        url = _without_user(url)
    if etag is not None:
        request_headers["If-None-Match"] = etag
    if last_modified is not None and not 0 <= last_modified <= _LATEST:
        last_modified = None  # what an earlier version kept
    if last_modified is not None:
        from email.utils import formatdate

        request_headers["If-Modified-Since"] = formatdate(last_modified, usegmt=True)
    conditional = etag is not None or last_modified is not None
    try:
        with (
            httpx.Client(
                transport=proxies.transport(proxies.of_environment(environ), verify=system_context(environ)),
                trust_env=False,
                timeout=_TIMEOUT,
            ) as client,
            closing(_answer(client, client.build_request("GET", url, headers=request_headers))) as response,
        ):
            name = filename(url, response.headers.get("Content-Disposition"))
            modified = _seconds(response.headers.get("Last-Modified"))
            digest, size = hashlib.sha256(), 0
            if response.status_code == 304 and conditional:
                known = modified if modified is not None else last_modified
                answered = response.headers.get("ETag") or etag
                return Fetched(True, name, known, answered, f"sha256:{digest.hexdigest()}", 0)
            if not 200 <= response.status_code < 300:
                raise ContextError(
                    f"the server answers {response.status_code} {response.reason_phrase}".rstrip(), place=place
                )
            for data in decoded(paced(response.iter_raw(), _TIMEOUT), response.headers.get("Content-Encoding", "")):
                check()
                digest.update(data)
                size += len(data)
                _write(into, data, place)
            return Fetched(False, name, modified, response.headers.get("ETag"), f"sha256:{digest.hexdigest()}", size)
    except ProxyError as problem:
        raise ContextError(problem.cause, place=place, remedy=problem.remedy) from problem
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError, Undecodable, TooSlow) as problem:
        reason = str(problem) or type(problem).__name__
        raise ContextError(f"cannot be fetched: {reason}", place=place, remedy=_remedy(problem)) from problem


def _answer(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """The answer in the end, unread. httpx would read what comes with a redirect, however large."""
    import httpx

    for _ in range(_REDIRECTS + 1):
        response = client.send(request, stream=True)
        if response.next_request is None:
            return response
        response.close()
        request = response.next_request
    raise httpx.TooManyRedirects(f"the server redirects more than {_REDIRECTS} times")


def filename(url: str, content_disposition: str | None = None) -> str:
    """The name of a fetched file: Content-Disposition's, else the last component of the URL's path, else `download`."""
    if content_disposition:
        from email.message import Message

        message = Message()
        message["Content-Disposition"] = content_disposition.encode("latin-1", "replace").decode("utf-8", "replace")
        given = message.get_filename()
        if given and not given.endswith("/"):
            return _safe(given)
    try:
        return _safe(unquote(urlsplit(url).path))
    except ValueError:
        return _safe("")


def add_filename(url: str) -> str:
    """The name under which `ADD` puts a URL into a directory: from the URL alone, as BuildKit's frontend does it."""
    try:
        base = posixpath.basename(unquote(urlsplit(url).path).rstrip("/"))
    except ValueError:
        base = ""
    return base if base not in ("", ".") else "__unnamed__"


def redacted(url: str) -> str:
    """The URL without a password or user, for messages. One whose port is no number may hold a password that is not
    quoted, and loses all before its last `@`."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # a malformed one raises
    except ValueError:
        scheme, separator, rest = url.partition("://")
        return f"{scheme}{separator}xxxxx@{rest.rpartition('@')[2]}" if "@" in rest else url
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc="xxxxx@" + parts.netloc.rpartition("@")[2]).geturl()


def _without_user(url: str) -> str:
    """The URL without a password or user, which httpx would prefer to a header."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _safe(name: str) -> str:
    base = posixpath.basename(name.strip().rstrip("/"))
    if base in ("", ".", "..") or any(unicodedata.category(character) == "Cc" for character in base):
        return "download"
    return base


def _seconds(date: str | None) -> int | None:
    """A header's time. None of one that cannot be sent back: an offset leads beyond the year 9999."""
    if not date:
        return None
    from email.utils import parsedate_to_datetime

    try:
        seconds = int(parsedate_to_datetime(date).timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= _LATEST else None


def _write(into: BinaryIO, data: bytes, place: str) -> None:
    try:
        into.write(data)
    except OSError as problem:
        raise ContextError(f"cannot be stored: {(problem.strerror or str(problem)).lower()}", place=place) from problem


def _remedy(problem: Exception) -> str | None:
    import httpx

    if isinstance(problem, httpx.ConnectError):
        return "check the host's name, the network and the proxy settings"
    if isinstance(problem, httpx.TimeoutException):
        return f"the server did not answer within {_TIMEOUT:.0f} s; try again"
    return None
