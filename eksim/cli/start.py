"""The console script's first steps: ``--version`` is answered before anything is imported."""

from __future__ import annotations

import os
import sys

#: Set before libraries are imported, unless the user has set them. numpy's linear algebra, which nothing here uses, starts
#: a thread per core, each of which spins for a tenth of a second; pydantic looks for plugins in every installed package.
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
}


def entry_point() -> None:
    """``eksim``."""
    if sys.argv[1:] == ["--version"]:
        from eksim import __version__

        print(f"eksim {__version__}")
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from eksim.engine.calm import calm_down, leave_all

    calm_down()
    from eksim.cli.main import entry_point as main

    try:
        main()
    finally:
        leave_all()
