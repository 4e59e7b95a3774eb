"""seqmill: biological sequences to language-model embeddings, on every GPU it is given."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqmill.api.embed import embed
    from seqmill.api.neighbors import neighbors
    from seqmill.errors import OutOfMemory, UserError
    from seqmill.outputs.result import Embeddings, open

__version__ = "0.1.0"
__all__ = ["Embeddings", "OutOfMemory", "UserError", "__version__", "embed", "neighbors", "open"]

# Imported when they are first used: commands and jobs wait for none of them.
_LATER = {
    "embed": "seqmill.api.embed",
    "neighbors": "seqmill.api.neighbors",
    "open": "seqmill.outputs.result",
    "Embeddings": "seqmill.outputs.result",
    "OutOfMemory": "seqmill.errors",
    "UserError": "seqmill.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'seqmill' has no attribute '{name}'")
    value = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
