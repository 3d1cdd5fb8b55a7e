# The command list: what people run and what CI runs are the same.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 3000
HOST ?= 127.0.0.1
DATA ?= data
SERVE := .venv-serve
FULL := .venv
export BENTOML_DO_NOT_TRACK := True

.PHONY: audit help serve test browser gpu lint train export load pacs pacs-kill fuzz schemathesis faults soak simulated-study bento image stand-ins \
  container locks sbom clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

# An environment is complete when its stamp is there; it is made anew when its lock file changes. One that is a link is somebody
# else's: it would be emptied.
$(SERVE)/.complete: requirements/service.txt
	@test ! -L $(SERVE) || { echo "$(SERVE) is a link to an environment older than $<: make that one anew where it belongs"; exit 1; }
	$(PYTHON) -m venv --clear $(SERVE)
	$(SERVE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

$(FULL)/.complete: requirements/full.txt
	@test ! -L $(FULL) || { echo "$(FULL) is a link to an environment older than $<: make that one anew where it belongs"; exit 1; }
	$(PYTHON) -m venv --clear $(FULL)
	$(FULL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

serve: $(SERVE)/.complete ## start the service with the shipped models on http://127.0.0.1:3000
	@printf '\nRadiolucent: http://%s:%s  (API documentation: /docs). Research use only.\nWhen it is up, try:\n\n' $(HOST) $(PORT)
	@printf '  curl -s http://%s:%s/v1/models | python3 -m json.tool | head\n' $(HOST) $(PORT)
	@printf '  curl -s -F model=brain-mri-resnet50 -F images=@docs/images/mni152-slice.png -F overlay=true \\\n    http://%s:%s/v1/explain -o answer.json\n\n' $(HOST) $(PORT)
	exec $(SERVE)/bin/python -m bentoml serve service.app:Radiolucent --host $(HOST) --port $(PORT)

TESTERS ?= 2
test: $(FULL)/.complete ## run the tests, in TESTERS processes (2)
	$(FULL)/bin/python -m pytest -n $(TESTERS) --dist loadfile

lint: $(FULL)/.complete ## style, types and import rules
	$(FULL)/bin/ruff check .
	$(FULL)/bin/ruff format --check .
	$(FULL)/bin/lint-imports
	$(FULL)/bin/pyright

train: $(FULL)/.complete ## train: make train CONFIG=training/configs/brain-mri-resnet50.toml DATA=... OUT=...
	$(FULL)/bin/python -m training train $(CONFIG) $(DATA) $(OUT) $(if $(INIT),--init $(INIT))

export: $(FULL)/.complete ## export: make export CHECKPOINT=... OUT=models/NAME [REPORT=...]
	$(FULL)/bin/python -m export $(CHECKPOINT) $(OUT) $(if $(REPORT),--report $(REPORT))

browser: $(FULL)/.complete ## the page in a real Chromium (Debian: apt install chromium)
	$(FULL)/bin/python -m pytest tests/browser

gpu: $(FULL)/.complete ## engine, methods and service on a real CUDA device
	$(FULL)/bin/python -m pytest tests/gpu

load: $(FULL)/.complete ## load-test the service, started here where none is; verdict and reports/load/index.html
	$(FULL)/bin/python -m loadtests --url http://$(HOST):$(PORT) $(LOAD)

pacs: $(FULL)/.complete ## the loop with a real Orthanc on loopback; SERIES="DIR ..." adds series of your own
	$(FULL)/bin/python -m tests.pacs $(SERIES)

pacs-kill: $(FULL)/.complete ## the same with 100 series while Orthanc, feed and service are killed at random
	$(FULL)/bin/python -m tests.pacs --kill

fuzz: $(FULL)/.complete ## 10,000 mutated DICOM files against the reader, 4,000 against the HTTP API
	$(FULL)/bin/python -m tests.fuzz --count 10000
	$(FULL)/bin/python -m tests.fuzz --count 4000 --doors

schemathesis: $(FULL)/.complete ## 200 generated requests to each operation of the OpenAPI document
	SCHEMATHESIS_EXAMPLES=200 $(FULL)/bin/python -m pytest tests/contract/test_schemathesis.py

faults: $(FULL)/.complete ## kill, starve and jam the real service under load (Debian: faketime); FAULTS="kill disk ..." picks
	$(FULL)/bin/python -m tests.faults $(FAULTS)

MINUTES ?= 20
soak: $(FULL)/.complete ## good and bad requests for MINUTES (20; a day are 1440): memory must stay flat
	$(FULL)/bin/python -m tests.soak --minutes $(MINUTES)

SIMULATED := docs/reports/reader-study-simulated
simulated-study: $(FULL)/.complete ## the simulated reader study of docs/reports anew, and what its intervals hold
	mkdir -p $(SIMULATED)
	$(FULL)/bin/python -m training study simulate reports/simulated-study --readers 6 --cases 60 --seed 0
	$(FULL)/bin/python -m training study analyse reports/simulated-study reports/simulated-study/report
	cp reports/simulated-study/parameters.json $(SIMULATED)/
	cd reports/simulated-study/report && cp report.html analysis.json recovered.json results.csv \
	  accuracy.png ratings.png recovery.png $(CURDIR)/$(SIMULATED)/
	$(FULL)/bin/python -m training study coverage $(SIMULATED)/coverage-crossover.json --studies 1500
	$(FULL)/bin/python -m training study coverage $(SIMULATED)/coverage-parallel.json --studies 1500 --cases 40 \
	  --design parallel

audit: $(FULL)/.complete ## known weaknesses of the locked packages; 2: the database cannot be asked
	$(FULL)/bin/python -m tests.audit

bento: $(SERVE)/.complete ## build the bento of bentofile.yaml
	$(SERVE)/bin/python -m bentoml build

# BASE: the base image. BUILD_OPTIONS and RUN_OPTIONS: further ones of podman build and run.
IMAGE ?= radiolucent:0.1.0
BASE ?= docker.io/library/python:3.11-slim-bookworm
image: ## build the container image: make image IMAGE=... BASE=... BUILD_OPTIONS="--build-arg CUDA=true"
	podman build --layers --format docker -f deploy/Containerfile --ignorefile deploy/Containerfile.dockerignore \
	  --build-arg BASE=$(BASE) --build-arg REVISION=$$(git rev-parse HEAD 2> /dev/null || echo unknown) $(BUILD_OPTIONS) -t $(IMAGE) .

stand-ins: ## what stands in for the archive and Prometheus in the test of deploy/compose.yaml
	podman build --layers --format docker -f tests/container/stand_ins/Containerfile --build-arg BASE=$(BASE) $(BUILD_OPTIONS) \
	  -t localhost/radiolucent-stand-ins tests/container/stand_ins

container: image stand-ins $(FULL)/.complete ## build the container image and check it, running it as it is meant to be
	RADIOLUCENT_IMAGE=$(IMAGE) RADIOLUCENT_RUN_OPTIONS="$(RUN_OPTIONS)" $(FULL)/bin/python -m pytest tests/container

locks: ## resolve the lock files anew (needs uv)
	uv pip compile -q pyproject.toml --extra train --extra load --extra dev --extra traces --extra backfill --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/full.txt
	uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate -c requirements/full.txt -o requirements/service.txt
	uv pip compile -q pyproject.toml --extra postgres --extra traces --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate -c requirements/full.txt -o requirements/container.txt
	uv pip compile -q pyproject.toml --extra postgres --extra traces --extra gpu --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate -c requirements/full.txt -o requirements/gpu.txt

sbom: $(FULL)/.complete ## bills of materials of the images anew, from the locks and the models
	for lock in container gpu; do $(FULL)/bin/python deploy/sbom.py requirements/$$lock.txt deploy/sbom/$$lock.cdx.json || exit; done

clean: ## remove environments and reports
	rm -rf $(SERVE) $(FULL) reports
