# make demo | test | check | install; see README.md
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SHIP   := .venv-ship
ENGINE ?= $(shell command -v podman || echo docker)
BASE   ?= python:3.13-slim
# The oldest the chart supports, and the two newest.
KUBERNETES := 1.30 1.36 1.37
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' adapter/__init__.py)
REVISION = $(shell git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)

RESOLVE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

.DEFAULT_GOAL := help
.PHONY: help install demo test torture check image chart cluster-test chart-pages ship-tools bench bench-smoke bench-compare bench-report sbom licences audit freeze lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/.installed ## install into .venv from the hash-locked requirements

$(VENV)/.installed: requirements-dev.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## the whole product against a supplier twin; KAFKA=host:port uses a real broker, KEEP=1 leaves it running
	@$(BIN)/adapter demo $(if $(KAFKA),--kafka $(KAFKA)) $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(KEEP),--keep)

test: install ## all tests, several at once; JOBS=0 in one process
	$(BIN)/python -m pytest --numprocesses=$(or $(JOBS),auto)

torture: install ## everything is killed, cut and frozen under load, by a seeded plan: MINUTES=20 SEED=7 REPORT=file.json
	$(BIN)/python -m tests.faults.torture $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(REPORT),--report $(REPORT))

check: install ## format, lint, types, import rules, schemas
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/adapter schemas check

image: install ship-tools ## build the image as fault-adapter:VERSION (and :latest), lint its file, try it in containers; BASE=image
	$(SHIP)/bin/hadolint Dockerfile
	$(ENGINE) build --build-arg BASE=$(BASE) \
	  --label org.opencontainers.image.version=$(VERSION) --label org.opencontainers.image.revision=$(REVISION) \
	  -t fault-adapter:$(VERSION) -t fault-adapter:latest .
	FAULT_ADAPTER_IMAGE=fault-adapter:$(VERSION) FAULT_ADAPTER_BASE=$(BASE) $(BIN)/python -m pytest tests/image

chart: install ship-tools ## lint, render and validate the Helm chart, and its rules and dashboard; needs helm and promtool
	helm lint --strict helm/fault-adapter -f helm/fault-adapter/examples/minimal.yaml --kube-version $(firstword $(KUBERNETES))
	mkdir -p build
	for version in $(KUBERNETES); do for example in minimal production; do \
	  helm template adapter helm/fault-adapter -n faults -f helm/fault-adapter/examples/$$example.yaml --kube-version $$version >build/$$example.yaml \
	  && $(SHIP)/bin/kubernetes-validate --strict --quiet --no-warn -k $$version build/$$example.yaml || exit 1; done; done
	$(BIN)/python -m pytest tests/chart

cluster-test: install ## the chart on the cluster kubectl points to: installed, upgraded under load, uninstalled; IMAGE=name:tag there
	FAULT_ADAPTER_CLUSTER_IMAGE=$(or $(IMAGE),fault-adapter:$(VERSION)) $(BIN)/python -m pytest -s tests/chart/test_cluster.py

chart-pages: install ## what the chart has from elsewhere (schema of the settings, README, dashboard), made anew
	$(BIN)/python helm/generate.py
	$(BIN)/python helm/dashboard.py

ship-tools: $(SHIP)/.installed # what image, chart, sbom, licences and audit need

$(SHIP)/.installed: requirements-ship.lock
	$(PYTHON) -m venv $(SHIP)
	$(SHIP)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-ship.lock
	@touch $@

bench: install ## measure, minutes: CASES="A B S L N R", or ARGS for python -m bench (--help lists them)
	$(BIN)/python -m bench $(or $(CASES),A B S L N R) $(ARGS)

bench-smoke: install ## the steps against the committed baseline, under a minute; ARGS=--update writes it anew
	$(BIN)/python -m bench.smoke $(ARGS)

bench-compare: install ## this product and two peers in turns, minutes (Java, Maven); ARGS for python -m bench.compare
	$(BIN)/python -m bench.compare $(ARGS)

sbom: ship-tools ## what is in the image, as CycloneDX in build/sbom.json
	mkdir -p build
	$(SHIP)/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json
	sed -i 's/^      "name": "fault-adapter",$$/&\n      "version": "$(VERSION)",/' build/sbom.json

licences: install ship-tools ## the licences of what is in the image, in build/licences.md
	mkdir -p build
	$(SHIP)/bin/pip-licenses --python $(BIN)/python --format markdown --with-urls --output-file build/licences.md \
	  --packages $$(sed -n 's/^\([a-z0-9-]*\)==.*/\1/p' requirements.lock)

audit: ship-tools ## known vulnerabilities of what is in the image; fails too if PyPI can't be asked about one of its packages
	$(SHIP)/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

bench-report: install ## the figures of docs/performance.md from bench/results/, with plots
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	$(BIN)/python -m bench.report

FROZEN := schemas/avro/released/$(VERSION)

freeze: ## copy the schemas of this version to schemas/avro/released/, once, when it is released
	@test ! -e $(FROZEN) || { echo "$(FROZEN) is there: what was released is never edited"; exit 1; }
	mkdir -p $(FROZEN)
	cp -r schemas/avro/commands schemas/avro/events schemas/avro/tickets schemas/avro/journal $(FROZEN)
	cd $(FROZEN) && find . -name '*.avsc' -printf '%P\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS

lock: ## resolve the dependencies anew (needs uv)
	$(RESOLVE) --extra tracing pyproject.toml -o requirements.lock
	$(RESOLVE) -c requirements.lock --group build -o requirements-build.lock
	$(RESOLVE) -c requirements.lock --extra tracing --group dev pyproject.toml -o requirements-dev.lock
	$(RESOLVE) -c requirements-dev.lock --group bench -o requirements-bench.lock
	$(RESOLVE) -c requirements-dev.lock --group ship -o requirements-ship.lock

clean: ## remove what the targets above made
	rm -rf $(VENV) $(SHIP) .mypy_cache .ruff_cache .pytest_cache .hypothesis
