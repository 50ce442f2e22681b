# Each target makes what it needs: .venv with the locked packages, by uv where it is on PATH, else by
# Python's own venv. A second run starts at once.
#
#   make run ARGS="--port 8080"     serve
#   make test ARGS="-k session"     the tests
#   make test-postgres              those that use a database, on PostgreSQL
#   make test-slow                  those that start browsers, or many servers
#   make check                      linter, formatter, types, the house's own rules
#   make sdk                        the Python SDK: its types and its tests
#   make bench-sdk                  what it costs an application, and what a restart loses
#   make compat                     OpenAI's own test suite through the proxy
#   make fuzz                       the whole API, asked whatever its description allows, and more
#   make otel                       real exporters of OpenTelemetry, unmodified, send traces here
#   make mcp                        MCP's official client reads by way of the MCP server
#   make docs                       docs/api.md, out of the description
#   make differential               raw-socket cases beside nginx; the table of docs/robustness.md
#   make torture                    kill -9 under load, floods, bombs: slow and heavy tests
#   make torture-quick              the store's part of it, in 4 minutes
#   make bench                      speed, against references measured in the same run
#   make soak MINUTES=1             500 streams with faults of all kinds: memory, rows (10 minutes)
#   make bench-purge                what a purge costs the calls that go on meanwhile
#   make bench-search               lists and search in a large database
#   make bench-databases            SQLite and PostgreSQL side by side: reads, plans, writes
#   make bench-move                 a large database to PostgreSQL, in one go and killed twice
#   make screenshots                pictures of all pages, in build/screenshots (needs chromium)
#   make sdk-ts                     the TypeScript SDK: compiled, tested (needs Node 20 and npm)
#   make lock                       new versions into the lock files (needs uv)
#   make clean                      remove .venv and all caches

PYTHON := .venv/bin/python
# Bytecode is kept, whatever the environment says: tests start a hundred processes, and to compile
# the sources anew takes each of them half a second.
export PYTHONDONTWRITEBYTECODE :=
# Tests keep their files in memory where that is a file system: a disk that others use makes a commit
# take seconds, and what is tested is not the disk.
export PYTEST_DEBUG_TEMPROOT ?= $(shell df -Pk /dev/shm 2>/dev/null | \
	awk 'NR == 2 && $$4 > 4000000 { print "/dev/shm" }')
ARGS ?=
MINUTES ?= 10

.PHONY: run test test-postgres test-slow check sdk sdk-ts bench-sdk compat fuzz otel mcp docs \
	differential torture torture-quick bench bench-purge bench-search bench-databases bench-move soak screenshots \
	lock clean runtime tools

run: runtime
	@exec $(PYTHON) -m proxy serve $(ARGS)

# The SDK has a target of its own.
test: tools
	@$(PYTHON) -m pytest -n auto -m "not kill and not torture and not slow" \
		--ignore tests/sdk_python --ignore tests/acceptance/test_sdk_python.py $(ARGS)

# Its server comes out of a wheel. Forwarding, pages and commands are the same on both.
test-postgres: tools
	@$(PYTHON) -m pytest -n auto --database postgresql -m "not kill and not torture" \
		tests/storage tests/api tests/test_recorder*.py tests/test_recording*.py tests/test_backlog.py \
		tests/test_forward_budget.py tests/test_budget.py tests/test_app.py $(ARGS)

test-slow: tools
	@$(PYTHON) -m pytest -n auto -m "slow and not kill and not torture" $(ARGS)

check: tools
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(PYTHON) -m mypy --config-file sdk/python/pyproject.toml
	@$(PYTHON) -m pytest tests/test_house.py

sdk: tools
	@$(PYTHON) -m mypy --config-file sdk/python/pyproject.toml
	@$(PYTHON) -m pytest tests/sdk_python tests/acceptance/test_sdk_python.py $(ARGS)

bench-sdk: runtime
	@$(PYTHON) sdk/python/bench.py $(ARGS)

compat: runtime
	@$(PYTHON) tests/compat/openai_suite.py

fuzz: tools
	@$(PYTHON) -m tests.fuzz $(ARGS)

otel: tools
	@$(PYTHON) -m tests.otel $(ARGS)

mcp:
	@.ci/venv .venv/mcp requirements.lock.txt
	@.ci/venv .venv/mcp requirements-dev.lock.txt
	@.ci/venv .venv/mcp tests/acceptance/mcp.lock.txt
	@.venv/mcp/bin/python -m pytest tests/acceptance/test_mcp.py $(ARGS)

docs: runtime
	@$(PYTHON) -m proxy.api.reference > .api.md.new && mv .api.md.new docs/api.md

differential: tools
	@$(PYTHON) -m tests.differential.run $(ARGS)

torture: tools
	@$(PYTHON) -m pytest -m "kill or torture" $(ARGS)

torture-quick: tools
	@TORTURE=quick $(PYTHON) -m pytest -m "kill or torture" tests/test_kill.py \
		tests/test_faults_at_each_step.py tests/torture/test_storage.py \
		tests/torture/test_replicas.py $(ARGS)

bench: runtime
	@$(PYTHON) -m bench $(ARGS)
	@$(PYTHON) -m bench.conversations

bench-purge: runtime
	@$(PYTHON) -m bench.purge $(ARGS)

bench-search: runtime
	@$(PYTHON) -m bench.search $(ARGS)

bench-databases: tools
	@$(PYTHON) -m bench.databases $(ARGS)

bench-move: tools
	@$(PYTHON) -m bench.move $(ARGS)

soak: runtime
	@$(PYTHON) -m bench.soak --minutes $(MINUTES) $(ARGS)

screenshots: tools
	@$(PYTHON) -m tests.ui.screenshots build/screenshots

# The lock holds names, versions and hashes, no address of a registry.
sdk-ts: runtime
	@! grep -n '"resolved"' sdk/typescript/package-lock.json
	@cd sdk/typescript && { cmp -s package-lock.json node_modules/.installed-lock.json || \
		{ npm ci --silent --ignore-scripts && cp package-lock.json node_modules/.installed-lock.json; }; }
	@cd sdk/typescript && npm test --silent

runtime:
	@.ci/venv .venv requirements.lock.txt

tools: runtime
	@.ci/venv .venv requirements-dev.lock.txt

# Hashes of every file of each version, so that one lock serves all systems and Pythons; no address
# of a registry, so that it serves behind a mirror too.
LOCK := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header

lock:
	@$(LOCK) --extra postgres pyproject.toml --output-file requirements.lock.txt
	@$(LOCK) --constraint requirements.lock.txt --group dev pyproject.toml \
		--output-file requirements-dev.lock.txt
	@$(LOCK) tests/compat/requirements.in --output-file tests/compat/requirements.lock.txt
	@$(LOCK) tests/fuzz/requirements.in --output-file tests/fuzz/requirements.lock.txt
	@$(LOCK) tests/otel/requirements.in --output-file tests/otel/requirements.lock.txt
	@$(LOCK) --constraint requirements-dev.lock.txt tests/acceptance/mcp.in \
		--output-file tests/acceptance/mcp.lock.txt

clean:
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	@rm -rf sdk/typescript/node_modules sdk/typescript/dist sdk/typescript/build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
