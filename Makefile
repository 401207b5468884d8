# `make demo` and `make test` set up everything they need in .venv; nothing else has to be installed first.
PYTHON ?= python3
BIN := .venv/bin
DEMO_ARGS :=
# One test process per core, one thread each (tests/conftest.py); a file's tests stay together.
TESTS := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile
ifdef QUICK
DEMO_ARGS := --set output=../../runs/demo-quick --set generate.safety_questions=12 --set generate.expert_questions=12 \
	--set generate.benign_questions=12 --set search.steps=4 --set search.finalists=2 --set evaluate.limit=10 \
	--set audit.rows=4 --set audit.path_steps=2
endif

.PHONY: demo test test-all lint format schemas clean

demo: .venv/ready
	$(BIN)/python examples/bunch/prepare.py
	$(BIN)/unspoiled run examples/bunch/run.yaml $(DEMO_ARGS)

test: .venv/ready
	$(TESTS)

test-all: .venv/ready
	$(TESTS) -m ""

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# After a change to the records of a result file; tests compare what is shipped with the records.
schemas: .venv/ready
	$(BIN)/python -c "from pathlib import Path; from unspoiled.audit import Audit; from unspoiled.evaluate import Results; \
		[Path(f'src/unspoiled/{path}.schema.json').write_text(file.json_schema_text(), encoding='utf-8') \
		for path, file in (('evaluate/results', Results), ('audit/audit', Audit))]"

clean:
	rm -rf .venv runs examples/bunch/models examples/bunch/data examples/bunch/downloads

# Without a GPU, torch's CPU build comes first, so that the registry's CUDA build (several GB) isn't taken.
.venv/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	command -v nvidia-smi >/dev/null || $(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
