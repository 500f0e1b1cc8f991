# What can be done here; the README says what for. Needs a Rust toolchain, and root for everything that runs containers.

# In CI the build is kept outside the clone, so that the next clone finds it.
ifdef CI
export CARGO_TARGET_DIR ?= $(HOME)/.cache/keelson/target
# A fresh clone compiles the workspace anyway; what would make the next time faster is gigabytes.
export CARGO_INCREMENTAL ?= 0
endif
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
BUILT := $(TARGET)/x86_64-unknown-linux-gnu
KEELSON := $(BUILT)/release/keelson
TOOLS := $(abspath $(TARGET))/tools
KUBECTL := $(TOOLS)/kubectl
PROFILE ?= demo
# The API's tests run a second time, on a real etcd: all but those that know no other store.
ON_ETCD := $(filter-out shared,$(notdir $(basename $(wildcard crates/apiserver/tests/*.rs))))
# Debian packages that only tests use: real programs to be tested with.
TEST_PACKAGES := busybox-static containerd runc curl iproute2 util-linux nftables openssl python3 python3-pip etcd-server dbus-daemon git \
	qemu-system-x86 binutils

.PHONY: up down test bench fuzz lint build tools test-setup

up: build tools
	@KUBECTL=$(KUBECTL) KEELSON=$(KEELSON) PROFILE=$(PROFILE) tools/up

down: build
	$(KEELSON) down --profile $(PROFILE)

# Not position-independent: the binary is also every pod's shim, and relocating it would make each a copy of its own.
build:
	cargo rustc --release --locked -p keelson --bin keelson -- -C relocation-model=static

tools:
	@tools/fetch-kubectl $(TOOLS)

test-setup: tools
	@tools/install-packages $(TEST_PACKAGES)
	@tools/fetch-python-client $(TOOLS)/python
	@tools/fetch-kernel $(TOOLS)/kernel

# The second time of the whole workspace too, so that nothing is compiled again with other features.
test: test-setup
	KEELSON_KUBECTL=$(KUBECTL) cargo test --workspace --locked --no-fail-fast
	KEELSON_TEST_STORE=etcd cargo test --workspace --locked --no-fail-fast $(addprefix --test ,$(ON_ETCD))

bench: build tools
	$(KEELSON) bench

# A long search for inputs that break a reader: make fuzz FUZZ_TARGET=json SECONDS=600
SECONDS ?= 60
fuzz:
	tools/fuzz "$(FUZZ_TARGET)" "$(SECONDS)"

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
