# Everything happens in $(VENV), which the first target that needs it creates; a stamp in it says what is installed, so
# that a second run installs nothing.
#
#   make run | test | check | counts | bench | nightly | services
#   make test PYTEST_ARGS='-k lease -x'
#   make nightly-world | nightly-rich | nightly-guards | nightly-core | nightly-seeds | nightly-kills | nightly-slow

VENV        ?= .venv
PYTHON      ?=
PYTEST_ARGS ?=
JOBS        ?= 3
BIN         := $(VENV)/bin
BASE        := $(VENV)/.installed-base
DEV         := $(VENV)/.installed-dev
REQUIRED    := FLOWKIT_TEST_REQUIRE=kafka,mongo,openbao

export PIP_DISABLE_PIP_VERSION_CHECK := 1

PARTS       := world rich guards core seeds kills slow
NIGHTLY     ?= $(PARTS)
SEEDED      := tests/world tests/core tests/wire
# No limit per test but a generous one: these are the long runs.
SLOW        := $(BIN)/python -m pytest --timeout 3600 $(PYTEST_ARGS)

CHECKS      := check-types check-tests check-code

.PHONY: help run test check $(CHECKS) counts bench nightly $(PARTS:%=nightly-%) services install-services install-bubblewrap install-node clean
.SILENT:

help:
	sed -n 's/^#   //p' Makefile

run: $(BASE)
	$(BIN)/python examples/quickstart.py

# Three at a time, for two cores: much of the time one of them waits. Tests that share servers of their own stay
# together (`xdist_group`), all others go to whoever is free: a file may take minutes.
test: install-services install-bubblewrap install-node
	$(REQUIRED) $(BIN)/python -m pytest -m 'not slow' -n $(JOBS) --dist loadgroup $(PYTEST_ARGS)

# The two of mypy, which take longest, beside each other; each with a memory of its own.
check: $(DEV)
	$(MAKE) --no-print-directory --jobs 2 --output-sync $(CHECKS)

check-types: $(DEV)
	$(BIN)/mypy

check-tests: $(DEV)
	$(BIN)/mypy --config-file tests/mypy.ini --cache-dir .mypy_cache/tests

check-code: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

# Messages, documents and round trips per node: counts do not depend on the machine, so they can be held to.
counts: install-services
	$(BIN)/python -m bench.counts

bench: install-services install-bubblewrap
	$(BIN)/python -m bench
	$(BIN)/python -m bench --backend embedded
	$(BIN)/python -m bench.programs

# Every part is run, whatever became of those before it; the table at the end says what became of each. One part again:
# `make nightly-kills`; some of them: `make nightly NIGHTLY='world rich'`.
nightly: install-services install-bubblewrap install-node
	table=; failed=0; \
	for part in $(NIGHTLY); do \
	    began=$$(date +%s); code=0; \
	    $(MAKE) --no-print-directory nightly-$$part || code=$$?; \
	    [ $$code = 0 ] || failed=1; \
	    row=$$(printf '%-20s %6d s   exit %d' nightly-$$part $$(($$(date +%s) - began)) $$code); \
	    echo "$$row"; table="$$table$$row;"; \
	done; \
	echo; echo "$$table" | tr ';' '\n'; \
	exit $$failed

# As many seeds at a time as there are cores, here and below: nobody waits for anything.
nightly-world: $(DEV)
	failed=0; \
	for weather in 'chaos 0:5000' 'calm 0:1000' 'outage 0:1000' 'ccrash 0:1000'; do \
	    set -- $$weather; $(BIN)/python -m flowkit.testing run --mode $$1 --seeds $$2 || failed=1; \
	done; \
	exit $$failed

# All that a graph can say.
nightly-rich: $(DEV)
	$(BIN)/python -m flowkit.testing run --seeds 0:2000 --directed rich

nightly-guards: $(DEV)
	$(BIN)/python -m flowkit.testing guards --measure

# New examples each night, and more of them.
nightly-core: $(DEV)
	HYPOTHESIS_PROFILE=nightly $(SLOW) -m 'not slow' -n auto --dist loadgroup tests/core tests/wire

nightly-seeds: $(DEV)
	HYPOTHESIS_PROFILE=nightly $(SLOW) -m slow -n auto --dist loadgroup $(SEEDED)

# Kills, outages, streams, limits: they measure times, so nothing runs beside them.
nightly-kills: install-services install-bubblewrap install-node
	$(REQUIRED) $(SLOW) -m slow tests/integration

# All other slow tests, one at a time.
nightly-slow: install-services install-bubblewrap install-node
	$(REQUIRED) HYPOTHESIS_PROFILE=nightly $(SLOW) -m slow tests $(foreach path,$(SEEDED) tests/integration,--ignore=$(path))

services: install-services
	$(BIN)/python -m deploy.local up

clean:
	rm -rf $(VENV) .services .pytest_cache .mypy_cache .ruff_cache .import_linter_cache site

# ---- what the targets need

$(BIN)/python:
	python='$(PYTHON)'; \
	for found in $$python python3.14 python3.13 python3.12 python3.11 python3; do \
	    command -v $$found >/dev/null || continue; \
	    $$found -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    found=; \
	done; \
	test -n "$$found" && command -v $$found >/dev/null || { \
	    echo 'Python 3.11 or later is missing. Install it, or name it: make PYTHON=/path/to/python3 ...' >&2; exit 1; }; \
	echo "Creating $(VENV) with $$found"; \
	$$found -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "$$found cannot make environments (Debian: apt-get install python3-venv)." >&2; exit 1; }

$(BASE): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	touch $@

# The base is part of it.
$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[cluster,dev]'
	touch $(BASE) $@

# The tests of sandboxes fail where there is no bubblewrap: what they claim would not have been tried.
install-bubblewrap:
	if ! command -v bwrap >/dev/null; then \
	    if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	        apt-get update -qq && apt-get install -y -qq --no-install-recommends bubblewrap >/dev/null; \
	    else \
	        echo 'bwrap is missing, in which programs are shut in (Debian, as root: apt-get install bubblewrap).' >&2; exit 1; \
	    fi; \
	fi

# Code of nodes may be JavaScript: its tests fail where there is no Node.js.
install-node:
	if ! command -v node >/dev/null; then \
	    if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	        apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs >/dev/null; \
	    else \
	        echo 'node is missing, which runs code in JavaScript (Debian, as root: apt-get install nodejs).' >&2; exit 1; \
	    fi; \
	fi

# Says itself what is missing (java, mvn) and how to get it. mongod needs libcurl4, which a bare machine may lack.
install-services: $(DEV)
	if ! PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q 'libcurl\.so\.4'; then \
	    if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	        apt-get update -qq && apt-get install -y -qq --no-install-recommends libcurl4 >/dev/null; \
	    else \
	        echo 'libcurl.so.4 is missing, which mongod needs (Debian, as root: apt-get install libcurl4).' >&2; exit 1; \
	    fi; \
	fi
	$(BIN)/python -m deploy.local install
