# Everything here happens in a virtual environment in the checkout (.venv); nothing else on the machine is touched.

PYTHON ?= python3
BIN := .venv/bin
SNAKEMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" snakemake

.PHONY: demo test lint format clean

demo: .venv/demo  ## Embed a real proteome with the demonstration model, on the CPU
	@$(SNAKEMAKE) --profile profiles/local --quiet rules
	@$(BIN)/python workflow/scripts/show.py --embeddings results/embeddings.h5 --index results/index.parquet

test: .venv/test  ## Run the tests
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest -m "not slow and not slurm"

lint: .venv/dev  ## What CI checks besides the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(SNAKEMAKE) --lint

format: .venv/dev  ## Format Python and Snakemake files
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow/rules

clean:  ## Remove results, logs and the environment
	rm -rf results logs .snakemake .venv

.venv/pyvenv.cfg:
	$(PYTHON) -c 'import sys; sys.exit("seqmill needs Python 3.11 or newer; try: make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv

# A stamp per set of requirements: installed again when the pins change.
.venv/demo: .venv/pyvenv.cfg envs/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements.txt
	@touch $@

.venv/test: .venv/demo envs/requirements-test.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements-test.txt
	@touch $@

.venv/dev: .venv/test envs/requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements-dev.txt
	@touch $@
