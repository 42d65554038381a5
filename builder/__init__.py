"""A daemonless image builder: a Dockerfile and a context become an OCI image.

    import builder
    result = builder.build(builder.BuildOptions(context=".", tags=("app:1",)))

Names are loaded when they are first used, so that importing this costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from builder.api.build import build
    from builder.api.options import BuildOptions, BuildResult
    from builder.errors import BuilderError

__all__ = ["BuildOptions", "BuildResult", "BuilderError", "__version__", "build"]

_HOMES = {
    "build": "builder.api.build",
    "BuildOptions": "builder.api.options",
    "BuildResult": "builder.api.options",
    "BuilderError": "builder.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'builder' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
