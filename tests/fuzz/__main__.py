"""Fuzz one target by hand.

python -m tests.fuzz TARGET [--seconds N] [options of libFuzzer, such as -max_total_time=60 or a corpus directory]

With atheris (`pip install 'builder[fuzz]'`) inputs are led by coverage, and libFuzzer's options count. Without it
random mutations of the seeds are tried for N seconds.
"""

from __future__ import annotations

import sys

from tests.fuzz.mutate import attempt, run
from tests.fuzz.targets import SEEDS, TARGETS


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in TARGETS:
        print(f"usage: python -m tests.fuzz TARGET [OPTION…]\ntargets: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    name, *others = arguments
    target = TARGETS[name]
    try:
        import atheris
    except ImportError:
        seconds = float(others[others.index("--seconds") + 1]) if "--seconds" in others else 60.0
        print(f"{run(target, SEEDS[name], seconds, seed=int(seconds))} inputs, no defect (random mutations)")
        return 0
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *others], lambda data: attempt(target, data))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
