PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
TEST_WORKERS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export NO_MKDOCS_2_WARNING = 1
# Else every process that a test starts compiles the whole source again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow lint docs clean

demo: $(VENV)/installed  # with huge pages (docs/training.md#devices)
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(PY) -m launch.demo --workdir runs/demo

test: $(VENV)/installed-test
	$(PY) -m pytest -n $(TEST_WORKERS) --dist loadfile -m "not slow"

test-slow: $(VENV)/installed-test $(VENV)/libtpu
	LIBTPU_FOLDER=$(CURDIR)/$(VENV)/libtpu $(PY) -m pytest -n $(TEST_WORKERS) --dist loadfile -m slow

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

docs: $(VENV)/installed-docs
	$(VENV)/bin/mkdocs build --strict

$(VENV)/installed: requirements.txt pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -r requirements.txt
	$(PY) -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/installed-test: requirements-test.txt $(VENV)/installed
	$(PY) -m pip install --quiet -r requirements-test.txt
	touch $@

# Apart from the other packages, as JAX looks for TPUs wherever it finds this one.
$(VENV)/libtpu: requirements-tpu.txt $(VENV)/installed
	$(PY) -m pip install --quiet --no-deps --upgrade --target $@ -r requirements-tpu.txt
	touch $@

$(VENV)/installed-docs: requirements-docs.txt $(VENV)/installed
	$(PY) -m pip install --quiet -r requirements-docs.txt
	touch $@

clean:
	rm -rf $(VENV) runs site
