"""``python -m eksim``."""

from eksim.cli.start import entry_point

entry_point()
