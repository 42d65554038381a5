"""`python -m builder.sandbox --lower DIR … -- COMMAND`: run one command by hand, to look at the sandbox itself."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

from .client import Sandbox
from .command import Command, Mount, SandboxError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m builder.sandbox", description=__doc__)
    parser.add_argument("--lower", action="append", default=[], metavar="DIR", help="a layer; the topmost first")
    parser.add_argument("--upper", metavar="DIR", help="where changes are kept; otherwise they are thrown away")
    parser.add_argument("--bind", action="append", default=[], metavar="SOURCE:TARGET", help="a read-only bind mount")
    parser.add_argument("--user", default="0:0", metavar="UID:GID")
    parser.add_argument("--directory", default="/")
    parser.add_argument("--network", default="default", choices=("default", "host", "none"))
    parser.add_argument("--security", default="sandbox", choices=("sandbox", "insecure"))
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    uid, _, gid = options.user.partition(":")
    parent = os.path.dirname(os.path.abspath(options.upper)) if options.upper else None
    with tempfile.TemporaryDirectory(dir=parent) as scratch:
        for name in ("upper", "work"):
            os.mkdir(f"{scratch}/{name}")
        command = Command(
            tuple(options.command),
            lowers=tuple(options.lower),
            upper=options.upper or f"{scratch}/upper",
            work=f"{scratch}/work",
            environment=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",),
            mounts=tuple(Mount(target, source=source) for source, target in (b.split(":") for b in options.bind)),
            directory=options.directory,
            uid=int(uid),
            gid=int(gid or 0),
            network=options.network,
            security=options.security,
        )
        try:
            with Sandbox() as sandbox:
                result = sandbox.run(command, lambda stream, data: _show(stream, data))
        except SandboxError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    if result.error:
        print(f"error: {result.error}", file=sys.stderr)
        return 1
    print(repr(result), file=sys.stderr)
    return result.exit_status if result.exit_status is not None else 128 + result.signal


def _show(stream: int, data: bytes) -> None:
    os.write(stream, data)


if __name__ == "__main__":
    sys.exit(main())
