# make compare   train several architectures fairly and show which is better at what (about six minutes on two cores)
# make test      every check that CI runs, but for the smoke comparison
.PHONY: compare smoke test lint types tests wheel kill clean
.DELETE_ON_ERROR:

BIN := .venv/bin
INSTALLED := .venv/.installed
JOBS ?= 2
ARGS ?=

compare: $(INSTALLED)
	$(BIN)/subquad compare $(ARGS)

smoke: $(INSTALLED)
	$(BIN)/subquad compare --preset smoke $(ARGS)

test: lint types tests wheel

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/pyright

tests: $(INSTALLED)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

wheel: $(INSTALLED)
	$(BIN)/python tests/wheel.py

kill: $(INSTALLED)
	$(BIN)/python -m subquad.experiments.kill_test

# The interpreter: $PYTHON if given, else the first of these that is 3.12 or later.
$(INSTALLED): pyproject.toml setup.py
	@python=""; for candidate in $(PYTHON) python3.12 python3 python3.13 python3.14; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then python="$$candidate"; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "subquad needs Python 3.12: 'pyenv install 3.12', 'uv python install 3.12' or your package manager's python3.12, then run make again (or make PYTHON=/path/to/python3.12)" >&2; exit 2; fi; \
	echo "creating .venv with $$("$$python" --version)"; "$$python" -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .cache build *.egg-info
