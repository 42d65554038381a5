"""What stands in while libraries are loaded that some commands need, above all httpx: most of what that loads is for
what a registry never asks for, as cookies, digest authentication, encoded answers, hosts in other alphabets.

Whatever is asked for all the same is done by the real modules: they are loaded then.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

from builder.cli.lean import Later, StandIns, Types

_WARNING = 30  # the level from which on logging says something though nobody has asked for it
_COOKIES = ("set-cookie", "set-cookie2")


def stand_ins(library: str) -> StandIns:
    """The modules for a library, by their names."""
    if library == "certifi":  # httpx loads it also when it is given other authorities
        return {"importlib.resources": Later("importlib.resources", "as_file", "files")}
    if library == "concurrent.futures._base":
        return {"logging": Logging()}
    if library == "encodings.idna":  # any name of a host passes through it
        return {"stringprep": Later("stringprep")}
    if library == "httpcore":
        return {
            "anyio": Later("anyio"),
            "certifi": Later("certifi", "where"),
            "httpcore._async": Types("httpcore._async"),
            "inspect": Inspect(),  # h11 comes with it
            "logging": Logging(),
        }
    return {
        "httpx._main": None,  # its command line; httpx does without
        "httpx._multipart": Multipart(),
        "certifi": Later("certifi", "where"),
        "email.message": Later("email.message", "Message"),
        "hashlib": Later("hashlib", "md5", "sha1", "sha256", "sha512"),
        "http.cookiejar": CookieModule(),
        "idna": Later("idna"),
        "inspect": Inspect(),
        "json": Later("json", "dumps"),
        "logging": Logging(),
        "mimetypes": Later("mimetypes"),
        "urllib.request": UrllibRequest(),
        "zstandard": Later("zstandard"),
    }


class Inspect(Later):
    """`inspect`, by which httpx knows generators, and `dataclasses` describes h11's classes: it loads the compiler's
    modules."""

    def __init__(self) -> None:
        super().__init__("inspect")

    @staticmethod
    def isgenerator(value: object) -> bool:
        return isinstance(value, GeneratorType)

    def signature(self, *values: Any, **named: Any) -> Any:
        if self._is_of_h11(values, named):
            return ""  # for the description of a class that has none
        return self.__getattr__("signature")(*values, **named)

    def get_annotations(self, *values: Any, **named: Any) -> Any:
        if self._is_of_h11(values, named):  # as `dataclasses` of Python 3.12 and 3.13 asks
            return dict(values[0].__annotations__)
        return self.__getattr__("get_annotations")(*values, **named)

    def _is_of_h11(self, values: tuple[Any, ...], named: dict[str, Any]) -> bool:
        """Whether what is asked about is one of its classes, while it is loaded."""
        if not self._stands_in() or len(values) != 1 or named or not isinstance(values[0], type):
            return False
        return values[0].__module__.startswith("h11.")


class Logging(Later):
    """`logging`, for loggers that are made at once and hardly ever told anything."""

    DEBUG, INFO, WARNING = 10, 20, _WARNING

    def __init__(self) -> None:
        super().__init__("logging")

    def getLogger(self, name: str | None = None) -> Any:
        return Logger(self, name) if name else self.__getattr__("getLogger")()


class Logger:
    """A logger that is silent until somebody has loaded `logging`: nobody can have asked for what it would say."""

    def __init__(self, module: Logging, name: str) -> None:
        self._module = module
        self.name = name

    def isEnabledFor(self, level: int) -> bool:
        if level < _WARNING and isinstance(sys.modules.get("logging", self._module), Later):
            return False
        return bool(self._logger().isEnabledFor(level))

    def debug(self, *values: Any, **named: Any) -> None:
        if self.isEnabledFor(Logging.DEBUG):
            self._logger().debug(*values, **named)

    def info(self, *values: Any, **named: Any) -> None:
        if self.isEnabledFor(Logging.INFO):
            self._logger().info(*values, **named)

    def _logger(self) -> Any:
        return self._module.__getattr__("getLogger")(self.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger(), name)


class Multipart(Later):
    """`httpx._multipart`, which is for forms with files."""

    def __init__(self) -> None:
        super().__init__("httpx._multipart", "MultipartStream")

    def get_multipart_boundary_from_content_type(self, content_type: bytes | None) -> bytes | None:
        """This is asked for each request."""
        if not content_type or not content_type.startswith(b"multipart/"):
            return None
        found: bytes | None = self.__getattr__("get_multipart_boundary_from_content_type")(content_type)
        return found


class UrllibRequest(Later):
    """`urllib.request`, of which httpx takes the base of a class."""

    def __init__(self) -> None:
        super().__init__("urllib.request", "getproxies", "parse_http_list")
        self.Request = Request


class Request:
    """`urllib.request.Request`, as which httpx shows each of its requests to the cookie jar, made when it is asked."""

    def __init__(self, *values: Any, **named: Any) -> None:
        self._given = values, named
        self._made: Any = None

    def add_unredirected_header(self, key: str, value: str) -> None:
        self._real().add_unredirected_header(key, value)

    def _real(self) -> Any:
        if self._made is None:
            import urllib.request

            values, named = self._given
            self._made = urllib.request.Request(*values, **named)
        return self._made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)


class CookieModule(Later):
    """`http.cookiejar`, of which httpx makes a jar for each client that was given none, and for each redirect."""

    def __init__(self) -> None:
        super().__init__("http.cookiejar", "Cookie")
        self.CookieJar = CookieJar


class CookieJar:
    """`http.cookiejar.CookieJar`, made when the first cookie comes."""

    def __init__(self, *values: Any, **named: Any) -> None:
        self._given = values, named
        self._made: Any = None
        self._making = threading.Lock()

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Take the cookies of an answer: httpx wraps its own as `response.response`."""
        if self._made is None:
            headers = getattr(getattr(response, "response", None), "headers", None)
            if headers is not None and not any(name in headers for name in _COOKIES):
                return
        self._real().extract_cookies(response, request)

    def _real(self) -> Any:
        import http.cookiejar

        with self._making:  # the threads of a client share its cookies
            if self._made is None:
                values, named = self._given
                self._made = http.cookiejar.CookieJar(*values, **named)
        return self._made

    def __iter__(self) -> Iterator[Any]:
        return iter(() if self._made is None else self._made)

    def __len__(self) -> int:
        return 0 if self._made is None else len(self._made)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)
