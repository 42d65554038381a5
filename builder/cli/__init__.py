"""The command line: one command a file, loaded when it is called.

Only here is the environment read, output printed and the process ended.
"""

import gc

# Before anything is imported: by default the collector runs dozens of times while modules load (20 ms of 160).
gc.set_threshold(50_000, 20, 20)

from builder.cli import lean_standard  # noqa: E402

lean_standard.install()

from builder.cli import lean  # noqa: E402

# All that some libraries ask of it is defined there; what surrounds it is for others.
_DATETIME = {"datetime": __import__("_datetime")}

lean.load(
    "msgspec",
    {
        **_DATETIME,
        "typing_extensions": None,  # which msgspec looks for and does without; it takes as long to load as msgspec
        "enum": lean.Types("enum"),  # there are no enumerations here, and it takes 1.3 ms
        "decimal": lean.Types("decimal"),
        "uuid": lean.Types("uuid"),
        "msgspec.inspect": lean.Later("msgspec.inspect"),
        "msgspec.toml": lean.Later("msgspec.toml", "decode", "encode"),
        "msgspec.yaml": lean.Later("msgspec.yaml", "decode", "encode"),
        "msgspec._json_schema": lean.Later("msgspec._json_schema", "schema", "schema_components"),
    },
)


def _stand_ins(library: str) -> lean.StandIns:
    if library == "click":
        return {**_DATETIME, "inspect": lean.Inspect(), "gettext": lean.Gettext(), "uuid": lean.Types("uuid")}
    if library == "lark":
        from builder.cli.lean_lark import stand_ins as for_lark

        return for_lark()
    if library == "sqlite3":
        return _DATETIME
    from builder.cli.lean_libraries import stand_ins

    return stand_ins(library)


lean.load_later(
    ("certifi", "click", "concurrent.futures._base", "encodings.idna", "httpcore", "httpx", "lark", "sqlite3"),
    _stand_ins,
)
