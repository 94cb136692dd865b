# Two commands set everything up on a fresh Debian 12: `make demo` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
PYTHON := $(VENV)/bin/python
# One virtual machine a core is the best use of a machine without KVM.
WORKERS ?= $(shell nproc)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
ROOT := $(SUDO) $(if $(SUDO),env CI=$(CI) HOME=/root)

.PHONY: help setup demo test fast lint vm-tests format clean
help:
	@echo "make demo      install a virtual machine over the network and show what came up"
	@echo "make test      lint, fast tests, and the main installations in virtual machines"
	@echo "make fast      lint and the tests that need no root and no virtual machine"
	@echo "make vm-tests  every scenario in virtual machines"
	@echo "make format    format Python"

setup: $(VENV)/.packages $(VENV)/.python

# Debian's packages, of which dpkg knows whether they are there.
$(VENV)/.packages: debian-packages.txt
	@mkdir -p $(VENV)
	@packages=$$(grep -v '^#' $<); \
	if ! dpkg-query --show --showformat='$${db:Status-Status}\n' $$packages 2>/dev/null \
	    | grep -vqx installed && dpkg-query --show $$packages >/dev/null 2>&1; then :; else \
	  echo "installing Debian packages (see $<)"; \
	  $(SUDO) apt-get -o Acquire::Retries=8 update -qq; \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=8 install -qq -y --no-install-recommends \
	    $$packages >/tmp/netinstall-apt.log 2>&1 || { tail -n 30 /tmp/netinstall-apt.log; exit 1; }; \
	fi
# nfs-ganesha reads this file, which containers and the smallest of installations lack
	@test -e /etc/mtab || $(SUDO) ln -s /proc/self/mounts /etc/mtab
	@touch $@

# Debian's own Python: the boot environment runs the same version. The wheels are kept beside the
# other downloads: a second checkout needs no package index, and an index that is away for minutes
# (pip itself gives up after seconds, and a build fails) stops nobody.
WHEELS := $(or $(NETINSTALL_CACHE),$(HOME)/.cache/netinstall)/wheels
PIP := $(PYTHON) -m pip --disable-pip-version-check -q
FETCH := $(PIP) wheel --find-links $(WHEELS) --wheel-dir $(WHEELS)
INSTALL := $(PIP) install --no-index --find-links $(WHEELS)
define INSTALL_PYTHON
$(INSTALL) --upgrade 'pip>=25.1' && $(INSTALL) --editable . --group dev
endef
$(VENV)/.python: pyproject.toml $(VENV)/.packages
	@echo "installing Python packages into $(VENV)"
	@test -x $(PYTHON) || /usr/bin/python3 -m venv $(VENV)
	@mkdir -p $(WHEELS)
	@for pause in 10 30 60 120 240 0; do \
	  if { $(INSTALL_PYTHON); } >/dev/null 2>&1; then break; fi; \
	  if $(FETCH) 'pip>=25.1' >$(VENV)/pip.log 2>&1 && $(INSTALL) --upgrade 'pip>=25.1' \
	      && $(FETCH) . --group dev 'hatchling>=1.26' editables >>$(VENV)/pip.log 2>&1; \
	    then { $(INSTALL_PYTHON); } && break; fi; \
	  grep -v '^WARNING: Location' $(VENV)/pip.log | tail -n 5; \
	  test $$pause != 0 || exit 1; \
	  echo "fetching Python packages again in $$pause s"; sleep $$pause; \
	done
	@touch $@

demo: setup
	@PYTHONPATH=vm-tests $(ROOT) $(PYTHON) -m lab.demo

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy installer
	@$(VENV)/bin/mypy tests
	@$(VENV)/bin/mypy vm-tests

fast: lint
	@$(VENV)/bin/pytest -q -n $(WORKERS) -m "not root and not loop" tests vm-tests/sample-system

test: lint
	@$(ROOT) $(VENV)/bin/pytest -q -n $(WORKERS) -m "not slow" tests vm-tests/sample-system
	@$(ROOT) $(VENV)/bin/pytest -q -n $(WORKERS) --dist loadfile -m "vm and not slow" vm-tests

vm-tests: setup
	@$(ROOT) $(VENV)/bin/pytest -q -n $(WORKERS) -m slow tests
	@$(ROOT) $(VENV)/bin/pytest -q -n $(WORKERS) --dist loadfile vm-tests

format: setup
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
