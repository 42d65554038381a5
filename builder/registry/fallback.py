"""Asking one server after the other, and one error that tells of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from builder.errors import NotFoundError, RegistryError
from builder.registry.endpoints import Endpoint

_T = TypeVar("_T")
_S = TypeVar("_S", Endpoint, Endpoint | str)


class Unusable(RegistryError):
    """A failure after which no other server can be tried: bytes that cannot be taken back were passed on."""


def first_that_serves(sources: Sequence[_S], ask: Callable[[_S], _T]) -> _T:
    """The result of `ask` for the first source (an endpoint or a URL) for which it does not raise RegistryError.

    When all fail, the error is that of the registry itself, which knows best, with what the others said in its details.
    """
    failures: list[tuple[_S, RegistryError]] = []
    for source in sources:
        try:
            return ask(source)
        except Unusable:
            raise
        except RegistryError as error:
            failures.append((source, error))
    for source, failure in failures:
        if isinstance(source, Endpoint) and not source.is_mirror:
            others = [(name, said) for name, said in failures if said is not failure]
            failure.details += tuple(f"also tried {name}: {_short(said)}" for name, said in others)
            raise failure
    raise RegistryError("there is no registry to ask")


def _short(error: RegistryError) -> str:
    return "not found" if isinstance(error, NotFoundError) else str(error)
