"""Names of files as they may be shown: an image can hold names with escape sequences for the reader's terminal."""

from builder.errors import printable

__all__ = ["printable"]
