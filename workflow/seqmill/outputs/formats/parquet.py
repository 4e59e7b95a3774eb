"""A Parquet table, `embeddings.parquet`: the columns of the index, then a column of vectors per dataset."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqmill.outputs.datasets import Dataset
from seqmill.outputs.formats.source import Source


def write(source: Source, datasets: Sequence[Dataset], folder: Path) -> None:
    """Write the table; vectors are lists of a fixed size. The metadata `seqmill` has the result's attributes in JSON."""
    vectors = [pa.field(each.name, pa.list_(pa.from_numpy_dtype(each.dtype), each.width)) for each in datasets]
    about = {name: np.asarray(value).astype(str).tolist() for name, value in source.attributes.items()}
    schema = pa.schema([*source.schema, *vectors], metadata={"seqmill": json.dumps(about)})
    # The values of vectors neither repeat nor shrink, and their least and greatest help nobody.
    known = source.schema.names
    compression = dict.fromkeys(known, "zstd") | {f"{field.name}.list.element": "none" for field in vectors}
    options = {"use_dictionary": known, "write_statistics": known, "compression": compression}
    with pq.ParquetWriter(folder / "embeddings.parquet", schema, **options) as writer:
        for block in source.blocks(*datasets):
            columns = [pa.array(block.values[field.name].reshape(-1)) for field in vectors]
            lists = [
                pa.FixedSizeListArray.from_arrays(column, type=field.type)
                for column, field in zip(columns, vectors, strict=True)
            ]
            # Not write_batch, which would gather blocks in memory for one large row group.
            writer.write_table(pa.Table.from_arrays([*block.records.columns, *lists], schema=schema))
