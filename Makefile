# Everything there is to do here. `make` alone lists it. A target is listed only when what it runs is in the tree.
SHELL := /bin/sh
CARGO ?= cargo
PREFIX ?= /usr/local
# Folder of libraries under PREFIX, as distributions have it: lib64, lib/x86_64-linux-gnu
LIBDIR ?= lib
# Arguments of `make demo`: a program of yours in place of the built-in responder, as in make demo APP='perl app.pl'
APP ?=
BIN := target/release/fcgiguard

.DEFAULT_GOAL := help

# Scripts of parts that arrive on their own: tests/NAME/run each, listed and made into a target when present.
OPTIONAL := bench sim chaos peers fuzz soak wire faults scale package mutants
PRESENT := $(foreach part,$(OPTIONAL),$(if $(wildcard tests/$(part)/run),$(part)))

.PHONY: help
help: ## this list
	@printf 'make TARGET, where TARGET is one of\n'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  %-10s %s\n' "$$name" "$$text"; done
	@for part in $(PRESENT); do \
		printf '  %-10s %s\n' "$$part" "$$(sed -n 's/^# What: //p' tests/$$part/run | head -n1)"; done

.PHONY: deps
deps: ## install what the build and the tests need (apt packages, Python packages in .deps/venv)
	@tests/deps.sh

.PHONY: build
build: ## build everything in release mode
	$(CARGO) build --release --workspace
	@ffi/shim/build.sh target/release

.PHONY: demo
demo: ## the main job: a pool, probed, loaded, hurt, reloaded; ends within a minute (APP='perl app.pl' for your program)
	@$(CARGO) build --quiet --release --workspace
	@$(BIN) demo $(if $(strip $(APP)),--app '$(subst ','\'',$(APP))')

.PHONY: check
check: ## deps, build and every test; stops at the first failure (ONLY='NAME ...' runs some steps, see tests/check.sh)
	@tests/check.sh $(ONLY)

.PHONY: interop
interop: ## the tests with real servers, and web servers by workers in full: docs/interop.md (K=EXPRESSION: only those tests)
	@tests/check.sh deps build
	@tests/bench/build
	@tests/check.sh interop
	@$(if $(strip $(K)),,tests/matrix/run --write)

.PHONY: fmt
fmt: ## format the Rust code
	$(CARGO) fmt --all

.PHONY: bless
bless: ## write anew what is made from the tables: headers, option and error pages, manual pages, completions, the ABI's record
	FCGIGUARD_BLESS=1 $(CARGO) test --quiet -p fcgi-core --test docs --test safety
	FCGIGUARD_BLESS=1 $(CARGO) test --quiet -p fcgiguard-ffi --test header
	FCGIGUARD_BLESS=1 $(CARGO) test --quiet -p fcgiguard --test pages
	tests/abi/run bless

.PHONY: docs
docs: ## the documentation as a site in target/site, with the Rust pages and the header; checks every link
	@tests/site

.PHONY: install
install: ## install command, libraries, headers, pkg-config and CMake files, manual, units under PREFIX and DESTDIR
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' LIBDIR='$(LIBDIR)' tests/install.sh install

.PHONY: uninstall
uninstall: ## remove what install put there
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' LIBDIR='$(LIBDIR)' tests/install.sh uninstall

.PHONY: clean
clean: ## remove what was built (.deps stays: remove it by hand to start from nothing)
	$(CARGO) clean --quiet

define part_target
.PHONY: $(1)
$(1):
	@begun=$$$$(date +%s); tests/$(1)/run $$(ARGS); code=$$$$?; echo "make $(1): $$$$(($$$$(date +%s) - begun)) s"; exit $$$$code
endef
$(foreach part,$(PRESENT),$(eval $(call part_target,$(part))))

# What these run with: packages, command and libraries; the others build what they need. wire asks the Perl and Python that bench builds.
.PHONY: languages
languages:
	@tests/bench/build
bench peers soak wire chaos scale package: deps
peers soak chaos package: build
wire scale: languages
