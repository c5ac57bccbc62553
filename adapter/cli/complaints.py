"""Complaints: what went wrong, on standard error."""

import sys

from adapter.core.wording import harmless


def complain(*problems: str) -> None:
    """Print a line for each. What comes from a topic, the registry or a file can't affect a terminal."""
    sys.stderr.writelines(harmless(f"adapter: {problem}") + "\n" for problem in problems)
