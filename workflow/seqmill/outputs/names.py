"""The files of a result's folder and of its partial result."""

EMBEDDINGS, META, OOM, PROGRESS = "embeddings.h5", "meta.json", "oom.json", "progress.json"
INDEX = "index.parquet"
