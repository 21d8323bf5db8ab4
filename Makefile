# Every command of the kit. Works with GNU make 3.81; a recipe calls one, which also runs by itself: python scripts/kit

## CONFIG   the configuration file; default: the one that fits this machine
CONFIG ?=
## SET      overrides of its values: SET="training.learning_rate=1e-4 lora.r=32"
SET ?=
## OUT      merge: where the merged model goes
OUT ?=
## STACK    current or reference
STACK ?= current
## RUN      a run name or run directory; default: the newest
RUN ?=
## RECORD   detect: write this machine's facts to a file
RECORD ?=
## FROM     detect, validate, plan: judge the facts in that file instead of this machine
FROM ?=
## INPUT    data: files, folders, globs, - for standard input, hf:NAME
INPUT ?=
## A, B     diff-run: two run names or directories; default of B: the newest
A ?=
B ?=
## RESUME   train: auto resumes a stopped run, or starts where there is none (the container's default); never; a path
RESUME ?=
## ARGS     passed to the command unchanged
ARGS ?=
## IN       docker: detect and validate inside the image
IN ?=
## PYTHON   the Python that sets up: 3.9 or later
PYTHON ?= python3

ifneq ($(filter-out current reference,$(STACK)),)
$(error STACK=$(STACK): must be current or reference)
endif
ifneq ($(filter-out docker,$(IN)),)
$(error IN=$(IN): must be docker, or empty for this machine itself)
endif
ifneq ($(filter-out 1,$(GPUS)),)
$(error GPUS=$(GPUS): the kit trains on one GPU so far)
endif

ENVIRONMENT := $(if $(filter reference,$(STACK)),.venv-reference,.venv)
# Before setup there is no environment; detection and set-up then run with the machine's own Python.
# On a Mac, what setup_m4.sh made serves every command.
MAC_ENVIRONMENT := $(if $(filter current,$(STACK)),.venv-m4)
PY := $(firstword $(wildcard $(ENVIRONMENT)/bin/python $(MAC_ENVIRONMENT)/bin/python) $(PYTHON))
# Made by setup_m4.sh, or by `make setup` on a Mac from the same lock.
PY_M4 := $(firstword $(wildcard .venv-m4/bin/python .venv/bin/python) $(PYTHON))
SETUP := $(PYTHON) -m tools.setup_environment
# The image's default is the reference stack; everywhere else it is the current one.
IMAGE_STACK := $(if $(filter file,$(origin STACK)),reference,$(STACK))
RESUMED = $(if $(RESUME),--resume="$(RESUME)")
# An empty FLASH_ATTN_WHEEL leaves flash-attn out; one that is not given means the stack's own.
IMAGE = $(PYTHON) scripts/kit image --stack $(1) $(if $(BASE_IMAGE),--base-image "$(BASE_IMAGE)") \
  $(if $(filter undefined,$(origin FLASH_ATTN_WHEEL)),,--flash-attn-wheel "$(FLASH_ATTN_WHEEL)") \
  $(if $(FLASH_ATTN_SHA256),--flash-attn-sha256 "$(FLASH_ATTN_SHA256)") $(if $(BUILD_NETWORK),--network "$(BUILD_NETWORK)")

# bash execs a recipe's one command, so a SIGTERM to make reaches it; dash would exit and leave it running.
SHELL := $(firstword $(wildcard /bin/bash /usr/local/bin/bash) /bin/sh)
.DEFAULT_GOAL := help
.PHONY: help help-dev setup setup-m4 detect demo data validate plan config train train-m4 train-h100 report watch runs evaluate chat merge verify reproduce diff-run prove parity torture audit image image-check image-sbom shell-h100 demo-image bench-data bench-cli test test-image check format docs lock clean

##@ Start here
help: ## show this
	@awk -f tools/help.awk $(firstword $(MAKEFILE_LIST))

help-dev: ## show the targets for work on the kit too: measuring, testing, locks
	@awk -v dev=1 -f tools/help.awk $(firstword $(MAKEFILE_LIST))

setup: ## install the stack into .venv (STACK=reference: .venv-reference)
	@$(SETUP) --stack $(STACK) $(ARGS)

setup-m4: ## on a Mac: check it, install into .venv-m4, test the GPU (ARGS: --check, --dry-run, --uninstall)
	@./setup_m4.sh $(ARGS)

