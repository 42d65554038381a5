"""A daemonless image builder: a Dockerfile and a context become an OCI image.

    import builder

    result = builder.build("path", tags=["app:1"], build_args={"VERSION": "2"}, on_event=print)
    print(result.digest, [step.name for step in result.steps if step.outcome == "ran"])
    print(result.image.run(["--version"]).stdout)
    for image in builder.images():
        print(image.tags, image.size)

`build` takes what `builder build` has as options; `Store` and `images` give what is there. Sizes are bytes, durations
seconds, points in time seconds since the epoch or aware datetimes. Whatever fails raises a `BuilderError`, with
`cause`, `place`, `remedy` and `details`, of which `render` makes the message that the command line prints.

Names are loaded when they are first used, so that importing this costs next to nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from builder.api.image import HistoryLine, Image, Layer, Store, images
    from builder.api.options import BuildOptions, BuildResult
    from builder.api.public import build
    from builder.errors import (
        BudgetExceeded,
        BuilderError,
        ContextError,
        DockerfileError,
        Interrupted,
        InvalidReference,
        LayerError,
        NotFoundError,
        OfflineError,
        PlanError,
        RegistryError,
        StepFailed,
        StoreError,
        Unsupported,
        UsageError,
        render,
    )
    from builder.progress import (
        Event,
        Message,
        Reason,
        StepDone,
        StepMissed,
        StepOutput,
        StepStarted,
        Transfer,
        Warned,
    )
    from builder.store.builds import Build, BuiltStep

__all__ = [
    "BudgetExceeded",
    "Build",
    "BuildOptions",
    "BuildResult",
    "BuilderError",
    "BuiltStep",
    "ContextError",
    "DockerfileError",
    "Event",
    "HistoryLine",
    "Image",
    "Interrupted",
    "InvalidReference",
    "Layer",
    "LayerError",
    "Message",
    "NotFoundError",
    "OfflineError",
    "PlanError",
    "Reason",
    "RegistryError",
    "StepDone",
    "StepFailed",
    "StepMissed",
    "StepOutput",
    "StepStarted",
    "Store",
    "StoreError",
    "Transfer",
    "Unsupported",
    "UsageError",
    "Warned",
    "__version__",
    "build",
    "images",
    "render",
]

_HOMES = {
    "builder.api.image": ("HistoryLine", "Image", "Layer", "Store", "images"),
    "builder.api.options": ("BuildOptions", "BuildResult"),
    "builder.api.public": ("build",),
    "builder.progress": (
        "Event", "Message", "Reason", "StepDone", "StepMissed", "StepOutput", "StepStarted", "Transfer", "Warned",
    ),
    "builder.store.builds": ("Build", "BuiltStep"),
}  # fmt: skip
"""Where the names are; those that are nowhere here are errors."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'builder' has no attribute {name!r}")
    from importlib import import_module

    home = next((home for home, names in _HOMES.items() if name in names), "builder.errors")
    found: object = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
