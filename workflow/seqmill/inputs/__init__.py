"""From FASTA files to the sequences of a shard; imports no torch and knows no model."""
