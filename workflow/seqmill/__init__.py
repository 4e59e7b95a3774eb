"""seqmill: protein sequences to language-model embeddings, on every GPU it is given."""

__version__ = "0.1.0"
