# Everything a person or CI does here. `make help` lists it.
SHELL := /bin/bash
# Debian's own, which is built with profiles: a server on one built without does 6 % less.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
IMAGE_DIR ?= /var/lib/dormice/images
MINUTES ?= 2
WORKERS ?= 3
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help install system guest image demo test lint types unit soak fuzz verify-long bench sdks clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: system $(VENV)/.installed guest ## everything `dormice` needs on this host

system: ## Debian packages that are missing
	@packaging/install-debian-packages

$(VENV)/.installed: requirements.lock pyproject.toml | system
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

guest: ## process 1 of every machine
	@$(MAKE) --no-print-directory -s -C guest

image: install ## the default image, once per host
	@[ -e $(IMAGE_DIR)/default ] || $(BIN)/dormice image build --image-dir $(IMAGE_DIR)

demo: image ## a real command on a real machine
	@$(BIN)/dormice demo

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed
	$(BIN)/mypy

sdks: $(VENV)/.installed ## what tests run besides: the foreign SDKs, the other OCI runtime
	@tests/conformance/install-sdks
	@packaging/install-debian-packages tests/debian-packages.txt

test: image sdks lint types ## all that CI runs; WORKERS=n tests go on at a time, most of them wait for processes
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal

soak: install ## load and random kills for MINUTES=n, then the history checker; SEED=n takes a way again
	$(BIN)/python -m tests.faults.soak $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(DRIVER),--driver $(DRIVER))

FUZZERS := tests/fuzz tests/conformance/test_stateful.py
fuzz: image sdks ## look for input that does harm, for MINUTES=n in all; SEED=n begins as a failure says
	@seconds=$$(($(MINUTES) * 60 / $$($(BIN)/pytest --collect-only -q $(FUZZERS) | grep -c ::))); \
	DORMICE_FUZZ_SECONDS=$$seconds DORMICE_FUZZ_SEED=$(or $(SEED),$$(date +%s)) $(BIN)/pytest --timeout 0 -v $(FUZZERS)

verify-long: MINUTES = 30
verify-long: fuzz soak ## the long versions of what `make test` does shortly: fuzz and soak for MINUTES=n each, leaks, schedules
	$(MAKE) --no-print-directory soak DRIVER=container
	DORMICE_LEAK_MACHINES=1000 DORMICE_LEAK_EXECUTIONS=10000 $(BIN)/pytest --timeout 0 tests/conformance/test_leaks.py -k leave_nothing
	DORMICE_SIMULATE=0-20000 $(BIN)/pytest --timeout 0 tests/engine/test_simulation.py

bench: image ## us against peers and physical limits, side by side
	$(BIN)/python -m bench

clean: ## what the targets above made, apart from the image and Debian packages
	rm -rf $(VENV) .sdks guest/build .mypy_cache .ruff_cache .pytest_cache
