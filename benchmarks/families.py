"""How fast the families beyond ESM-2 are, file to file, against the GPU's ceilings and other tools, in one run.

One row per model and input: scripts/embed.py from a shard's FASTA to the closed embeddings.h5, with random weights of the
real size; then the peers of that family on every n-th record of the same input (forward, pooling and the copy to the
host), and how many times as fast as each seqmill is. Proteins come from --fasta, nucleotides from --nucleotides: as they
are, and cut into records of 500 bases. What cannot run is a row that says why.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import family_peers
import random_model
import torch
from bench import Bench, name_of
from common import ROOT, by_length, read_nucleotides, read_proteins, report, total
from family_peers import Given
from peer_batches import ESM_LETTERS, T5_LETTERS, bpe_tokens

from seqmill.inputs.fasta import Record

# Bases of the short records, as virus-identification pipelines cut contigs.
SHORT = 500


@dataclass(frozen=True)
class Work:
    """What a model gets to do.

    Attributes:
        repeats: of the input, enough for ten seconds with 3.4 million residues or 0.8 million bases on an H100.
        longest: letters of the longest sequence that the model can take; None for no limit.
        letters: residues or bases.
    """

    repeats: int
    longest: int | None = None
    letters: str = "residues"


WORK = {
    "esm1b": Work(2, longest=1022),
    "esmc-300M": Work(3),
    "esmc-600M": Work(2),
    "prott5-xl": Work(1),
    "ankh-base": Work(2),
    "dnabert-s": Work(80, letters="bases"),
}
# The peers' part of an input; they are slower, and repeat it until they have run for seconds.
PEER_EVERY = 4


def cut(records: list[Record], bases: int) -> list[Record]:
    """Records of `bases` bases; what is left at the end of each is dropped."""
    return [
        replace(record, id=f"{record.id}:{start}", sequence=record.sequence[start : start + bases])
        for record in records
        for start in range(0, len(record.sequence) - bases + 1, bases)
    ]


def tokens_a_letter(model: str, records: list[Record], files: Path | None) -> float:
    """Of these records, special tokens included; of copies of them it is hardly another."""
    if model == random_model.DNABERT:
        count = sum(map(len, bpe_tokens(records, files / "tokenizer.json")))
    else:
        count = (T5_LETTERS if model in random_model.T5 else ESM_LETTERS).count(records)
    return count / total(records)


class FamilyBench(Bench):
    """Rows of seqmill, and behind them those of the peers on the same input."""

    def run(self, model: str, records: list[Record], source: str) -> None:
        """All rows of one model and input.

        Args:
            records: without copies.
        """
        work, args = WORK[model], self.args
        fitting = [record for record in records if work.longest is None or len(record.sequence) <= work.longest]
        # Of equal lengths in the order of the file, which is the order that VirNucPro takes them in.
        records = by_length(fitting)
        repeats = args.repeats or work.repeats
        name = f"{source}_up_to_{work.longest}" if work.longest else source
        shard = self.shard(records, repeats, name)
        a_letter = tokens_a_letter(model, records, args.dnabert_files)
        self.embed("seqmill", model, shard, *args.flags, letters=work.letters, tokens_a_letter=a_letter)
        ours = self.rows[-1].get("tokens_per_s")
        every = 1 if model == random_model.DNABERT else args.peer_every
        for what in family_peers.PEERS[model] if args.peers else ():
            self.peer(what, model, records[::every], name, ours, every=every)

    def peer(self, what: str, model: str, records: list[Record], source: str, ours: int | None, **about: Any) -> None:
        """One row of a peer; a peer that is not installed or fails is part of the result."""
        try:
            found = family_peers.measure(what, Given(model, records, self.args.dnabert_files, self.args.layers))
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            self.add(what, model, source, failed=f"{type(error).__name__}: {first}"[:300])
            return
        finally:
            if self.device == "cuda":
                torch.cuda.empty_cache()
        row = {f"{WORK[model].letters}_per_s": round(found.letters), "tokens_per_s": round(found.tokens)}
        times = {"seqmill_times": round(ours / found.tokens, 2)} if ours else {}
        self.add(what, model, source, **row, **times, **about)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    default = ROOT / "resources/ecoli_k12_UP000000625.fasta.gz"
    add("--models", nargs="+", choices=WORK, default=list(WORK))
    add("--fasta", type=Path, default=default, help="proteins [%(default)s]")
    add("--nucleotides", type=Path, help="records of some thousand bases, for DNABERT-S")
    add("--dnabert-files", type=Path, help="folder with DNABERT-S's config.json and tokenizer.json")
    add("--no-peers", dest="peers", action="store_false", help="seqmill alone")
    add("--peer-every", type=int, default=PEER_EVERY, help="the peers get every how many-th protein [%(default)s]")
    add("--results", type=Path, help="folder for models and results, such as a RAM disk [temporary folder]")
    add("--output", type=Path, help="JSON file to write")
    add("--flags", nargs=argparse.REMAINDER, default=[], help="of scripts/embed.py; must be the last")
    trial = parser.add_argument_group("for trials, on the CPU for example")
    trial.add_argument("--every", type=int, default=1, help="take only every how many-th record")
    trial.add_argument("--repeats", type=int, help="of the input, instead of the model's own")
    trial.add_argument("--layers", type=int, help="of the models, instead of their own")
    args = parser.parse_args()
    if random_model.DNABERT in args.models and not (args.nucleotides and args.dnabert_files):
        parser.error(f"{random_model.DNABERT} needs --nucleotides and --dnabert-files; or choose other --models")
    return args


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory(dir=args.results) as folder:
        bench = FamilyBench(args, Path(folder), {}, layers=args.layers, files=args.dnabert_files)
        proteins = read_proteins(args.fasta)[:: args.every]
        for model in args.models:
            if model != random_model.DNABERT:
                bench.run(model, proteins, name_of(args.fasta))
                continue
            records = read_nucleotides(args.nucleotides)[:: args.every]
            bench.run(model, records, name_of(args.nucleotides))
            bench.run(model, cut(records, SHORT), f"{name_of(args.nucleotides)}_{SHORT}")
        bench.finish()
    report("families", bench.rows, args.output, ceilings=bench.ceilings)


if __name__ == "__main__":
    main()
