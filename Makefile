# Everything here happens in a virtual environment in the checkout (.venv); nothing else on the machine is touched.

PYTHON ?= python3
PIP := pip install --quiet --disable-pip-version-check

export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: demo test slow lint format clean

demo: .venv/demo  ## Embed a real proteome with the demonstration model, on the CPU if there is no GPU
	snakemake --profile profiles/local --quiet rules
	@python workflow/scripts/show.py --embeddings results/embeddings.h5 --index results/index.parquet

# A file's tests share models and runs, so that a file stays on one core.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile

test: .venv/test  ## Run the tests
	python -m pytest $(PARALLEL) -m "not slow and not slurm and not gpu"

slow: .venv/test  ## Run the tests that take minutes
	python -m pytest $(PARALLEL) -m "slow and not slurm and not gpu"

lint: .venv/dev  ## What CI checks besides the tests
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow/Snakefile workflow/rules
	snakemake --lint

format: .venv/dev  ## Format Python and Snakemake files
	ruff check --fix
	ruff format
	snakefmt Snakefile workflow/Snakefile workflow/rules

clean:  ## Remove results, logs and the environment
	rm -rf results logs .snakemake .venv

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit("seqmill needs Python 3.11 or newer; try: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

# A stamp per set of requirements: installed again when the pins change.
.venv/demo: .venv/pyvenv.cfg envs/requirements.txt envs/constraints.txt
	$(PIP) -r envs/requirements.txt
	@touch $@

.venv/test: .venv/demo envs/requirements-test.txt
	$(PIP) -r envs/requirements-test.txt
	@touch $@

.venv/dev: .venv/test envs/requirements-dev.txt
	$(PIP) -r envs/requirements-dev.txt
	@touch $@
