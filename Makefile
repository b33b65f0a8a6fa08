# Every target sets up what it needs in .venv; nothing else on the machine is changed but the
# caches of models and of the tests' jars, Kafka's and JDBC's (~/.cache/streamapp; Maven's own for the latter).
VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= python3
C      := $(wildcard streamapp/*/*.c streamapp/*/*.h include/*.h)

.PHONY: setup demo up kafka test check bench bench-footprint bench-gateway bench-models bench-ring bench-services bench-store bench-transport soak clean help
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.run: pyproject.toml setup.py docker/constraints.txt $(C)
	@echo "setting up $(VENV), which takes some minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -c docker/constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c docker/constraints.txt --group dev
	@touch $@

setup: $(VENV)/.dev  ## everything for development, models included
	@$(BIN)/streamapp models pull

demo: $(VENV)/.run  ## send messages through all four processes and show what comes out
	@$(BIN)/streamapp demo

up: $(VENV)/.run  ## run all four processes and show a live summary
	@$(BIN)/streamapp up

kafka: $(VENV)/.dev  ## one Apache Kafka broker on loopback until ctrl-C (PORT=9092; needs Java and Maven)
	@$(BIN)/python tests/kafka_broker.py run --port $(or $(PORT),9092)

check: $(VENV)/.dev  ## linters, types and floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

test: setup check  ## all tests; closes with what is not proven here
	@$(BIN)/python -m compileall -q -j 2 streamapp  # once, and not by every process where none is kept
	@$(BIN)/python -m pytest -m "not soak" -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/house/test_linters.py  # which is `check`

soak: setup  ## the long forms of the fault tests
	@$(BIN)/python -m pytest -m soak --timeout 7200

bench: setup  ## every benchmark; tables here, figures in bench/results/
	@for file in bench/bench_*.py; do $(BIN)/python $$file || exit 1; done

bench-transport: setup  ## our transports beside Faust, Quix Streams and aiokafka (about five minutes)
	@$(BIN)/python bench/bench_transport.py

bench-ring: setup  ## the ring beside memcpy, shared_memory, iceoryx2 and zmq (about four minutes)
	@$(BIN)/python bench/bench_ring.py

bench-store: setup  ## the store beside DuckDB, SQLite, Parquet (eight minutes); SOAK=1: ten minutes at work
	@$(BIN)/python bench/bench_store.py $(if $(SOAK),--soak)

bench-gateway: setup  ## the gateway beside bare aiohttp and others (five minutes); MEMORY=1: 200 clients while Kafka stands still
	@$(BIN)/python bench/bench_gateway.py $(if $(MEMORY),--memory)

bench-models: setup  ## models: how right and how fast, beside onnxruntime by hand and fastembed (a quarter of an hour)
	@$(BIN)/python bench/bench_models.py

bench-services: setup  ## text, data integration and inference, beside VADER and YAKE, pandas, direct calls (ten minutes)
	@$(BIN)/python bench/bench_services.py

bench-footprint: setup  ## memory of the four processes, idle and loaded
	@$(BIN)/python bench/bench_footprint.py

clean:  ## remove what was built
	rm -rf $(VENV) build dist *.egg-info streamapp/*/*.so
