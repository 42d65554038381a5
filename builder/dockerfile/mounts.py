"""The values of `RUN --mount=` (BuildKit's instructions/commands_runmount.go)."""

from collections.abc import Iterable

import msgspec

from builder.dockerfile.text import did_you_mean, quote
from builder.dockerfile.values import csv_fields, parse_boolean, parse_size, parse_unsigned
from builder.dockerfile.words import Field, Part, Text, Word, parse_word
from builder.errors import DockerfileError

TYPES = ("bind", "cache", "secret", "ssh", "tmpfs")
SHARING = ("locked", "private", "shared")
KEYS = (
    "type", "from", "source", "src", "target", "dst", "destination", "readonly", "ro", "readwrite", "rw", "required",
    "size", "id", "sharing", "mode", "uid", "gid", "env",
)  # fmt: skip
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}


class Mount(msgspec.Struct, frozen=True):
    """A mount as written: '' and None where nothing was given (`size` in bytes, `mode` as a number).

    `sharing` is `shared` by default, `id` the target by default; `read_only` has its default filled in: true for bind,
    secret and ssh, false for cache and tmpfs. `env` is the name of a variable for a secret.
    """

    type: str = "bind"
    from_: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = True
    size: int | None = None
    id: str = ""
    sharing: str = ""
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def mount_word(text: str, escape: str = "\\") -> Word:
    """The value of --mount as a word: the fields stay fields, each value is expanded by itself.

    What `expand` makes of it can be given to `parse_mount` even when a variable holds a comma. Raises DockerfileError
    (without a place) for what BuildKit refuses before it knows any variable: malformed fields, a variable in `from`.
    """
    parts: list[Part] = []
    for field in _fields(text):
        key, equals, value = field.partition("=")
        if key.lower() == "from" and "$" in value and value.index("$") != len(value) - 1:
            raise DockerfileError(
                "'from' doesn't support variable expansion",
                remedy="define a stage with FROM and a global ARG, and name that stage",
            )
        word = parse_word(value, escape)
        if parts:
            parts.append(Text(","))
        parts.append(Field(key + equals, (Text(value),) if word.parts is None else word.parts))
    return Word(text, tuple(parts))


def mount_source(text: str) -> str:
    """What `from=` names in the unexpanded value of --mount, '' without it. The value was checked by `mount_word`."""
    found = ""
    for field in _fields(text):
        key, _, value = field.partition("=")
        if key.lower() == "from":
            found = value
    return found


def parse_mount(text: str) -> Mount:
    """Read the expanded value of --mount. Raises DockerfileError (without a place)."""
    given: dict[str, str] = {}
    kind, read_only, required = "bind", None, False
    for field in _fields(text):
        written, equals, value = field.partition("=")
        key = _key(written, field, bool(equals))
        match key:
            case "type":
                kind = _choice("mount type", value, TYPES)
            case "readonly":
                read_only = _boolean(key, value) if equals else True
            case "readwrite":
                read_only = not _boolean(key, value) if equals else False
            case "required":
                _only_for(key, kind, ("secret", "ssh"))
                required = _boolean(key, value) if equals else True
            case "size":
                _only_for(key, kind, ("tmpfs",))
                _number(key, value)
            case "sharing":
                value = _choice("sharing value", value, SHARING)
            case "mode" | "uid" | "gid":
                _number(key, value)
        given[key] = value
    mount = Mount(
        type=kind,
        from_=given.get("from", ""),
        source=given.get("source", ""),
        target=given.get("target", ""),
        read_only=kind not in ("cache", "tmpfs") if read_only is None else read_only,
        size=_number("size", given.get("size")),
        id=given.get("id", ""),
        sharing=given.get("sharing", ""),
        required=required,
        env=given.get("env"),
        mode=_number("mode", given.get("mode")),
        uid=_number("uid", given.get("uid")),
        gid=_number("gid", given.get("gid")),
    )
    _check(mount)
    return mount


