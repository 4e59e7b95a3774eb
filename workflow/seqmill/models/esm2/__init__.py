"""ESM-2: pre-norm transformers over single amino acids, with rotary positions."""
