PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
TEST_WORKERS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-slow clean

demo: $(VENV)/installed
	$(PY) -m launch.demo --workdir runs/demo

test: $(VENV)/installed-test
	$(PY) -m pytest -n $(TEST_WORKERS) -m "not slow"

test-slow: $(VENV)/installed-test
	$(PY) -m pytest -m slow

$(VENV)/installed: requirements.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-test: requirements-test.txt $(VENV)/installed
	$(PY) -m pip install --quiet -r requirements-test.txt
	touch $@

clean:
	rm -rf $(VENV) runs
