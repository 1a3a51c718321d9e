"""``make notebooks``: execute every notebook from start to end and keep its outputs; ``--check`` only executes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def main() -> None:
    """The script."""
    for path in sorted(HERE.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        began = time.monotonic()
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}).execute()
        if "--check" not in sys.argv:
            for cell in notebook.cells:
                cell.get("metadata", {}).pop("execution", None)
            notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
            nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
