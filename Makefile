# otel-sysexit: `make run` shows it, `make test` checks everything. `make help` lists the rest.

VENV := .venv
PYTHON := $(VENV)/bin/python
CMD ?= ls -l /etc/hosts
# Live tests run as root; elsewhere they skip with a reason, unless OTEL_SYSEXIT_LIVE_TESTS=1 makes that a failure.
PYTEST := $(PYTHON) -m pytest

.DEFAULT_GOAL := help

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 14

.PHONY: run
run: $(VENV)/run.stamp  ## trace a small command: make run CMD='ls -l /usr'
	@$(PYTHON) -m otel_sysexit run -- $(CMD)

# The Python that has bcc, with what requirements/run.txt locks.
$(VENV)/run.stamp: requirements/run.txt scripts/setup.sh
	@scripts/setup.sh $(VENV) requirements/run.txt
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt scripts/setup.sh pyproject.toml
	@scripts/setup.sh $(VENV) requirements/dev.txt
	@touch $@ $(VENV)/run.stamp

.PHONY: setup
setup: $(VENV)/dev.stamp  ## install everything that development needs

.PHONY: test
test: check live backends-test  ## everything: lint, types, unit, contract, property, live, back ends

.PHONY: check
check: setup lint types  ## what needs neither root nor BPF
	$(PYTEST) tests/unit tests/contract tests/property

.PHONY: lint
lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

.PHONY: types
types: setup
	$(VENV)/bin/mypy

.PHONY: live
live: setup  ## tests on the running kernel (root)
	$(PYTEST) tests/live

.PHONY: kernels
kernels: setup  ## live tests on other kernels in QEMU (root, Debian): make kernels KERNELS='5.10 arm64'
	$(PYTHON) tests/kernels/kernels.py $(KERNELS)

.PHONY: backends
backends:  ## build the OpenTelemetry Collector and Jaeger for tests, cached outside the clone
	tests/backends/build.sh

.PHONY: backends-test
backends-test: setup backends
	$(PYTEST) tests/backends

.PHONY: bench
bench: setup  ## measure overhead beside other tools; writes docs/overhead.md: make bench GROUPS=kernel,scale QUICK=1
	$(PYTHON) benchmarks/overhead.py $(if $(GROUPS),--groups $(GROUPS)) $(if $(QUICK),--quick)

.PHONY: docs
docs: setup  ## make docs/attributes.md and docs/environment.md from the code
	$(PYTHON) docs/generate.py

.PHONY: wheel
wheel: setup  ## build dist/*.whl
	$(PYTHON) -m build --wheel

.PHONY: lock
lock: setup  ## resolve requirements/*.txt anew
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml -o requirements/run.txt
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --group dev -o requirements/dev.txt

.PHONY: clean
clean:  ## remove what make made here
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
