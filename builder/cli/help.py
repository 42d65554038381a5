"""The help of `builder build`: its options in sections."""

from __future__ import annotations

import click

SECTIONS = {
    "What is built": (
        "dockerfile", "build_args", "contexts", "target", "platforms", "secrets", "agents", "policy", "pull", "offline",
    ),
    "The image": ("tags", "labels", "annotations", "squash", "provenance", "sbom", "attest"),
    "Where it goes": ("outputs", "push", "load", "iidfile", "metadata_file", "max_size", "max_layer", "max_waste"),
    "Cache": ("no_cache", "no_cache_filter", "cache_from", "cache_to"),
    "RUN steps": (
        "network", "hosts", "allow", "memory", "cpus", "shm_size", "ulimits", "isolation", "jobs", "on_error",
        "break_at",
    ),
    "What is shown": ("progress", "quiet", "report", "trace", "check", "call", "dry_run", "form", "exit_code"),
}  # fmt: skip
"""Names of parameters; what is in no section comes last."""


def write_sections(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write a command's options in sections, those of SECTIONS in their order there."""
    rows = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is not None:
            rows[parameter.name or ""] = record
    others = tuple(name for name in rows if not any(name in names for names in SECTIONS.values()))
    for title, names in (*SECTIONS.items(), ("More", others)):
        shown = [rows[name] for name in names if name in rows]
        if shown:
            with formatter.section(title):
                formatter.write_dl(shown)
