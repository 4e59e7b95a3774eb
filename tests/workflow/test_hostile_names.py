"""Names of files, models and records that a shell, Snakemake, HDF5 or a file system might take for something else."""

import h5py
import numpy as np
import pandas as pd
import pytest
from refusals import listing

HOSTILE_NAMES = [
    "a space",
    "'single'",
    '"double"',
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "| touch pwned",
    "&& touch pwned #",
    "> pwned",
    "*",
    "[!a]?",
    "~",
    "back\\slash\\n",
    "%s%n%(a)s",
    "--output",
    "-",
    "CON",
    "Case",
    "case",
    "caf\u00e9",  # as one letter, and as a letter and an accent
    "cafe\u0301",
    "\u65e5\u672c\u8a9e",
    "\U0001f9ec",
]
HOSTILE_IDS = [
    *(name.replace(" ", "_") for name in HOSTILE_NAMES),
    "{wildcard}",
    "{{wildcard}}",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b/c",
    ".",
    "..",
    "None",
    "nan",
    "NA",
    "null",
    "0",
    "1e5",
    "=1+1",
    "<b>",
    ">",
    "i" * 100_000,
]


@pytest.mark.slow
def test_hostile_names_go_through_the_whole_workflow(fresh_project, tmp_path, demo_model):
    """One run with every name as a file, as a model folder and, in it, as ids; each id twice for its own sequence.

    The sequences are one residue long and upwards; each comes a second time in the last file under another id.
    """
    project = fresh_project(tmp_path / "parent/ $(touch pwned) `touch pwned` 'project\" ;*")
    folder = project.folder
    model = folder / f"-m {''.join(HOSTILE_NAMES)}"
    model.mkdir()
    for file in demo_model.iterdir():
        (model / file.name).symlink_to(file)
    paths = [f"{name}.fasta" for name in HOSTILE_NAMES]
    ids = HOSTILE_IDS
    sequences = ["ACDEFGHIKLMNPQRSTVWY"[i % 20] * (1 + i // 20) for i in range(len(ids))]
    for path in paths:
        (folder / path).write_text("")
    given = []
    for number, (name, sequence) in enumerate(zip(ids, sequences, strict=True)):
        path = paths[number % len(paths)]
        with (folder / path).open("a") as file:
            file.write(f">{name} {path}\n{sequence}\n")
    (folder / "-last").symlink_to("twins")
    (folder / "twins").write_text("".join(f">twin_{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    for start in range(len(paths)):
        given += list(zip(ids[start :: len(paths)], sequences[start :: len(paths)], strict=True))
    given += [(f"twin_{number}", sequence) for number, sequence in enumerate(sequences)]

    project.configure(fasta=[*paths, "-last"], shards=1, model={"name": model.name, "dtype": "float32"})
    before, beside = listing(folder)
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    assert listing(folder) == (sorted([*before, ".snakemake", "logs", "results"]), beside)

    index = pd.read_parquet(folder / "results/index.parquet")
    with h5py.File(folder / "results/embeddings.h5") as file:
        found, lengths, mean = file["ids"].asstr()[:].tolist(), file["lengths"][:], file["mean"][:]
        assert file.attrs["model"] == model.name
    assert found == [name for name, _ in given]
    assert index["id"].tolist() == found
    assert lengths.tolist() == index["length"].tolist() == [len(sequence) for _, sequence in given]
    originals = dict(reversed([(sequence, name) for name, sequence in given]))
    expected = [None if originals[sequence] == name else originals[sequence] for name, sequence in given]
    assert [None if pd.isna(name) else name for name in index["duplicate_of"]] == expected
    assert np.isfinite(mean).all()
    rows = {sequence: row for row, (_, sequence) in enumerate(given)}
    assert all((mean[row] == mean[rows[sequence]]).all() for row, (_, sequence) in enumerate(given))
    assert len(np.unique(mean, axis=0)) == len(rows)
    assert project.plan() == []
