"""``python -m eksim``."""

from eksim.cli.main import entry_point

entry_point()
