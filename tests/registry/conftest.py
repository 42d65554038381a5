from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from builder.config import Config, RegistryConfig
from builder.registry.clients import Patience
from builder.registry.transport import Session

QUICK = Patience(connect=2.0, read=2.0, attempts=4, first_delay=0.01, longest_delay=0.05, budget=8.0)

MakeSession = Callable[..., Session]


@pytest.fixture
def session_for(tmp_path: Path) -> Iterator[MakeSession]:
    """Makes sessions: keywords are tables of the configuration by host, `patience`, more of `environ`."""
    with ExitStack() as stack:

        def make(
            registries: dict[str, RegistryConfig] | None = None, *, patience: Patience = QUICK, **keywords: Any
        ) -> Session:
            config = Config(registries or {}, keywords.pop("certificate_directories", ()))
            environ = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin", **keywords.pop("environ", {})}
            return stack.enter_context(Session(config, environ, patience=patience, **keywords))

        yield make


@pytest.fixture
def session(session_for: MakeSession) -> Session:
    return session_for()
