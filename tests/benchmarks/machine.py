"""The machine that was measured on, and a place to work in that is removed at the end."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


def describe() -> str:
    """The machine's kind, without its name: processors, memory, kernel, Python."""
    model = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processors = len(os.sched_getaffinity(0))
    return (
        f"{processors} × {model or platform.machine()}, {memory:.0f} GiB of memory, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


@contextlib.contextmanager
def workplace(parent: str | None) -> Iterator[Path]:
    """A new directory below `parent` (default: that of temporary files), removed at the end with all that was mounted
    in it."""
    work = Path(tempfile.mkdtemp(prefix="benchmarks-", dir=parent)).resolve()
    try:
        yield work
    finally:
        remove_tree(work)


def remove_tree(directory: Path) -> None:
    """Remove a directory in which something may still be mounted."""
    unmount_below(directory)
    # rm is quicker than shutil.rmtree with a million files, and copes with paths of any length
    subprocess.run(["rm", "-rf", "--one-file-system", str(directory)], check=True)


def leave_memory(directory: Path) -> None:
    """Have the kernel keep no content of the regular files below a directory in memory."""
    os.sync()  # what is not on the disk stays
    for _, _, files, parent in os.fwalk(directory):
        for name in files:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def unmount_below(directory: Path) -> None:
    """Unmount everything at and below a directory, the deepest first."""
    with open("/proc/self/mountinfo") as file:
        places = [line.split()[4] for line in file]
    inside = [place for place in places if f"{place}/".startswith(f"{directory}/")]
    for place in sorted(inside, reverse=True):
        subprocess.run(["umount", "--lazy", place], capture_output=True)
