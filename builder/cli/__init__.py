"""The command line: one command a file, loaded when it is called.

Only here is the environment read, output printed and the process ended.
"""

import gc

# Before anything is imported: by default the collector runs dozens of times while modules load (20 ms of 160).
gc.set_threshold(50_000, 20, 20)

from builder.cli.lean import Gettext, Inspect, Later, StandIns, Types, load, load_later  # noqa: E402

load(
    "msgspec",
    {
        "typing_extensions": None,  # which msgspec looks for and does without; it takes as long to load as msgspec
        "decimal": Types("decimal"),
        "uuid": Types("uuid"),
        "msgspec.inspect": Later("msgspec.inspect"),
        "msgspec._json_schema": Later("msgspec._json_schema", "schema", "schema_components"),
    },
)
load("click", {"inspect": Inspect(), "gettext": Gettext(), "uuid": Types("uuid")})


def _stand_ins(library: str) -> StandIns:
    if library == "lark":
        from builder.cli.lean_lark import stand_ins as for_lark

        return for_lark()
    from builder.cli.lean_libraries import stand_ins

    return stand_ins(library)


load_later(("certifi", "concurrent.futures._base", "encodings.idna", "httpcore", "httpx", "lark"), _stand_ins)