detect: ## detect the hardware and choose a configuration (RECORD, FROM, IN)
	@$(if $(IN),$(call IMAGE,$(IMAGE_STACK)) detect,$(PY) scripts/kit detect) $(if $(FROM),--from "$(FROM)") $(if $(RECORD),--record "$(RECORD)") $(ARGS)

demo: ## a real 4-bit fine-tuning run in minutes, on any machine
	@$(SETUP) --stack $(STACK)
	@$(ENVIRONMENT)/bin/python scripts/kit demo $(ARGS)

clean: ## remove the environments and caches; outputs/ and models/ stay
	rm -rf .venv .venv-dev .venv-m4 .venv-reference .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

##@ Data
data: ## check, split and write training rows (INPUT, CONFIG; ARGS: --audit, --dedupe exact, --on-bad-row drop, --map)
	@$(PY) scripts/kit data $(INPUT) $(if $(CONFIG),--config "$(CONFIG)") $(ARGS)

##@ Train
validate: ## check environment, configuration, model and data together (CONFIG, SET, FROM, STACK, IN)
	@$(if $(IN),$(call IMAGE,$(IMAGE_STACK)) validate,$(PY) scripts/kit validate) $(CONFIG) $(SET) $(if $(FROM),--from "$(FROM)" $(if $(IN)$(filter file,$(origin STACK)),,--stack $(STACK))) $(ARGS)

plan: ## estimate a run's memory and time, and list faster settings (CONFIG, SET, FROM, STACK)
	@$(PY) scripts/kit plan $(CONFIG) $(SET) $(if $(FROM),--from "$(FROM)") $(if $(filter file,$(origin STACK)),,--stack $(STACK)) $(ARGS)

config: ## print the resolved configuration with the origin of each value (CONFIG, SET)
	@$(PY) scripts/kit config $(CONFIG) $(SET) $(ARGS)

train: ## train (CONFIG, SET, RESUME; ARGS: --auto-fit, --auto-fit=fast)
	@$(PY) scripts/kit train $(CONFIG) $(SET) $(RESUMED) $(ARGS)

# PyTorch lets MPS take 1.7 times Metal's working set: with two thirds of 32 GB, 22.9 GB x 1.7 = 38.9 GB, beyond the
# 34.4 GB there are, so the Mac swaps for hours instead of failing. 1.0 stops at the working set with an error that says
# so, and is what `make plan` compares with; every run on a Mac sets the same (scripts/kit/machine/metal.py). The low
# mark, from which memory is given back early, is 1.4 by default and must not be above the high one.
# PYTORCH_ENABLE_MPS_FALLBACK is left alone: it would run what MPS lacks on the CPU, slower and on another device than
# the receipt says. Without it such an operation stops the run and is named.
train-m4: ## train on this Mac, within Metal's share of its memory (CONFIG, SET, RESUME)
	@PYTORCH_MPS_HIGH_WATERMARK_RATIO="$${PYTORCH_MPS_HIGH_WATERMARK_RATIO:-1.0}" \
	PYTORCH_MPS_LOW_WATERMARK_RATIO="$${PYTORCH_MPS_LOW_WATERMARK_RATIO:-0.9}" \
	$(PY_M4) scripts/kit train $(or $(CONFIG),configs/training_config_m4.yaml) $(SET) --require m4 $(RESUMED) $(ARGS)

train-h100: ## on an NVIDIA host: check it and the image, validate inside, then train (CONFIG, SET, STACK, RESUME)
	@$(call IMAGE,$(IMAGE_STACK)) train $(or $(CONFIG),configs/training_config_h100.yaml) $(SET) $(RESUMED) $(ARGS)

##@ Use
report: ## write a run's report: one page, and its curves as a picture (RUN)
	@$(PY) scripts/kit report $(if $(RUN),"$(RUN)") $(ARGS)

watch: ## follow a run live (RUN; ARGS: --once)
	@$(PY) scripts/kit watch $(if $(RUN),"$(RUN)") $(ARGS)

runs: ## list the runs on this machine (ARGS: --sort loss, --json)
	@$(PY) scripts/kit runs $(ARGS)

evaluate: ## compare the adapter with its base: loss, perplexity, exact match, ROUGE, samples (RUN)
	@$(PY) scripts/kit evaluate $(if $(RUN),"$(RUN)") $(ARGS)

