"""Pictures of a result: how long the sequences are, where the time and the memory went, a map of the embeddings."""
