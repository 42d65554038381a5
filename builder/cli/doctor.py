"""`builder doctor`: what this machine allows."""

from __future__ import annotations

import os

import click

from builder.cli.flags import Command
from builder.cli.settings import Settings
from builder.errors import EXIT_FAILED


@click.command("doctor", cls=Command, epilog="Example: builder doctor")
@click.option("--format", "form", default="text", type=click.Choice(["text", "json"]), help="How it is shown.")
@click.pass_obj
def command(settings: Settings, form: str) -> int:
    """Say what this machine allows, what is missing, and the one line that mends it.

    Namespaces and an overlay are tried out in the store's directory; nothing of that stays.

    Exit status: 1 if RUN steps cannot work here at all, 0 otherwise.
    """
    from builder.api.doctor import Rootless, examine
    from builder.cli.rootless import become_root, subordinate_ids

    diagnosis = examine(settings.root, os.environ, Rootless(become_root, subordinate_ids))
    if form == "json":
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(diagnosis)).decode())
    else:
        width = max(len(finding.name) for finding in diagnosis.findings)
        for finding in diagnosis.findings:
            print(f"{finding.state:<8} {finding.name:<{width}}  {finding.detail}")
            if finding.remedy:
                print(f"{'':<8} {'':<{width}}  help: {finding.remedy}")
    return 0 if diagnosis.isolation else EXIT_FAILED
