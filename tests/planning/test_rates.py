"""The rates of plans: what they say of runs that they were not made from, and of models that are not here."""

import json

import pytest
from paths import REPOSITORY

from seqmill.errors import UserError
from seqmill.models import registry
from seqmill.planning import cards, outline, published
from seqmill.planning.rates import RATES, Speed, Work

# A sample of UniRef90: residues of a protein on average, and tokens by tokens.
MEAN, WEIGHTED = 346, 771


def rate(card, name, mean=MEAN, weighted=WEIGHTED):
    """Residues per second."""
    config, known = outline.of(name, None, REPOSITORY / "none").config, cards.known(card)
    work = Work.summed(config, 1.0, weighted, config.layer_count, 2)
    return mean / (mean + 2) / Speed(known.half, known.copy, RATES["gpu"]["shares"]).seconds(work)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "benchmarks/results").glob("*h100_versions_[68]*.json")))
def test_runs_on_an_h100_that_were_not_fitted_are_predicted_within_a_fifth(path):
    """Rates were fitted to no ESM-2 on an H100."""
    layers = {"8M": 6, "150M": 30, "650M": 33}
    rows = [row for row in json.loads(path.read_text())["rows"] if "residues_per_s_ours" in row]
    assert rows
    for row in rows:
        name = f"facebook/esm2_t{layers[row['model']]}_{row['model']}_UR50D"
        assert rate("H100", name) == pytest.approx(row["residues_per_s_ours"], rel=0.2)


def test_the_stated_error_is_of_runs_that_were_left_out():
    assert RATES["gpu"]["runs"] >= 17
    assert 0 < RATES["gpu"]["mean_error"] < RATES["gpu"]["worst_error"] < 0.2


def test_long_sequences_take_longer_for_attention():
    assert rate("H100", "facebook/esm2_t33_650M_UR50D", 300, 302) > 1.5 * rate(
        "H100", "facebook/esm2_t33_650M_UR50D", 10_000, 10_002
    )


def test_work_is_what_the_network_counts():
    torch_free = outline.of("facebook/esm2_t33_650M_UR50D", None, REPOSITORY / "none").config
    work = Work.of(torch_free, [302, 52], 33, 2)
    # 24 operations a token, layer and squared width, and four for each pair of tokens and channel.
    assert work.products == 354 * 33 * 24 * 1280**2
    assert work.attention == (302**2 + 52**2) * 33 * 4 * 1280


@pytest.mark.parametrize("name", registry.hub_ids())
def test_the_sizes_of_every_published_model_are_known(name):
    model = outline.of(name, None, REPOSITORY / "none")
    assert model.family is registry.published_by(name)
    assert not model.is_here


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("facebook/esm2_t6_8M_UR50D", 7.4),
        ("facebook/esm2_t48_15B_UR50D", 15_100),
        ("facebook/esm1b_t33_650M_UR50S", 650),
        ("biohub/ESMC-600M", 575),
        ("biohub/ESMC-6B", 6_300),
        ("Rostlab/ProstT5", 1_208),
        ("ElnaggarLab/ankh-large", 1_150),
        ("zhihan1996/DNABERT-S", 116),
    ],
)
def test_published_models_are_as_large_as_their_authors_say(name, millions):
    assert outline.of(name, None, REPOSITORY / "none").config.parameter_count / 1e6 == pytest.approx(millions, rel=0.02)
    assert published.fields()[name]


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GH200 480GB", "GH200"),
    ],
)
def test_cards_are_known_by_what_nvidia_smi_calls_them(listed, name):
    assert cards.known(listed).name == name


def test_a_card_that_nothing_is_known_of_is_none_of_this_machines(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-80GB, 81920'\necho 'Voodoo2, 12'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (card,) = cards.here()
    assert (card.name, card.memory_bytes, card.is_measured) == ("A100", 80 * 2**30, False)
    with pytest.raises(UserError):
        cards.known("Voodoo2")