chat: ## chat with base + adapter; /base to compare (RUN)
	@$(PY) scripts/kit chat $(if $(RUN),"$(RUN)") $(ARGS)

merge: ## merge the adapter into its base, and compare the logits (RUN, OUT)
	@$(PY) scripts/kit merge $(if $(RUN),"$(RUN)") $(if $(OUT),--out "$(OUT)") $(ARGS)

##@ Prove
verify: ## recompute every checksum of a run (RUN)
	@$(PY) scripts/kit verify $(RUN) $(ARGS)

reproduce: ## retrain a finished run and compare, bit by bit (RUN; SET: new paths of files; ARGS: --check-only, --out)
	@$(PY) scripts/kit reproduce $(if $(RUN),"$(RUN)") $(SET) $(ARGS)

diff-run: ## compare two runs: differences, first differing step, likely cause (A, B; ARGS: --json)
	@$(PY) scripts/kit diff-run $(if $(A),"$(A)") $(if $(B),"$(B)") $(ARGS)

parity: ## train a small canonical model and compare every number with the formulas (STACK; ARGS: --against FILE)
	@$(PY) scripts/kit parity $(ARGS)

##@ Container
image: ## build the image (STACK; BASE_IMAGE, FLASH_ATTN_WHEEL, FLASH_ATTN_SHA256, BUILD_NETWORK)
	@$(call IMAGE,$(IMAGE_STACK)) build

image-check: ## check whether this machine can build the image and train in it
	@$(call IMAGE,$(IMAGE_STACK)) check $(ARGS)

shell-h100: ## a shell in the image
	@$(call IMAGE,$(IMAGE_STACK)) shell $(ARGS)

demo-image: ## the demo inside the image, on the CPU (the current stack)
	@$(call IMAGE,$(STACK)) demo $(ARGS)

##@@ Measure the kit
prove: ## measure this device and the kit on it: speed, memory, parity, a first run (IN; ARGS: --limit SECONDS, --list)
	@$(if $(IN),$(call IMAGE,$(IMAGE_STACK)) prove,$(PY) -m bench.prove) $(ARGS)

bench-data: ## measure data preparation against TRL and LLaMA-Factory (ARGS: --rows 10000 100000)
	@$(PY) -m bench.bench_data $(ARGS)

bench-cli: ## measure the time to detection, validation and the first step (ARGS)
	@$(PY) -m bench.bench_cli $(ARGS)

##@@ Work on the kit
torture: ## kill runs, fail writes, feed in damaged configs, rows and files (STACK; ARGS: --only PART, --seed N)
	@PYTHONPATH=tests $(PY) -m torture $(ARGS)

audit: ## look for known vulnerabilities in the locked packages (ARGS: --lock NAME)
	@$(PY) -m tools.vulnerabilities $(ARGS)

image-sbom: ## list the Python packages of the image: outputs/sbom-STACK.cdx.json (FLASH_ATTN_WHEEL)
	@$(PYTHON) -m tools.image_sbom --stack $(IMAGE_STACK) $(if $(filter undefined,$(origin FLASH_ATTN_WHEEL)),,--flash-attn-wheel "$(FLASH_ATTN_WHEEL)") $(ARGS)

test: ## all tests, on both stacks
	@$(SETUP)
	@$(SETUP) --dev
	@.venv/bin/python -m tools.run_tests $(ARGS)

test-image: ## build both images and test them, where there is a Docker engine
	@$(SETUP)
	@$(PYTHON) -m tools.run_image_tests $(ARGS)

check: ## the gate: format, lint, types, shell, locks, tracked files, fast tests
	@$(SETUP)
	@$(SETUP) --dev
	@.venv/bin/python -m tools.check $(ARGS)

format: ## format every file as the gate requires
	@$(SETUP) --dev
	@.venv-dev/bin/ruff check --quiet --fix-only .
	@.venv-dev/bin/ruff format .

docs: ## generate the parts of docs/ from the schema, the receipt's keys and the ledger (ARGS: --check)
	@$(PY) -m tools.document $(ARGS)
	@$(PY) -m bench.document $(ARGS)

lock: ## compile the locks from locks/*.in, and list the changes (ARGS: --check, --upgrade, --summary FILE)
	@$(PYTHON) -m tools.lock $(ARGS)
