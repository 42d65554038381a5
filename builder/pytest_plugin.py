"""A pytest plugin: the fixture `builder_image` builds images for tests.

    def test_version(builder_image):
        image = builder_image("path/to/context", target="test")
        assert image.run(["--version"]).stdout == "1.0\\n"

It takes what `builder.build` takes, and returns a `builder.Image`. The same build, from the same directory and with the
same environment, is done once a session, however many tests ask for it (one of a stream each time), and its steps come
from the cache in the next session. A build that fails fails the test with the message that the command line would
print. Images go to the store of the command line, or to the one that the option `--builder-root` or the setting
`builder_root` (of the ini file, relative to it) names; they get no tag unless one is given, so that `builder prune`
removes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

if TYPE_CHECKING:
    from builder.api.image import Image


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("builder", "images built for tests")
    group.addoption("--builder-root", metavar="DIR", help="the store for images that tests build")
    parser.addini("builder_root", "the store for images that tests build (default: the command line's)", type="string")


@pytest.fixture(scope="session")
def builder_image(pytestconfig: pytest.Config) -> Callable[..., Image]:
    """Build an image for a test: takes the arguments of `builder.build` and returns a `builder.Image`."""
    built: dict[str, Image] = {}
    root = _root(pytestconfig)

    def build(context: str | os.PathLike[str] | BinaryIO = ".", **options: Any) -> Image:
        __tracebackhide__ = True
        from builder.api.public import build as build_image
        from builder.errors import BuilderError, render

        if root is not None:
            options.setdefault("root", root)
        key = _key(context, options)
        if key in built:
            return built[key]
        try:
            image = build_image(context, **options).image
        except BuilderError as error:
            pytest.fail(f"the image for the test cannot be built\n{render(error)}", pytrace=False)
        if key:
            built[key] = image
        return image

    return build


def _key(context: str | os.PathLike[str] | BinaryIO, options: dict[str, Any]) -> str:
    """What tells a build from others; '' for one of a stream, which is read but once."""
    if not isinstance(context, (str, os.PathLike)):
        return ""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return repr((os.getcwd(), sorted(environment.items()), os.fspath(context), sorted(options.items())))


def _root(config: pytest.Config) -> str | None:
    given: str | None = config.getoption("builder_root")
    if given:
        return os.path.abspath(given)
    named = str(config.getini("builder_root"))
    return os.path.join(config.rootpath, named) if named else None
