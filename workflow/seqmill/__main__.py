"""The command line: `python -m seqmill`, or `python PATH` with the path of this folder, which needs no installation."""

import importlib.util
import sys
from pathlib import Path

if not __package__:
    # Only this package, and not all that lies beside it, which may belong to another Python.
    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location("seqmill", folder / "__init__.py")
    sys.modules["seqmill"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["seqmill"])
    # Python puts the folder of what it runs here, where its modules would hide others: `locks`, `progress`.
    sys.path.pop(0)

from seqmill.commands import main

if __name__ == "__main__":
    main()
