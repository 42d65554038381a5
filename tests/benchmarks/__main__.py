"""Measure builds.

python -m tests.benchmarks [OPTIONS]          the workloads, beside every builder that is installed
python -m tests.benchmarks growth [OPTIONS]   how our own time and memory grow with the size of the input

Needs root, overlayfs and a static busybox; workloads on Debian also a tar archive of a root file system, as
`mmdebstrap --variant=minbase bookworm debian.tar` makes one.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.benchmarks import growth, machine, peers, series, workloads
from tests.benchmarks.bases import serve_bases
from tests.benchmarks.compare import Contest, Row
from tests.benchmarks.report import Report, comparison
from tests.benchmarks.workloads import Workload
from tests.support.builds import obstacle


def main(arguments: Sequence[str]) -> int:
    """Run the command line; the exit status."""
    options = _options(arguments)
    if reason := obstacle():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _grow(options) if options.command == "growth" else _compare(options)
    except ValueError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks", description=summary, epilog=rest, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=["compare", "growth"], default="compare")
    parser.add_argument("--only", default="", help="workloads (W1,W4a) or series (files,stages)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads; in growth how far sizes go")
    parser.add_argument("--runs", type=int, default=5, help="timed rounds (for growth: of which the fastest counts)")
    parser.add_argument("--builders", default="", help="such as builder,docker (default: all that are installed)")
    parser.add_argument("--rootfs", type=Path, help="a tar archive of a Debian root file system")
    parser.add_argument("--work", help="where to work, in a new directory that is removed (needs some 10 GB)")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write the tables there too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser.parse_args(arguments)


def _compare(options: argparse.Namespace) -> int:
    chosen = workloads.choose(options.only) if options.only else list(workloads.WORKLOADS)
    names = [name for name in options.builders.split(",") if name]
    skipped = {
        workload.key: "needs --rootfs" for workload in chosen if workload.needs_debian and options.rootfs is None
    }
    rows: list[Row] = []
    with machine.workplace(options.work) as work, serve_bases(options.rootfs) as bases:
        builders, absent = peers.installed(work, names)
        contest = Contest(work, builders, bases, options.scale, options.runs)
        try:
            for workload in chosen:
                if workload.key not in skipped:
                    rows.append(contest.measure(workload))
                    _tell(rows[-1])
        except KeyboardInterrupt:
            skipped |= _unfinished(chosen, rows, skipped)
        finally:
            peers.stop_all(builders)
        versions = {builder.name: builder.version for builder in builders}
    report = Report(_today(), machine.describe(), versions, absent, options.scale, rows, skipped)
    return _write(options, comparison(report), report)


def _unfinished(chosen: Sequence[Workload], rows: Sequence[Row], skipped: dict[str, str]) -> dict[str, str]:
    known = {row.key for row in rows} | skipped.keys()
    return {workload.key: "interrupted" for workload in chosen if workload.key not in known}


def _tell(row: Row) -> None:
    """Show that something is going on."""
    cells = (f"{name} {cell.note or f'{cell.median:.2f} s'}" for name, cell in row.cells.items())
    print(f"{row.key}: {', '.join(cells)}", file=sys.stderr, flush=True)


def _grow(options: argparse.Namespace) -> int:
    chosen = series.choose(options.only) if options.only else list(series.SERIES)
    with machine.workplace(options.work) as work:
        found = growth.measure_all(work, chosen, options.scale, options.runs)
    return _write(options, growth.describe(found, _today(), machine.describe()), found)


def _write(options: argparse.Namespace, text: str, data: object) -> int:
    print(text, end="")
    if options.md is not None:
        options.md.write_text(text)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(data)))
    return 0


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
