"""`builder build`: its command line. What it does is in `building`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from builder.cli.building import run_build
from builder.cli.defaults import platform_option, progress_option
from builder.cli.flags import Command
from builder.cli.given import keep
from builder.cli.settings import Settings
from builder.errors import UsageError


class BuildCommand(Command):
    """`--squash` takes a value only after `=`: what follows a bare one is the context, as in Docker."""

    def make_parser(self, ctx: click.Context) -> Any:
        """Short options are found at once: click would first look for long ones that resemble them, for 4 ms."""
        parser = super().make_parser(ctx)
        parser._long_opt.update(parser._short_opt)
        return parser

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(
            ctx, ["--squash=all" if word == "--squash" else word for word in args[:end]] + args[end:]
        )
        if not ctx.resilient_parsing:
            _reconcile(ctx)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from builder.cli.help import write_sections

        write_sections(self, ctx, formatter)


def _reconcile(ctx: click.Context) -> None:
    """Let `--progress=quiet` be `-q`, which goes with no other view, as in buildx; with `none` not even the ID is
    printed. What the variable says gives way to `-q`. Raises UsageError."""
    given = ctx.params
    stated = ctx.get_parameter_source("progress") == ParameterSource.COMMANDLINE
    if given["quiet"] and stated and given["progress"] not in ("auto", "none", "quiet"):
        raise UsageError(f"--progress={given['progress']} and --quiet exclude each other", remedy="leave one out")
    if given["progress"] == "quiet":
        given["quiet"] = stated or given["quiet"]
        given["progress"] = "none"


@click.command("build", cls=BuildCommand, epilog="Example: builder build -t app:1 --build-arg VERSION=2 .")
@click.argument("context", metavar="PATH|URL|-")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME[:TAG]", help="Name of the image (repeatable).")
@click.option("-f", "--file", "dockerfile", default="", metavar="PATH|URL", help="The Dockerfile; - is standard input.")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="Set a build argument.")
@click.option(
    "--build-context",
    "contexts",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another context: a path, URL, image or target:STAGE.",
)
@click.option("--target", default="", metavar="STAGE", help="The stage to build (default: the last).")
@platform_option("platforms", multiple=True, help="Target platforms, with commas, or local.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Add a label to the image.")
@click.option(
    "--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Add an annotation to the manifest."
)
@click.option("--no-cache", is_flag=True, help="Run every step anew.")
@click.option("--no-cache-filter", multiple=True, metavar="STAGE", help="Run the steps of these stages anew.")
@click.option("--policy", multiple=True, metavar="disabled=true", help="Build without the Dockerfile's policy in Rego.")
@click.option("--pull", is_flag=True, help="Ask the registry for newer base images.")
@click.option("--offline", is_flag=True, help="Fetch nothing; RUN steps have no network unless --network is given.")
@click.option(
    "--squash",
    is_flag=False,
    flag_value="all",
    default="",
    metavar="[=all|new]",
    help="One layer: of all, or of the new ones.",
)
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="type=TYPE,…",
    help="Where the result goes: oci, docker, local, tar, image.",
)
@click.option("--push", is_flag=True, help="Push the image under its tags, too.")
@click.option("--load", is_flag=True, help="Put the image into the local store (the default).")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="id=ID[,src=PATH|,env=NAME]",
    help="A secret for RUN --mount=type=secret.",
)
@click.option(
    "--ssh",
    "agents",
    multiple=True,
    metavar="default|ID=SOCKET|ID=KEY,…",
    help="An SSH agent, or keys, for RUN --mount=type=ssh; default is for git, too.",
)
@click.option(
    "--add-host",
    "hosts",
    multiple=True,
    metavar="HOST:IP",
    help="Add a line to /etc/hosts of RUN steps; host-gateway as IP: this machine.",
)
@click.option("--network", type=click.Choice(["default", "none", "host"]), default=None, help="Network of RUN steps.")
@click.option(
    "--allow",
    multiple=True,
    metavar="ENTITLEMENT",
    help="Allow network.host, security.insecure or buildx.local.delete.",
)
@click.option("--shm-size", default="", metavar="BYTES", help="Size of /dev/shm, for example 64m.")
@click.option("--ulimit", "ulimits", multiple=True, metavar="NAME=SOFT[:HARD]", help="A limit for RUN steps.")
@click.option("-m", "--memory", default="", metavar="BYTES", help="Memory of each RUN step, for example 2g.")
@click.option("--cpus", type=float, default=0.0, metavar="NUMBER", help="Processors of each RUN step.")
@click.option(
    "--jobs",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Steps at once (default: two a processor, at least 4).",
)
@click.option("--max-size", default="", metavar="SIZE", help="Fail if the image is larger, for example 300MB.")
@click.option("--max-layer", default="", metavar="SIZE", help="Fail if a layer is larger.")
@click.option(
    "--max-waste", default="", metavar="SHARE", help="Fail if more is stored that no one can see, for example 5%."
)
@click.option(
    "--provenance", default="", metavar="true|mode=min|…", help="Say beside the image how it was made (SLSA)."
)
@click.option("--sbom", default="", metavar="true", help="Say beside the image which packages are in it (SPDX).")
@click.option("--attest", multiple=True, metavar="type=TYPE,…", help="The same two as type=provenance,… and type=sbom.")
@click.option(
    "--isolation",
    default="default",
    metavar="default|chroot",
    help="How steps are isolated; default: as well as can be.",
)
@click.option(
    "--cache-from",
    multiple=True,
    metavar="NAME|type=TYPE,…",
    help="Look steps up in another cache, too: registry,ref=NAME or local,src=DIR.",
)
@click.option(
    "--cache-to",
    multiple=True,
    metavar="type=TYPE,…",
    help="Write a cache for others: registry,ref=NAME, local,dest=DIR or inline; mode=max for all stages.",
)
@click.option("--rm/--no-rm", default=True, hidden=True)  # there are no intermediate containers to keep
@click.option("--force-rm", is_flag=True, hidden=True)
@click.option("--iidfile", default="", metavar="FILE", help="Write the image ID to a file.")
@click.option("--metadata-file", default="", metavar="FILE", help="Write the result's metadata to a file, as JSON.")
@click.option(
    "--report", default="", metavar="FILE.html", help="Write a page about the build: what ran, why, how long."
)
@click.option(
    "--trace", default="", metavar="FILE.json", help="Write the build's times for Perfetto or chrome://tracing."
)
@progress_option(help="How the build is shown.")
@click.option(
    "--call", default="build", metavar="METHOD", help="Ask instead of build: check, outline, targets[,format=json]."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as builder plan does.")
@click.option(
    "--on-error",
    type=click.Choice(["fail", "shell", "keep"]),
    default="fail",
    help="When a step fails: open a shell in it, or keep it for builder debug.",
)
@click.option(
    "--break",
    "break_at",
    default="",
    metavar="STEP",
    help="Stop before a step, with a shell there: a position as shown (build 2/5), a line (:7) or a stage.",
)
@click.option("--check", is_flag=True, help="Shorthand for --call=check.")
@click.option("-q", "--quiet", is_flag=True, help="Print the image ID only.")
@click.pass_obj
def command(settings: Settings, /, **given: Any) -> int:
    """Build an image from a Dockerfile.

    PATH is the build context: a directory, a git or HTTP URL, or - for a Dockerfile or an archive on standard
    input. Without --output the image goes to the local store under its tags.
    """
    try:
        return run_build(settings, given)
    finally:
        if settings.asked is not None:
            keep(settings.asked, settings.root, given)
