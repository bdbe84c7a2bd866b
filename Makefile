# Verbs of the project; `make help` lists them. Needs Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECORDINGS ?= ../shared/recordings
CASES ?= ../shared/cases
STAMP := $(VENV)/.installed
TOOLS := $(VENV)/.tools
# Without byte code: that of a tenth of all files is ever used. What most verbs import has it made
# once, before processes side by side would each make it, or an environment forbids it.
IMPORTED := numba, polars, pyarrow.compute, llvmlite.binding, rich.table, replay.cli, \
  replay.compare.sides, replay.report.trace_info, replay.runs.c_rows, replay.truth.verify.recording
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-compile
REQUESTS ?= 10000000
MUTANT_REQUESTS ?= 1000000
TREES ?=
EMULATED := --set emulated="QEMU TCG"

.DEFAULT_GOAL := help
.PHONY: help run test bench lint golden traces verify cases twin fuzz fuzz-import fuzz-files \
  fuzz-signals fuzz-report fuzz-truncate noise wheel witness mutants dom0 pairs recorder kernel-source \
  browser tracers otava docs clean

help: ## List the verbs
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "replay needs Python 3.11 or later; pass PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.lock
	$(PIP) --no-build-isolation --config-settings editable_mode=compat -e .
	$(BIN)/python -m compileall -q replay
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import $(IMPORTED)'
	@touch $@

$(TOOLS): $(STAMP) tests/requirements.lock
	$(PIP) -r tests/requirements.lock
	@touch $@

# Not a file: whether the cache of compiled code is warm depends on the content of the sources.
.PHONY: ready
ready: $(STAMP)
	@echo "compiling what tests run (minutes the first time, then nothing)"
	@$(BIN)/replay warm

run: $(STAMP) ## Set up, then replay a real PVH dom0 through the four strategies
	$(BIN)/replay run traces/pvh-dom0.arrow

# What could not be fetched: the tests that need it are skipped, and named at the end.
WITHOUT := $(VENV)/.not-fetched
.PHONY: fetch
fetch: $(TOOLS)
	@rm -f $(WITHOUT)
test: ready fetch browser tracers kernel-source otava ## Set up, then run the tests
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests

bench: ready $(TOOLS) ## Measure the program itself (pytest-benchmark, with result digests)
	$(BIN)/python -m pytest -q benchmarks -p no:xdist --benchmark-only \
	  $(JSON:%=--benchmark-json=%) $(BENCH)

