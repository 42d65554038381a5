"""One command, isolated: namespaces, an overlay, minimal /dev, masked /proc, Docker's capabilities and seccomp filter.

A leaf: standard library only, nothing else of this package. `client.Sandbox` runs `command.Command`s through a helper
process that forks each of them; `python -m builder.sandbox --lower DIR -- CMD` runs one by hand.

    client    the caller's side: starts the helper, streams the output, gives the result
    helper    the helper: takes requests, forks a process for each command, one of them ahead
    running   such a process as the helper sees it, from its fork to its result
    step      the process itself, until it becomes the command
    session   the caller's side of a command that somebody sits in front of: input, terminal, signals
    terminal  the command's side of that
    rootfs    the file system of a step: overlay, mount points that leave no trace, mounts that were asked for
    system    /proc, /dev, /sys and their masks
    process   the last steps before the command: limits, user, capabilities, seccomp, exec
    cgroups   memory, processor and process limits
    namespaces, capabilities, seccomp, syscalls   what the kernel offers
"""
