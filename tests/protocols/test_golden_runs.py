"""From a FASTA to the merged file, against what the authors' own code computed of small checkpoints.

Of DNABERT's, the tokenizer is not here: tests/models/test_dnabert.py gives it the tokens.
"""

import golden
import pytest
import torch
from embeddings import read_embeddings
from golden import worst
from paths import FAMILIES
from small_run import SmallRun


@pytest.mark.parametrize("name", ["esmc-native-tiny", "esmc-hf-tiny", "prott5-tiny", "ankh-tiny", "esm1b-tiny"])
def test_merged_files_hold_what_the_authors_code_computed(tmp_path, name):
    run = SmallRun(tmp_path)
    model = golden.load(FAMILIES / name)
    names = [known for known in golden.NAMES if known != "bos" or model.tokenizer.leading]
    run.embed(FAMILIES / name, FAMILIES / "proteins.fasta", pooling=tuple(names))
    run.check()
    run.merge()
    found = read_embeddings(run.embeddings)
    per_token = torch.from_numpy(found["residues"]).split((found["offsets"][1:] - found["offsets"][:-1]).tolist())
    for dataset in names:
        values = per_token if dataset == "residues" else torch.from_numpy(found[dataset]).split(1)
        own = dict(zip(found["ids"], values, strict=True))
        expected = golden.wanted(model, name, golden.proteins(), dataset)
        assert worst([own[key] for key in expected], list(expected.values())) < 1e-5
