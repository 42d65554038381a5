"""`python -m builder`."""

from builder.cli.main import run

if __name__ == "__main__":
    run()
