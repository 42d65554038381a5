"""The command line: one command a file, loaded when it is called.

Only here is the environment read, output printed and the process ended.
"""

import gc
import sys

from builder.cli.lean import Inspect, Platform, standing_in

# Before the commands are imported: by default the collector runs dozens of times while modules load (20 ms of 160).
gc.set_threshold(50_000, 20, 20)

# msgspec looks for typing_extensions and does without it; it takes as long to load as msgspec itself (6 ms of 130).
if "typing_extensions" not in sys.modules:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # makes importing it fail
    try:
        with standing_in(Platform()):
            import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]

with standing_in(Inspect()):
    import click  # noqa: F401
