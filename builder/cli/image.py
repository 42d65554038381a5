"""`builder image`: the image commands under Docker's group."""

from __future__ import annotations

from builder.cli.main import LazyGroup

_COMMANDS = {
    "build": "builder.cli.build",
    "history": "builder.cli.history",
    "import": "builder.cli.import_",
    "inspect": "builder.cli.inspect",
    "load": "builder.cli.load",
    "ls": "builder.cli.images",
    "prune": "builder.cli.image_prune",
    "pull": "builder.cli.pull",
    "push": "builder.cli.push",
    "rm": "builder.cli.rmi",
    "save": "builder.cli.save",
    "tag": "builder.cli.tag",
    "list": "builder.cli.images",
    "remove": "builder.cli.rmi",
}
_HELP = {
    "build": "Build an image from a Dockerfile",
    "history": "Show how an image was made",
    "import": "Make an image of a file system's archive",
    "inspect": "Show what is known of an image, as JSON",
    "load": "Read images from an archive",
    "ls": "List images",
    "prune": "Remove images without a name",
    "pull": "Fetch an image from a registry",
    "push": "Push images to their registries",
    "rm": "Remove images",
    "save": "Write images to an archive",
    "tag": "Give an image another name",
}

command = LazyGroup(
    "image",
    commands_in=_COMMANDS,
    summaries=_HELP,
    epilog="Example: builder image ls",
    help="Manage images: the same commands as without 'image', with Docker's names.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
