# make quickstart     environment, install, a leave-one-domain-out sweep on real data, the leaderboard
# make test           environment, then every check: format, lint, types, tests
# make docs           the documentation, into site/ (python3 -m http.server -d site shows it)
# make test-oldest    the tests with the oldest versions that setup.py allows, in an environment of their own
# make test-upstream  with DOMAINBED_DIR=...: our methods in that DomainBed checkout, its own unit tests over them too,
#                     and its algorithms in our engine
# make torture        the slow tests, then kills, full disks and launchers side by side, at a size that takes ten minutes
# make benchmark      cost of the methods as ratios, and whole runs (against DomainBed's with DOMAINBED_DIR=...), stored
#                     under benchmarks/results
# make clean          removes the environment and the quickstart's results

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RESULTS ?= results/quickstart
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.PHONY: help quickstart browser slurm test types tests test-oldest docs test-upstream checkout-named format torture benchmark clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

$(VENV)/ready: setup.py
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=...") if sys.version_info < (3, 10) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing domainbed-adm and its dependencies into $(VENV) (torch is about 5 GB, some minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[figures]'
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

quickstart: $(VENV)/ready
	$(BIN)/domainbed-adm sweep launch --sweep smoke --output_dir $(RESULTS) --jobs $(JOBS) --reuse_processes --skip_confirmation
	$(BIN)/domainbed-adm collect_results --input_dir $(RESULTS) --layout paper --selection training-domain
	$(BIN)/domainbed-adm report $(RESULTS)
	@echo "results: $(RESULTS)"

# Debian's browser, for the tests of the report; where it cannot be had they are skipped with a reason.
browser:
	@if ! { command -v chromium && command -v chromedriver; } >/dev/null && \
	    command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
	  echo "installing chromium for the tests of the report"; \
	  { timeout 300 apt-get -qq update && DEBIAN_FRONTEND=noninteractive timeout 600 \
	    apt-get -qq --no-install-recommends install -y chromium chromium-driver fonts-dejavu-core; } >/dev/null 2>&1 \
	    || echo "chromium could not be installed: those tests are skipped"; \
	fi

# Debian's Slurm, for the tests of its launcher, which start one of their own; where it cannot be had they are skipped
# with a reason. A machine that has a part of Slurm is left as it is; services that the installation starts are ended.
slurm:
	@PATH=$$PATH:/usr/sbin; if ! { command -v slurmctld || command -v slurmd || command -v munged; } >/dev/null && \
	    command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
	  echo "installing slurm-wlm and munge for the tests of the Slurm launcher"; \
	  { timeout 300 apt-get -qq update && DEBIAN_FRONTEND=noninteractive timeout 600 \
	    apt-get -qq --no-install-recommends install -y slurm-wlm munge; } >/dev/null 2>&1 \
	    || echo "slurm-wlm and munge could not be installed: those tests are skipped"; \
	  if test -d /run/systemd/system; then systemctl disable --now munge slurmctld slurmd >/dev/null 2>&1; fi; \
	fi

test: $(VENV)/ready-dev browser slurm
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory -j2 types tests

types: $(VENV)/ready-dev
	$(BIN)/mypy

tests: $(VENV)/ready-dev browser slurm
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

$(VENV)/ready-docs: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

docs: $(VENV)/ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "documentation: site/index.html, with search: $(PYTHON) -m http.server -d site"

# uv is pip's twin that can choose the lowest versions; bounds of other packages may ask for newer ones.
$(VENV)-oldest/ready: setup.py
	@test -x $(VENV)-oldest/bin/python || $(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(abspath $(VENV)-oldest) $(VENV)-oldest/bin/uv pip install --resolution lowest-direct --editable '.[dev]'
	@touch $@

test-oldest: $(VENV)-oldest/ready
	$(VENV)-oldest/bin/python -m pytest -n $(JOBS) --dist loadgroup

$(VENV)/ready-upstream: $(VENV)/ready-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[upstream]'
	@touch $@

checkout-named:
	@test -n "$(DOMAINBED_DIR)" || { echo "name the checkout: make test-upstream DOMAINBED_DIR=..."; exit 2; }

test-upstream: checkout-named $(VENV)/ready-upstream
	DOMAINBED_DIR=$(abspath $(DOMAINBED_DIR)) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile tests/upstream_real

format: $(VENV)/ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

torture: $(VENV)/ready-dev $(VENV)/ready-docs browser slurm
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m slow
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture

benchmark: $(if $(DOMAINBED_DIR),$(VENV)/ready-upstream,$(VENV)/ready)
	$(BIN)/python -m benchmarks.step_cost
	DOMAINBED_DIR=$(abspath $(DOMAINBED_DIR)) $(BIN)/python -m benchmarks.whole_runs

clean:
	rm -rf $(VENV) $(VENV)-oldest $(RESULTS)
