"""What computes: packed batches, attention, the steps between matrix products. Knows no family."""
