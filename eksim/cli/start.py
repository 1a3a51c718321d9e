"""The console script's first steps: ``--version`` is answered before anything is imported."""

from __future__ import annotations

import sys


def entry_point() -> None:
    """``eksim``."""
    if sys.argv[1:] == ["--version"]:
        from eksim import __version__

        print(f"eksim {__version__}")
        return
    from eksim.cli.main import entry_point as main

    main()
