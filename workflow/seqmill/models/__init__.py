"""Model families, their tokenizers and their checkpoints."""
