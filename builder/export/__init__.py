"""Where a result goes: one exporter a file, and `output` that reads `--output`."""
