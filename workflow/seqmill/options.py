"""Every setting once: the command line, `Settings`, the JSON schema and the manual's table are made from OPTIONS.

A new setting is one entry here, a comment in config/config.yaml, and its use.
"""

from typing import Any

from seqmill.inputs.windows import ERROR, FULL, TRUNCATE, WINDOW
from seqmill.kinds import Choice, Kind, Number, Paths, Several, Switch, Text
from seqmill.models.registry import FAMILIES
from seqmill.option import REQUIRED, Option
from seqmill.outputs.formats import FORMATS
from seqmill.outputs.representations import REPRESENTATIONS

# Of model.pooling and model.family: what the model's family says.
AUTO = "auto"
ATTENTION = ("auto", "flash-attn", "torch", "triton", "sdpa")
# Fresh starts with a smaller batch size, where on_oom is retry.
MAX_RETRIES = 3
DTYPES = ("auto", "float32", "float16", "bfloat16")
# What the tables say of the sections of config.yaml.
SECTIONS = {
    "model": "which model, and what to take from it; changes here run every shard again",
    "sequences": "how to treat the sequences; changes here run every shard again",
    "performance": "speed and memory only; changes here run nothing again that is finished",
    "results": "what to make of finished embeddings; changes here compute no embedding again",
}


def _result(
    section: str, name: str, kind: Kind, default: Any, meaning: str, details: str = "", flag: str = ""
) -> Option:
    return Option(section, name, kind, default, meaning, details, True, flag or f"--{name.replace('_', '-')}")


def _speed(name: str, kind: Kind, default: Any, meaning: str, details: str = "") -> Option:
    return Option("performance", name, kind, default, meaning, details, False, f"--{name.replace('_', '-')}")


