"""ESM-C (ESM Cambrian)."""
