"""Every representation and long sequences in windows, on a CUDA GPU against the CPU."""

import numpy as np
import pytest
import torch
from embeddings import read_embeddings
from golden import worst
from paths import DEMO_MODEL
from small_run import embed

from seqmill.outputs.representations import REPRESENTATIONS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

LENGTHS = (9_000, 3_000, 1_023, 1_022, 300, 40, 2)
TREATMENTS = {
    "full": {},
    "window": {"long": "window"},
    "short windows": {"long": "window", "max_length": 100, "overlap": 7},
    "truncate": {"long": "truncate", "max_length": 500},
}


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("input") / "x.fasta"
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8)
    path.write_bytes(
        b"".join(b">s%d\n%s\n" % (n, random.choice(letters, length).tobytes()) for n, length in enumerate(LENGTHS))
    )
    return path


@pytest.mark.parametrize("compiled", ["on", "off"])
@pytest.mark.parametrize("name", TREATMENTS)
def test_the_gpu_gives_what_the_cpu_gives(fasta, tmp_path, name, compiled):
    settings = {"pooling": tuple(REPRESENTATIONS), "layers": (0, -1), "dtype": "float32", **TREATMENTS[name]}
    assert embed(DEMO_MODEL, fasta, tmp_path / "cpu", **settings, batch_size=2048) == 0
    on_gpu = {"device": "cuda", "compile": compiled, "dataloader_workers": 2}
    assert embed(DEMO_MODEL, fasta, tmp_path / "gpu", **(settings | on_gpu), batch_size=4096) == 0
    found, expected = (read_embeddings(tmp_path / f"{device}/embeddings.h5") for device in ("gpu", "cpu"))
    assert found.keys() == expected.keys()
    assert np.array_equal(found["offsets"], expected["offsets"])
    for dataset in sorted(set(expected) - {"ids", "lengths", "offsets", "windows", "embedded"}):
        assert worst([torch.from_numpy(found[dataset])], [torch.from_numpy(expected[dataset])]) < 5e-5, dataset
    for dataset in {"windows", "embedded"} & set(expected):
        assert np.array_equal(found[dataset], expected[dataset])