def check_device(text: str) -> None:
    """Read the value of `RUN --device=` as BuildKit does while parsing. Raises DockerfileError (without a place)."""
    name = ""
    for field in _fields(text, "device"):
        key, equals, value = field.partition("=")
        key = key.lower()
        if key == "required":
            if equals:
                _boolean(key, value)
        elif key == "name" and equals:
            if name:
                raise DockerfileError(f"the device is already named {quote(name)}", remedy="give one name")
            name = value
        elif not name:
            name = field
        elif equals:
            raise DockerfileError(f"unexpected key {quote(key)} in {quote(field)}", remedy="expected name or required")
        else:
            raise DockerfileError(f"{quote(field)} must be a key=value pair", remedy="expected name= or required=")


def _fields(text: str, flag: str = "mount") -> list[str]:
    try:
        return csv_fields(text)
    except ValueError as error:
        raise DockerfileError(
            f"--{flag}={text} cannot be read: {error}", remedy="expected key=value pairs separated by commas"
        ) from None


def _key(written: str, field: str, equals: bool) -> str:
    """The key's one name. Only some keys may stand without a value."""
    key = written.lower()
    if not equals and key not in ("readonly", "ro", "readwrite", "rw", "required"):
        raise DockerfileError(
            f"invalid field {quote(field)} must be a key=value pair",
            remedy=f"the keys of a mount are {', '.join(KEYS)}",
        )
    if key not in KEYS:
        raise DockerfileError(
            f"unexpected key {quote(key)} in {quote(field)}{did_you_mean(key, KEYS)}",
            remedy=f"the keys of a mount are {', '.join(KEYS)}",
        )
    return _ALIASES.get(key, key)


def _choice(what: str, value: str, options: Iterable[str]) -> str:
    if value.lower() not in options:
        raise DockerfileError(
            f"unsupported {what} {quote(value)}{did_you_mean(value, options)}",
            remedy=f"expected one of {', '.join(options)}",
        )
    return value.lower()


def _boolean(key: str, value: str) -> bool:
    try:
        return parse_boolean(value)
    except ValueError as error:
        raise DockerfileError(f"invalid value for {key}: {error}", remedy=f"expected {key}=true|false") from None


def _number(key: str, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return parse_size(value) if key == "size" else parse_unsigned(value, 8 if key == "mode" else 10)
    except ValueError as error:
        expected = {"size": "size=64m", "mode": "octal digits, as in mode=0755"}.get(key, f"{key}=NUMBER")
        raise DockerfileError(f"invalid value for {key}: {error}", remedy=f"expected {expected}") from None


def _only_for(key: str, kind: str, kinds: tuple[str, ...]) -> None:
    if kind not in kinds:
        raise DockerfileError(
            f"unexpected key {quote(key)} for mount type {quote(kind)}",
            remedy=f"{key} is for {' and '.join(kinds)} mounts, and stands behind type=",
        )


def _check(mount: Mount) -> None:
    """What does not fit together."""
    if mount.type in ("bind", "tmpfs"):
        for key, value in (("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)):
            if value is not None:
                raise DockerfileError(
                    f"{key} not allowed for {quote(mount.type)} type mounts",
                    remedy=f"{key} is for secret, ssh and cache mounts",
                )
    if mount.type == "secret":
        if mount.from_:
            raise DockerfileError("secret mount should not have a from", remedy="remove from=")
        if mount.sharing:
            raise DockerfileError("secret mount should not define sharing", remedy="remove sharing=")
        if not (mount.source or mount.target or mount.id):
            raise DockerfileError(
                "invalid secret mount: no secret is named", remedy="write --mount=type=secret,id=NAME"
            )
        if mount.source and mount.id:
            raise DockerfileError("both source and id can't be set", remedy="write id= only")
    if mount.sharing and mount.type != "cache":
        raise DockerfileError(
            f"invalid cache sharing set for {mount.type} mount", remedy="sharing= is for cache mounts"
        )
