# What people do with this repository. `make` alone lists it.
# The first two need nothing but a Debian 12 with Rust 1.95 and root; what is missing they install.

CARGO ?= cargo
# Every build uses the committed lock file: a build of today is the build of the commit.
LOCKED := --locked
# Where cargo builds to; the environment may move it.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# What this machine is to the compiler: naming it as a target keeps flags away from build scripts.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
STATIC = RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build $(LOCKED) --release --target $(HOST)

# How long `make soak` goes on: 10m, 1h, 24h.
SOAK ?= 1h

.PHONY: help demo bench bench-quick peers chaos soak test check build image ebpf fuzz fmt setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## show the main job: 15 seconds of worker kills under connect load
	@$(TARGET)/release/holdfast-chaos demo

bench: build peers ## measure everything on this machine, for some 20 minutes; JSON and page in bench/results
	@$(TARGET)/release/holdfast-bench all --out bench/results

bench-quick: build ## half a minute of the same: it shows that everything can be measured, and no figures
	@$(TARGET)/release/holdfast-bench all --quick --out $(TARGET)/bench

peers: ## install what Holdfast is measured against: HAProxy, nginx, Envoy and the like
	@tools/peers $(TARGET)/peers

chaos: build ## 60 seconds of every fault under load; report and page in target/chaos
	@mkdir -p $(TARGET)/chaos
	@$(TARGET)/release/holdfast-chaos run --duration 60s \
		--report $(TARGET)/chaos/report.json --html $(TARGET)/chaos/report.html

soak: build ## an hour of the same, or SOAK=10m; judges that memory and descriptors stay flat too
	@mkdir -p $(TARGET)/soak
	@$(TARGET)/release/holdfast-chaos run --duration $(SOAK) \
		--report $(TARGET)/soak/report.json --html $(TARGET)/soak/report.html

test: build image ## build and pass every test (root: real eBPF, namespaces and cgroups)
	$(CARGO) test $(LOCKED) --workspace
	$(CARGO) test $(LOCKED) --manifest-path ebpf/Cargo.toml
	$(CARGO) test $(LOCKED) --manifest-path fuzz/Cargo.toml

check: setup ## formatting, lints, and that the kernel object belongs to its source
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path ebpf/Cargo.toml --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) --manifest-path ebpf/Cargo.toml --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) --manifest-path fuzz/Cargo.toml --all-targets -- -D warnings
	ebpf/check.sh

# The supervisor is built on its own: in one build with the others it would get their features of
# shared dependencies, and with them their size.
build: setup ## build the release binaries into target/release
	$(CARGO) build $(LOCKED) --release -p holdfast
	$(CARGO) build $(LOCKED) --release -p holdfast-worker -p holdfastctl -p holdfast-chaos -p holdfast-bench

# No setup: it runs in the build stage of deploy/Dockerfile, which has what it needs and tests nothing.
image: ## build the static binaries of the container image into target/image
	$(STATIC) -p holdfast
	$(STATIC) -p holdfast-worker -p holdfastctl
	install -D -t $(TARGET)/image $(addprefix $(TARGET)/$(HOST)/release/,holdfast holdfast-worker holdfastctl)

ebpf: ## build the kernel object again (installs or names the toolchain it needs)
	ebpf/build.sh

fuzz: ## fuzz each decoder for a minute, or FUZZ_SECONDS (needs a nightly compiler, and says so)
	fuzz/run.sh

fmt: ## format everything
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path ebpf/Cargo.toml
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml

setup:
	@tools/setup
