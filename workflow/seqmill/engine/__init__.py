"""One process on one device: from a shard to its result."""
