"""Benchmarks, run by hand: `python -m tests.benchmarks` beside other builders, and with `growth` ours alone.

    workloads  the table: what is built, from which state, how much of the fastest peer's time is aimed at
    recipes    the contexts that are built, how they change between builds, what must be in the image
    expected   looks at what a builder made, so that nobody wins by doing nothing
    builders   what a builder is asked and how; `builder` itself
    peers      docker, buildah and BuildKit, where they are installed; their daemons are of the run's own
    bases      the images that recipes build on, in a registry of the run's own
    measure    seconds and processor time of commands, memory of all their processes
    compare    the rounds of one workload, in turn over all builders
    series     how much work is done in growing sizes
    growth     the sizes of one series, and whether time and memory grow with them as they should
    report     both tables, in Markdown

Nothing here is part of the test suite but `test_*.py`, which measure no times.
"""
