# Two commands for a fresh machine (Python >= 3.11, make):
#
#     make demo     installs into .venv, then trains LeNet-5 on real handwritten digits and writes a report
#     make test     installs into .venv, then runs the test suite
#
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check clean

help:
	@echo 'make demo    train LeNet-5 on real digits and write a report (installs the core first)'
	@echo 'make test    run the tests (installs the dev extra first)'
	@echo 'make check   ruff and mypy (installs the dev extra first)'
	@echo 'make clean   remove .venv, build products and caches; runs stay'

demo: .venv/installed-core
	.venv/bin/convarium demo

# A process for each core, with one thread: two threads that share small networks mostly wait for each other.
# A process that dies fails the run: xdist can wait for ever after it has replaced one.
test: .venv/installed-dev
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --max-worker-restart=0

check: .venv/installed-dev
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

# All paths are relative, so that the checkout may lie in a folder with spaces in its name.
.venv/pyvenv.cfg:
	@"$(PYTHON)" -c '' || { \
		echo 'Convarium needs Python 3.11 or newer, and "$(PYTHON)" does not run; give one: make PYTHON=python3.12' >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Convarium needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1);" \
			'give a newer one: make PYTHON=python3.12' >&2; \
		exit 1; }
	@"$(PYTHON)" -m venv .venv || { rm -rf .venv; exit 1; }

# A stamp is newer than what it was installed from, so that pip runs again only when one of these changes.
.venv/installed-core: pyproject.toml constraints.txt .venv/pyvenv.cfg
	@echo 'Installing Convarium into .venv; PyTorch is large, this takes some minutes the first time ...'
	@$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/installed-dev: .venv/installed-core
	@echo 'Installing the tools for tests and checks into .venv ...'
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
