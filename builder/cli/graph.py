"""`builder graph`: how the stages of a Dockerfile depend on each other."""

from __future__ import annotations

import os

import click

from builder.cli import values
from builder.cli.defaults import platform_option
from builder.cli.flags import Command
from builder.cli.settings import Settings


@click.command("graph", cls=Command, epilog="Example: builder graph --format dot . | dot -Tpng -o stages.png")
@click.argument("context", metavar="[PATH|URL|-]", default=".")
@click.option("-f", "--file", "dockerfile", default="", metavar="PATH", help="The Dockerfile; - reads standard input.")
@click.option("--target", default="", metavar="STAGE", help="The stage to build (default: the last).")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="Set a build argument.")
@click.option(
    "--build-context",
    "contexts",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another context: a path, URL, image or target:STAGE.",
)
@platform_option("platforms", multiple=True, help="The target platform.")
@click.option("--format", "form", type=click.Choice(["svg", "dot", "mermaid"]), default="svg", help="The language.")
@click.option("-o", "--output", default="-", metavar="FILE", help="Where to write (default: standard output).")
@click.pass_obj
def command(
    settings: Settings,
    context: str,
    dockerfile: str,
    target: str,
    build_args: tuple[str, ...],
    contexts: tuple[str, ...],
    platforms: tuple[str, ...],
    form: str,
    output: str,
) -> None:
    """Write the graph of the stages as SVG, DOT or Mermaid.

    It has the stages, the images and contexts that they start from, and what COPY --from and RUN --mount take from
    elsewhere. What the target does not need is dashed. Nothing is built and no registry is asked.
    """
    from builder.api.call import stages_of
    from builder.api.drawing import stages
    from builder.api.options import BuildOptions
    from builder.export.destination import destination

    environ = dict(os.environ)
    graph = stages_of(
        BuildOptions(
            context=context,
            dockerfile=dockerfile,
            build_args=values.build_args(build_args, environ),
            contexts=values.pairs(contexts, "--build-context"),
            target=target,
            platforms=values.platforms(platforms),
            rego=False,  # nothing is taken
            root=settings.root,
            environ=environ,
        )
    )
    write = {"svg": stages.svg, "dot": stages.dot, "mermaid": stages.mermaid}[form]
    with destination(output) as file:
        file.write(write(graph).encode() + (b"\n" if form == "svg" else b""))
