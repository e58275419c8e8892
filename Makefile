# Everything runs from the checkout's root; `make` alone lists the targets.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
TALLYGATE := .venv/installed
SDKS := .clients/anthropic-0/installed .clients/anthropic-1/installed
NODE_SDK := tests/clients/node/node_modules/.installed
PEERS := .peers/litellm/installed .peers/portkey/installed

PIP_INSTALL := -m pip install --quiet --require-hashes --no-deps --only-binary :all:
UV := uv==0.13.9
PIP_AUDIT := pip-audit==2.10.0
UV_COMPILE := pip compile --no-config --quiet --universal --python-version 3.11 \
	--generate-hashes --only-binary :all: --no-annotate --custom-compile-command 'make lock'

# `check` runs its steps in this order even under -j, so that the tests' summary comes last.
.NOTPARALLEL:
# The tests that start servers, which take a while to be collected too.
ROOMS := clients e2e faults fuzz live
# What bench/bars-ci.json judges, and what that is compared with.
GATES := bare repeat zipf bare-own other-bytes miss-plain-httpx miss

.PHONY: help install run clients test processes faults lint format types floors starts gates check fuzz soak audit bench peers lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

install: $(TALLYGATE) ## Make .venv with exactly what requirements.lock names (PYTHON=python3.12 chooses the interpreter)

run: install ## Serve config.yaml in the foreground (WORKERS=2)
	@exec $(BIN)/sanic app.main --workers $(WORKERS)

clients: $(SDKS) $(NODE_SDK) ## Install the official SDKs that the tests put in front of the proxy

test: install clients ## Run the quick tests (ARGS='-k name' passes options to pytest)
	$(call and_alone,-n 4 $(ROOMS:%=--ignore=tests/%),not live and not slow and not processes)

processes: install clients ## Run the tests through server processes, real sockets and official clients, four at a time
	$(call and_alone,-n 4,processes and not live and not slow)

faults: install clients ## Run what is timed, one after the other: kills, reloads, limits, hits beside faults
	$(call and_alone,,slow and not live)

soak: install ## Run the server under everything at once for half an hour (SOAK_S=600)
	SOAK_S=$${SOAK_S:-1800} $(BIN)/pytest -m '' -rP tests/faults/test_soak.py $(ARGS)

audit: install ## Ask the advisories about every package that is locked: needs the network
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(PYTHON) -m venv "$$tmp"; "$$tmp/bin/pip" install --quiet $(PIP_AUDIT); \
	"$$tmp/bin/pip-audit" --strict --require-hashes --disable-pip -r requirements.lock

# Both outcomes stay in the output. A mistake in the command line (not status 1) is not tried again.
define and_alone
	@echo "pytest $(1) -m '$(2)' $(ARGS)"; $(BIN)/pytest $(1) -m '$(2)' $(ARGS) || { [ $$? -eq 1 ] \
	&& echo 'What failed may have had no processor in time: once more, one after the other.' \
	&& $(BIN)/pytest -m '$(2)' --last-failed --last-failed-no-failures none $(ARGS); }
endef

lint: install ## Check the style and the format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: install ## Repair the style and the format where that is safe
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install ## Check the types
	$(BIN)/mypy

floors: install ## Check who may import whom
	$(BIN)/lint-imports --no-logo
	@$(BIN)/python -I -c "$$NO_SHADOW" adapters app bench cache tests

# A module of the same name in the environment would hide ours: sanic appends the working directory
# to sys.path last.
define NO_SHADOW
import sys
from importlib.util import find_spec
found = [name for name in sys.argv[1:] if find_spec(name)]
sys.exit(f"installed packages hide the project's own: {', '.join(found)}" if found else 0)
endef
export NO_SHADOW

starts: install # sanic hides the true error of a failed import; this shows it
	$(BIN)/python -c 'import app.main'

gates: install ## Measure for a minute what must not become slower, in processor time beside a bare Sanic's
	$(BIN)/python -m bench --scenario $(GATES) --baseline bench/bars-ci.json $(ARGS)

check: lint types floors starts gates faults processes test ## All of the above, as CI runs it

fuzz: install ## Fuzz what reads a request (ARGS='--count 1000000 --seed 0')
	$(BIN)/python -m tests.fuzz.reading $(ARGS)

bench: install ## Measure (ARGS='--help' lists the scenarios)
	$(BIN)/python -m bench $(ARGS)

peers: $(PEERS) ## Install what `python -m bench peers` measures beside the proxy: LiteLLM, Portkey's gateway

lock: ## Renew the lock files after a change of pyproject.toml (ARGS=--upgrade takes newer releases)
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(PYTHON) -m venv "$$tmp"; "$$tmp/bin/pip" install --quiet $(UV); \
	compile() { "$$tmp/bin/uv" $(UV_COMPILE) $(ARGS) "$$@"; }; \
	compile --group dev pyproject.toml -o requirements.lock; \
	compile --constraint requirements.lock pyproject.toml -o deploy/requirements.lock; \
	echo 'anthropic==0.125.0' | compile - -o tests/clients/anthropic-0.lock; \
	echo 'anthropic==1.17.0' | compile - -o tests/clients/anthropic-1.lock; \
	echo 'litellm[proxy]==1.108.7' | compile - -o bench/peers/litellm.lock
	@if command -v npm >/dev/null; then for folder in tests/clients/node bench/peers; do \
		(cd $$folder && npm install --package-lock-only) || exit 1; done; fi

clean: ## Remove what the targets made
	rm -rf .venv .clients .peers tests/clients/node/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

$(TALLYGATE): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is too old: Python 3.11 or newer is needed (make PYTHON=...)")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python $(PIP_INSTALL) -r requirements.lock
	@touch $@

.clients/%/installed: tests/clients/%.lock
	$(PYTHON) -m venv --clear .clients/$*
	.clients/$*/bin/python $(PIP_INSTALL) -r $<
	@touch $@

$(NODE_SDK): tests/clients/node/package.json tests/clients/node/package-lock.json
	@if command -v npm >/dev/null; then \
		cd tests/clients/node && npm ci --ignore-scripts && touch node_modules/.installed; \
	else echo 'npm is missing: the tests with the TypeScript SDK will be skipped'; fi

.peers/litellm/installed: bench/peers/litellm.lock
	$(PYTHON) -m venv --clear .peers/litellm
	.peers/litellm/bin/python $(PIP_INSTALL) -r $<
	@touch $@

.peers/portkey/installed: bench/peers/package.json bench/peers/package-lock.json bench/peers/.npmrc
	@mkdir -p .peers/portkey && cp $^ .peers/portkey
	@if command -v npm >/dev/null; then cd .peers/portkey && npm ci --ignore-scripts && touch installed; \
	else echo 'npm is missing: Portkey'\''s gateway is not installed, and will not be measured'; fi