lint: $(TOOLS) ## ruff and mypy
	$(BIN)/ruff check replay tests benchmarks docs
	$(BIN)/mypy replay docs/*.py

twin: ready $(TOOLS) ## The tests of compiled = interpreted = bounds-checked
	$(BIN)/python -m pytest -q tests/engine/test_twin.py

fuzz: ready $(TOOLS) ## The long lockstep fuzz: 200,000 requests per strategy
	REPLAY_FUZZ_REQUESTS=200000 $(BIN)/python -m pytest -q -n 2 tests/allocators/test_lockstep.py

MODE ?= pv
# What else run.sh knows: CLOCK=instructions, TURNS=50, POOL=0 (x86), REGIONS=0 (arm64), LOADS="storm low", SEED, MEMORY, ...
dom0: ready ## Record a real dom0 under QEMU (root, Debian; SUITE=, MODE=pv|pvh|arm64, LOADS=, SEED=)
	tests/dom0/run.sh $(or $(SUITE),bookworm) $(MODE)

# One list of requests, served by the pool and by the balloon of the same kernel: four machines, of
# some four minutes each. Archives and how each was made stay in build/dom0. The -again traces are
# further recordings of the same with other disk images, and stay.
PAIR_LOAD := PV dom0: one task that grants and maps its own pages, the same list of requests once \
served by the pool and once by the balloon, with
PAIR_NO_POOL_debian := initcall_blacklist=unpopulated_init
PAIR_NO_POOL_built := a kernel of the same source without CONFIG_XEN_UNPOPULATED_ALLOC
pairs: ready ## Record the pairs of traces/pairs anew (root, Debian); builds two kernels
	@for kernel in debian built; do for load in paced dense; do for of in pool balloon; do \
	  without="$(PAIR_NO_POOL_debian)"; test $$kernel = debian || without="$(PAIR_NO_POOL_built)"; \
	  pool=1; test $$of = pool || pool=0; \
	  name=$$load-$$of; test $$kernel = debian || name=$$load-built-$$of; \
	  LOADS=$$load POOL=$$pool KERNEL=$$kernel RUN=$$name CLOCK=instructions TURNS=50 CHECKS=quick \
	    tests/dom0/run.sh bookworm pv && \
	  $(BIN)/replay import build/dom0/$$name/out/$$load.tar.zst -o traces/pairs/$$name.arrow \
	    --set emulated="QEMU TCG, 2 ns per instruction" --set description="$(PAIR_LOAD) $$without" || exit 1; \
	done; done; done

recorder: ## Pack `replay record` into one file for a dom0 (Python 3.9+): replay-record.pyz
	@$(PYTHON) -m replay.record.bundle replay-record.pyz

wheel: $(STAMP) ## Build a wheel that runs at once, with a trace and compiled code: build/wheel
	@$(BIN)/python packaging/wheel.py build/wheel

SERIES ?= 500
noise: ready $(TOOLS) ## The long form of a year of noise: SERIES of them through the search for changes
	REPLAY_NOISE_SERIES=$(SERIES) $(BIN)/python -m pytest -q -n 2 tests/gate/test_drift.py

INPUTS ?= 1000000
JOBS ?= $(shell nproc)
FROM ?= 0
fuzz-import: ready $(TOOLS) ## The long import fuzz: a million damaged inputs per format, bounds checked
	@cd tests/support && for format in "trace.dat" "ftrace text" "xentrace"; do \
	  PYTHONPATH=../naive NUMBA_BOUNDSCHECK=1 ../../$(BIN)/python import_fuzz.py "$$format" --from $(FROM) \
	    --inputs $(INPUTS) --jobs $(JOBS) || exit 1; \
	done

FILES ?= traces machines tables histories runs sequences
fuzz-files: ready $(TOOLS) ## The long fuzz of files: INPUTS damaged ones per kind (FILES=traces ..., CGROUP=1)
	@cd tests/support && for kind in $(FILES); do \
	  PYTHONPATH=../naive ../../$(BIN)/python file_fuzz.py "$$kind" --from $(FROM) \
	    --inputs $(INPUTS) --jobs $(JOBS) $(if $(CGROUP),--group) || exit 1; \
	done

N ?= 1000
fuzz-signals: ready $(TOOLS) ## N signals at random moments over all verbs that write: nothing is half-written
	@cd tests/support && PYTHONPATH=../naive ../../$(BIN)/python signals_fuzz.py --signals $(N) \
	  --from $(FROM) --jobs $(JOBS)

fuzz-report: ready $(TOOLS) ## Damaged trace.dat files whose fields trace-cmd prints as well (INPUTS=, default a million)
	@cd tests/support && PYTHONPATH=../naive ../../$(BIN)/python report_fuzz.py --inputs $(INPUTS) --from $(FROM)

fuzz-truncate: ready $(TOOLS) ## Every recording, cut at 75,000 places each
	@cd tests/support && PYTHONPATH=../naive ../../$(BIN)/python truncation.py --from $(FROM) --jobs $(JOBS)

# Without root: the package is fetched and unpacked into the cache, not installed. With SUITE= it is
# that suite's newest, or KERNEL=, through package lists of its own: the machine's stay as they are.
CACHE := $(or $(REPLAY_CACHE_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/replay)
PACKAGE := $(CACHE)/kernel-package
KERNEL ?= [0-9.]*
LISTS := $(PACKAGE)/lists/$(SUITE)
APT := -o Dir::Etc::sourcelist=$(LISTS)/sources -o Dir::Etc::sourceparts=- \
  -o Dir::State::lists=$(LISTS)/lists -o Dir::Cache=$(LISTS)/cache -o APT::Sandbox::User=root
kernel-source: ## Fetch the kernel's source package (Debian, Ubuntu): SUITE=trixie-backports KERNEL=7.3
ifeq ($(SUITE),)
	@ls /usr/src/linux-source-*.tar.* $(PACKAGE)/usr/src/linux-source-*.tar.* 2>/dev/null | head -1 | \
	  grep . || { mkdir -p $(PACKAGE) && cd $(PACKAGE) && \
	  package=$$(apt-cache search --names-only '^linux-source-[0-9.]*$$' | sort -V | head -1 | \
	    cut -d' ' -f1) && test -n "$$package" && apt-get download -qq "$$package" && \
	  dpkg-deb -x "$$package"_*.deb . && rm -f "$$package"_*.deb; } || \
	  { echo kernel-source >> $(abspath $(WITHOUT)); \
  echo "no kernel source package can be had here: what needs one is skipped"; }
else
	@trap 'rm -rf $(LISTS)' EXIT; mkdir -p $(LISTS)/lists/partial $(LISTS)/cache/archives/partial && cd $(LISTS) && \
	  of=$$(case $(SUITE) in *-security) echo security;; *) echo 'debian/\|ubuntu/\|ports';; esac) && \
	  mirror=$$(apt-get indextargets --format '$$(REPO_URI)' | sort -u | grep "$$of" | \
	    grep -v "^cdrom" | { test "$$of" = security && cat || grep -v security; } | head -1) && \
	  { test -n "$$mirror" || { echo "no mirror among the package lists of this machine"; exit 2; }; } && \
	  echo "deb [signed-by=$$(ls /usr/share/keyrings/*-archive-keyring.gpg | \
	    grep -e debian -e ubuntu | head -1)] $$mirror $(SUITE) main" > sources && \
	  apt-get $(APT) -qq update && \
	  package=$$(apt-cache $(APT) search --names-only '^linux-source-$(KERNEL)$$' | sort -V | \
	    tail -1 | cut -d' ' -f1) && \
	  { test -n "$$package" || { echo "$(SUITE) has no linux-source-$(KERNEL)"; exit 2; }; } && \
	  apt-get $(APT) -qq download "$$package" && dpkg-deb -x "$$package"_*.deb $(PACKAGE) && \
	  ls $(PACKAGE)/usr/src/"$$package".tar.*
endif

browser: ## Install Chromium and its driver (Debian, Ubuntu; as root), for the tests of pages
	@command -v chromedriver > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && \
	  { apt-get install -y -qq chromium chromium-driver || \
	  { apt-get update -qq && apt-get install -y -qq chromium chromium-driver; }; } > /dev/null 2>&1; } || \
	  { echo browser >> $(WITHOUT); \
  echo "no Chromium can be had here: the tests of pages in a browser are skipped"; }

tracers: ## Fetch trace-cmd and xenalyze (Debian, Ubuntu), for the tests beside them
	@for program in trace-cmd xenalyze; do \
	  tests/support/tracers.sh $(CACHE)/tracers $$program > /dev/null 2>&1 || \
	  { echo tracers >> $(WITHOUT); \
	  echo "no $$program can be had here: the tests beside it are skipped"; }; done

OTAVA := .otava
otava: ## Install Apache Otava into an environment of its own, for the test side by side with it
	@test -f $(OTAVA)/.installed -a ! tests/support/otava.txt -nt $(OTAVA)/.installed || \
	  { $(PYTHON) -m venv $(OTAVA) && $(OTAVA)/bin/pip install --quiet \
	  --disable-pip-version-check --no-deps -r tests/support/otava.txt && touch $(OTAVA)/.installed; } || \
	  { rm -rf $(OTAVA); echo otava >> $(WITHOUT); \
	  echo "no Apache Otava can be had here: its tests are skipped"; }

witness: ready ## Models against the kernel's own source: 10 million requests per strategy
	$(BIN)/replay witness --requests $(REQUESTS) $(TREES:%=--kernel-tree %)

mutants: ready $(TOOLS) ## Mistakes put into the kernel's source: which of them the witness notices
	@trees="$(or $(TREES),$(wildcard /usr/src/linux-source-*.tar.* $(PACKAGE)/usr/src/linux-source-*.tar.*))" && \
	  { test -n "$$trees" || { echo "no kernel source: make kernel-source"; exit 2; }; } && \
	  mkdir -p build && REQUESTS=$(MUTANT_REQUESTS) $(BIN)/python tests/support/mutants.py $$trees \
	    > build/mutants.json && $(BIN)/python docs/results.py mutants build/mutants.json

docs: $(STAMP) ## Build the documentation from the sources into build/site
	@$(PIP) -r docs/requirements.lock
	$(BIN)/mkdocs build --quiet -f docs/mkdocs.yml
	@echo "build/site/index.html"

golden: ready $(TOOLS) ## Re-record the golden summaries of the shipped traces
	REPLAY_RECORD_GOLDEN=1 $(BIN)/python -m pytest -q tests/test_golden.py

# A recording is a folder with a trace.dat and the machine's files beside it, or an archive of
# `replay record`, which holds them; one archive more than the folder's name goes by both names.
verify: ready ## Verify all recordings below RECORDINGS, and note the results in the docs
	@rm -f reports/verify/*.json; status=0; \
	for source in $(wildcard $(RECORDINGS)/*/trace.dat $(RECORDINGS)/*/*.tar.*); do \
	  dir=$$(dirname $$source); name=$$(basename $$dir); machine="--machine $$dir"; \
	  case $$source in *.tar.*) machine=; stem=$$(basename $${source%.tar.*}); \
	    test $$stem = $$name || name=$$name-$$stem;; esac; out=reports/verify/$$name; \
	  $(BIN)/replay import $$source -o $$out.arrow $$machine $(EMULATED) > /dev/null && \
	  $(BIN)/replay verify $$out.arrow --json > $$out.json || \
	  { status=1; $(BIN)/replay verify $$out.arrow; test -s $$out.json || rm -f $$out.json; }; \
	done; $(BIN)/python docs/results.py verify reports/verify/*.json && exit $$status

cases: ready $(TOOLS) ## Try the public cases below CASES, and note in the docs which come out right
	@mkdir -p build; REPLAY_CASES=$(abspath $(CASES)) $(BIN)/python -m pytest -q -m case \
	  --junitxml=build/cases.xml tests; status=$$?; \
	$(BIN)/python docs/results.py cases build/cases.xml && exit $$status

# Variables, since a comma in the text of a $(call) would end the argument.
PVH_LOAD := PVH dom0: two PV guests created with xl and doing block I/O, \
blkback without persistent grants and page cache
PV_LOAD := PV dom0: guests with block I/O, blkback without persistent grants and page cache; \
ftrace and xentrace merged: both read the host's TSC
ARM_LOAD := direct-mapped arm64 dom0 with extended regions: load programs, guests, I/O, a core dump, \
create and destroy, exhaustion, in ten marked phases
BALLOON_LOAD := direct-mapped arm64 dom0 with ext_regions=0, so that the balloon serves all calls: \
the same list of operations as arm64-dom0

# recording, its sources, trace, how it was recorded
define make-trace
$(BIN)/replay import $(addprefix $(RECORDINGS)/$(1)/,$(2)) -o traces/$(3).arrow \
	  --machine $(RECORDINGS)/$(1) $(EMULATED) --set description="$(4)"
endef

traces: ready ## Rebuild the shipped traces from the recordings below RECORDINGS
	$(call make-trace,x86-pvh-guests,trace.dat,pvh-dom0,$(PVH_LOAD))
	$(call make-trace,x86-pv-blkback,trace.dat xentrace.bin.gz,pv-dom0,$(PV_LOAD))
	$(call make-trace,arm64-regions,trace.dat,arm64-dom0,$(ARM_LOAD))
	$(call make-trace,arm64-no-regions,trace.dat,arm64-dom0-no-regions,$(BALLOON_LOAD))
	$(BIN)/replay synth -o traces/synthetic-mixed.arrow --seed 1 --seconds 20 --compression zstd

clean: ## Remove the environment and the results of runs
	rm -rf $(VENV) $(OTAVA) build *.egg-info
	find reports -mindepth 1 -maxdepth 1 \( -type d ! -name baseline -o -name latest \) -exec rm -rf {} +
