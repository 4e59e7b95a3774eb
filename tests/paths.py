"""Where things lie in the repository."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = REPOSITORY / "workflow/scripts"
SCHEMAS = REPOSITORY / "workflow/schemas"
# Small checkpoints with random weights, and what the original implementations compute with them.
FAMILIES = REPOSITORY / "tests/data/families"
DEMO_MODEL = REPOSITORY / "resources/esm2_t6_3M_demo"
PROTEOME = REPOSITORY / "resources/ecoli_k12_UP000000625.fasta.gz"
# First on PYTHONPATH, its sitecustomize.py lets faults strike where variables say.
INJECTION = REPOSITORY / "tests/faults/injection"
