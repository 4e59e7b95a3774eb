"""The files of a shard's folder and of its partial result."""

EMBEDDINGS, META, OOM, PROGRESS = "embeddings.h5", "meta.json", "oom.json", "progress.json"