OPTIONS = (
    Option(
        "",
        "fasta",
        Text(
            "the path of a FASTA file (plain or gzip), a list of them, samples with either (name: path), or a sample sheet "
            "(.tsv)",
            several=True,
        ),
        REQUIRED,
        "the sequences",
        "Ids are the first word of each header; see sequences.duplicate_ids. Each sample has a result of its own.",
        changes_result=True,
    ),
    _result(
        "model",
        "name",
        Text("a hub id such as facebook/esm2_t33_650M_UR50D, or the path of a folder with config.json and weights"),
        "facebook/esm2_t33_650M_UR50D",
        "the model",
        "README.md lists the models. A folder is as `save_pretrained` writes it, with the tokenizer's files of DNABERT and T5; "
        "EvolutionaryScale's ESM-C is its .pth alone.",
        flag="--model",
    ),
    _result(
        "model",
        "revision",
        Text("a commit, tag or branch of the hub, or null", optional=True),
        None,
        "the version of a hub model; null is the tested commit of known models, else main",
        "What it resolved to is recorded.",
    ),
    _result(
        "model",
        "dtype",
        Choice(DTYPES),
        "auto",
        "what to compute in",
        "auto: bfloat16 on GPUs from Ampere on (ProtT5 and ProstT5: float16), float16 on older ones, float32 on the CPU.",
    ),
    _result(
        "model",
        "layers",
        Several(names={"last": -1}),
        "last",
        "hidden states to take: 0 the embeddings, -1 the last layer",
        "Only the last layer's states pass the final norm, where a model has one, as in fair-esm and transformers.",
    ),
    _result(
        "model",
        "pooling",
        Several((AUTO, *REPRESENTATIONS)),
        AUTO,
        "; ".join(f"{name}: {entry.meaning}" for name, entry in REPRESENTATIONS.items()),
        "auto: mean, for DNABERT-S and DNABERT-2 mean_all, as their authors do.",
    ),
    _result(
        "model",
        "storage",
        Choice((AUTO, "float32", "float16")),
        AUTO,
        "what embeddings are stored in",
        "auto: float32; residues in float16 where they are computed in half precision. float16 halves the file, and has "
        "three significant digits.",
    ),
    Option(
        "model",
        "family",
        Choice((AUTO, *(family.name for family in FAMILIES))),
        AUTO,
        "which kind of model it is; auto: as its name or its folder says, else ESM-2",
        "Only for hub ids of others than the models' authors: the FASTA is checked and split before such a model is there.",
        changes_result=True,
    ),
    _result(
        "sequences",
        "long",
        Choice((FULL, WINDOW, TRUNCATE, ERROR)),
        FULL,
        "sequences of more than max_length: embedded whole, in overlapping windows, cut off there, or refused",
        "Sequences longer than a model was trained on are further from what it has seen; ESM-1b and ESM-1v cannot take them "
        "whole. With window each residue's state is taken from the window in which it lies most central, and the others are "
        "made from these. What was done to which is in the index (`windows`, `embedded`).",
    ),
    _result(
        "sequences",
        "max_length",
        Number(1),
        "auto",
        "residues (DNA: tokens) that the model gets at once, unless long is full; auto: what it was trained on",
        "1,022 residues: ESM-2, ESM-1; 2,046: ESM-C; 512: ProtT5, ProstT5, Ankh; 2,000 tokens: DNABERT.",
    ),
    _result(
        "sequences",
        "overlap",
        Number(0),
        "auto",
        "residues (DNA: tokens) that two windows share at least; auto: a quarter of max_length",
    ),
    _result(
        "sequences",
        "invalid",
        Choice(("error", "replace")),
        "error",
        "letters outside the model's alphabet: refuse the file, or replace them by X (DNA: N) and count them",
        "The count is the column `residues_replaced` of the index.",
    ),
    _result(
        "sequences",
        "duplicate_ids",
        Choice(("error", "number")),
        "error",
        "an id that comes more than once: refuse the file, or number the repetitions (id, id_2, id_3)",
        "The id in the file is the column `renamed_from` of the index.",
    ),
    Option(
        "",
        "shards",
        Number(1),
        "auto",
        "parts of the input, each a job of its own; auto: one per GPU",
        changes_result=True,
    ),
    Option(
        "",
        "reuse",
        Paths("earlier results, one or a list: folders, or their embeddings.h5 with index.parquet beside it"),
        [],
        "sequences that these hold are taken from there and not computed again",
        "They must be of the same model and settings; model.dtype: auto is then that of the first. A change runs nothing again "
        "that is finished.",
        changes_result=True,
        flag="--reuse",
    ),
    Option(
        "results",
        "formats",
        Several(tuple(FORMATS), least=0),
        [],
        "; ".join(f"{name}: {form.meaning}" for name, form in FORMATS.items()),
        "Written to `results/exports/<format>` from `embeddings.h5`, which is made anyway; README.md says which tool opens which.",
    ),
    Option(
        "results",
        "figures",
        Switch(),
        True,
        "pictures of the result in the folder `figures`, and in the report of `snakemake --report`",
        "Lengths, a map of the embeddings, where the time and the memory went, the settings; each as SVG and PNG.",
    ),
    Option(
        "results",
        "metadata",
        Text("the path of a table (.tsv, .csv, .parquet), or null", optional=True),
        None,
        "a table that says more of the sequences, to colour the map of the embeddings by",
        "The ids are in its column `id`, or else in the first one; of UniProt's (sp|P0A6F5|CH60_ECOLI) the accession will do.",
    ),
    Option(
        "results",
        "color",
        Text("the name of a column of results.metadata, or null", optional=True),
        None,
        "the column to colour the map by; null: by length",
        "Numbers are put on a scale; of other values the seven most frequent get a colour each.",
    ),
    Option(
        "performance",
        "gpus",
        Number(1),
        "auto",
        "GPUs that the run may use at once; auto: those of this machine; with shards: auto it is the number of shards, too",
    ),
    _speed(
        "batch_size",
        Number(1, "TOKENS"),
        "auto",
        "tokens in a batch, special tokens included; a longer sequence is a batch by itself",
        "auto: what the GPU's free memory allows, up to 32768, or for large inputs the smallest that is as fast as any.",
    ),
    _speed(
        "dataloader_workers",
        Number(0),
        "auto",
        "processes per GPU that prepare batches, a few ahead each",
        "auto: min(CPUs of this job / GPUs, 8).",
    ),
    _speed(
        "pin_memory",
        Switch(),
        False,
        "page-locked host memory for copies to and from the GPU",
        "It takes RAM that cannot be swapped, a few MB. What is stored per residue goes through such memory in any case: "
        "four to eight times tokens x width x 2 bytes, at most 512 MiB (which 650M takes at 32,768 tokens). Gains next to "
        "nothing elsewhere.",
    ),
    _speed(
        "expandable_segments",
        Switch(),
        False,
        "let PyTorch's allocator grow its segments, which removes most fragmentation",
        "Merged with PYTORCH_CUDA_ALLOC_CONF of your environment. Works on NVIDIA GPUs from Pascal on under Linux; gains "
        "most on cards with little memory and on inputs with sequences longer than the batch size; no effect on the CPU.",
    ),
    _speed(
        "streams",
        Choice((2, 3)),
        3,
        "CUDA streams per GPU: 2 computes and copies, 3 copies in and out separately",
    ),
    _speed(
        "attention",
        Choice(ATTENTION),
        "auto",
        "FlashAttention-2 from the flash-attn package, from PyTorch (torch), or seqmill's own in Triton, or standard "
        "attention (sdpa)",
        "auto takes the first of torch, flash-attn and sdpa that works (DNABERT and T5: of triton, flash-attn, DNABERT's only, "
        "and sdpa), and where kernels are compiled triton if it is faster on this GPU; any other runs or is an error.",
    ),
    _speed(
        "compile",
        Choice(("auto", True, False)),
        "auto",
        "fused kernels, compiled by Triton; auto: where there is enough work to win the time back",
        "Compiled kernels are kept in Triton's cache (~/.triton, or TRITON_CACHE_DIR).",
    ),
    _speed(
        "on_oom",
        Choice(("fail", "retry")),
        "fail",
        "out of memory: fail with a diagnosis, or retry in a fresh process with the batch size that it recommends",
        "A retry resumes after the last finished batch, three times at most. Each out of memory is recorded in `meta.json` "
        "(`out_of_memory`), or in `oom.json` (`earlier`) if the retries failed.",
    ),
)
