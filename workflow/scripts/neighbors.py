"""Find the most similar sequences of a result: the command `seqmill neighbors`, without an installation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqmill import commands

if __name__ == "__main__":
    commands.run("neighbors")
