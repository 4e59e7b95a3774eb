"""Exported files in the tools they are for: installed at versions that were tried, in an environment of their own. Minutes, so slow."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from sample_result import IDS, LENGTHS, write_result

from seqmill.outputs.export import export

pytestmark = pytest.mark.slow

# torch is what the tests have, so that none is downloaded.
TOOLS = [
    "protspace==4.8.2",
    "biotrainer==1.4.0",
    "scanpy==1.11.5",
    "anndata==0.12.19",
    "datasets==5.2.0",
    "torch==2.13.0",
]
PROTSPACE = """
from protspace.data.loaders import load_h5
from urllib.parse import unquote
found = load_h5([Path("h5-per-id/mean_layer2.h5")])
assert found.name == "esm2_t6_8M_UR50D_mean_layer2", found.name
assert sorted(map(unquote, found.headers)) == sorted(ids)
for header, values in zip(found.headers, found.data):
    assert (values == expected[ids.index(unquote(header))]).all()
"""
BIOTRAINER = """
from biotrainer.embedders import EmbeddingService
from biotrainer.input_files import read_FASTA
records = read_FASTA("biotrainer/sequences.fasta")
hashes = [record.get_hash() for record in records]
assert [record.seq_id for record in records] == ids
assert records[0].get_target() == "1"
found = EmbeddingService.load_embeddings("biotrainer/mean_layer2.h5", hashes)
assert all((found[digest].numpy() == row).all() for digest, row in zip(hashes, expected))
found = EmbeddingService.load_embeddings("biotrainer/residues_layer2.h5", hashes)
assert [len(found[digest]) for digest in hashes] == lengths
"""
SCANPY = """
import anndata, scanpy
for name in ("mean_layer2", "max_layer2"):
    found = scanpy.read_h5ad(f"anndata/{name}.h5ad")
    assert found.obs_names.tolist() == ids and found.obs["length"].tolist() == lengths
    scanpy.pp.pca(found, n_comps=3)
    scanpy.pp.neighbors(found, n_neighbors=3)
    found.write_h5ad(f"{name}_again.h5ad")
backed = anndata.read_h5ad("anndata/mean_layer2.h5ad", backed="r")
assert (backed.X[:] == expected).all()
"""
DATASETS = """
import datasets
found = datasets.load_dataset("parquet", data_files="parquet/embeddings.parquet", split="train", cache_dir="cache")
assert found["id"][:] == ids
assert (found.with_format("numpy")["mean_layer2"][:] == expected).all()
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment with the tools, which finds this one's packages behind its own."""
    folder = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "behind.pth").write_text(f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n")
    subprocess.run([folder / "bin/pip", "install", "--quiet", *TOOLS], check=True)
    return folder / "bin/python"


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Path:
    """A folder with a result in the formats; its sequences all differ."""
    folder = tmp_path_factory.mktemp("exports")
    write_result(folder / "result")
    lines = [
        f">{name} TARGET=1 SET=train\n{'MKVLA'[row % 5] * length}\n"
        for row, (name, length) in enumerate(zip(IDS, LENGTHS, strict=True))
    ]
    (folder / "all.fasta").write_text("".join(lines))
    for name in ("h5-per-id", "biotrainer", "anndata", "parquet"):
        files = folder / "result/embeddings.h5", folder / "result/index.parquet"
        export(*files, name, folder / name, [folder / "all.fasta"])
    return folder


@pytest.mark.parametrize(
    "program", [PROTSPACE, BIOTRAINER, SCANPY, DATASETS], ids=["protspace", "biotrainer", "scanpy", "datasets"]
)
def test_the_tool_reads_what_was_exported_for_it(python, exports, program):
    head = "import h5py\nfrom pathlib import Path\nfile = h5py.File('result/embeddings.h5')\n"
    head += "ids, lengths, expected = file['ids'].asstr()[:].tolist(), file['lengths'][:].tolist(), file['mean_layer2'][:]\n"
    done = subprocess.run([python, "-c", head + program], cwd=exports, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_of_protspace_projects(python, exports):
    command = [python.with_name("protspace"), "project", "-i", "h5-per-id/mean_layer2.h5", "-m", "pca2", "-o", "map"]
    done = subprocess.run(command, cwd=exports, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (exports / "map/projections_data.parquet").exists()
