# Everything runs in a virtual environment that is made here; a machine needs python3, make and git.
#
#   make demo     the main job: send a folder of messages through every client, account for each,
#                 then in bulk, with a kill on the way
#   make test     the tests, on every event loop
#   make torture  every fault at every place, one line of figures a sweep; takes hours,
#                 and with ONE_IN=10, one place in ten, minutes
#   make fuzz     every fuzz target, 20,000 runs each, or RUNS=1000000; docs/reliability.md says how
#   make mutants  whether the tests of the lowest floors notice a changed line; ROOM=replies for one
#                 room, which takes minutes
#   make interop  the client against real mail servers on loopback; docs/interop.md has the last run
#   make check    linter, formatter, both type checkers, the layer rule
#   make bench    this client beside others, about eight minutes; QUICK=1 for a short look
#   make soak     200,000 messages through a pool, and what that does to memory
#   make ledger   a million messages to a server that fails, and what became of each
#
# Another interpreter: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test torture fuzz mutants interop check bench soak ledger clean

demo: $(READY)
	$(RUN) -m aiosmtpclient demo examples/messages

test: $(READY)
	$(RUN) -m pytest -n auto --dist worksteal $(ARGS)

torture: $(READY)
	TORTURE=$(or $(ONE_IN),1) $(RUN) -m pytest -q -n auto --dist worksteal tests/sweeps $(ARGS)

fuzz: $(READY)
	$(RUN) -m tests.fuzz all --runs $(or $(RUNS),20000) $(ARGS)

mutants: $(VENV)/.ready-mutants
	$(VENV)/bin/mutmut run $(if $(ROOM),"aiosmtpclient.$(ROOM).*") $(ARGS)
	$(VENV)/bin/mutmut results | { grep -v "not checked" || true; }

interop: $(READY)
	$(RUN) -m pytest -q -p no:xdist -p no:cacheprovider --timeout=120 tests/interop $(ARGS)

check: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pyright --pythonpath $(RUN)
	$(RUN) -m pytest -q tests/test_layers.py

bench: $(VENV)/.ready-bench
	$(RUN) -m benchmarks $(if $(QUICK),--quick) $(ARGS)

soak: $(READY)
	$(RUN) -m benchmarks.soak $(ARGS)

ledger: $(READY)
	$(RUN) -m benchmarks.ledger $(ARGS)

$(VENV)/.ready-bench: $(READY)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	@touch $@

$(VENV)/.ready-mutants: $(READY)
	$(RUN) -m pip install --quiet --disable-pip-version-check "mutmut>=3.8"
	@touch $@

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $(READY)

clean:
	rm -rf $(VENV) .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis mutants
