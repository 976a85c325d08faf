# make demo   fit the example on two cores        make test   lint and run the whole test suite
# make lint   style and imports                         make docs   build the pages of docs/ into site/
# make bench  measure everything that this machine can, and write the pages of docs/ with it
# make clean  remove everything made here, the environment included
#
# PYTHON=python3.13 chooses the interpreter of a new environment.

PYTHON ?= python3
# Parts of pacehpc that `make test` installs.
EXTRAS ?= mpich,test,docs
# Tests that run at a time (tests/conftest.py says which of them never do): one more than two cores, as some of them wait.
WORKERS ?= 3
BIN := $(CURDIR)/.venv/bin

# The environment's own tools and MPI library, whatever else the shell has loaded.
export PATH := $(BIN):$(PATH)
unexport MPI4PY_MPIABI MPI4PY_LIBMPI PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint docs bench clean
.DEFAULT_GOAL := demo

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "pacehpc needs Python 3.11 or newer; choose one with make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv \
		|| { echo "No virtual environment could be made; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

# Installed from the checkout, so that only a change of pyproject.toml asks for installing again.
.venv/demo: EXTRAS = mpich
.venv/docs: EXTRAS = docs
.venv/demo .venv/docs .venv/test-$(EXTRAS): pyproject.toml .venv/made
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@"$(BIN)/python" -m compileall -q pacehpc
	@touch $@

demo: .venv/demo
	@rm -rf demo && cp -R examples/al_ni demo
	cd demo && mpirun -n 2 pacehpc input.yaml
	@echo
	@echo "Final errors:"
	@grep -A 3 'Energy/at, meV/at' demo/log.txt | tail -n 4
	@echo "Potential: demo/output_potential.yaml"
	@echo "Report:    demo/report/index.html"
	@echo "Log:       demo/log.txt"

# Every part runs and shows what it finds; pytest's closing line comes last.
test: .venv/test-$(EXTRAS)
	@status=0; \
	ruff check . || status=1; \
	ruff format --check . || status=1; \
	lint-imports --no-cache || status=1; \
	python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder || status=1; \
	exit $$status

lint: .venv/test-$(EXTRAS)
	ruff check .
	ruff format --check .
	lint-imports --no-cache

docs: .venv/docs
	sphinx-build -q -W --keep-going -b html docs site
	@echo "Pages: site/index.html"

# BENCH=--quick tries the scripts, BENCH=--million fits a million atoms as well.
bench: .venv/test-$(EXTRAS)
	python benchmarks $(BENCH)

clean:
	rm -rf .venv demo site build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
