# Two commands do everything: `make demo` and `make test`.

# What tests are built with, beside the defaults.
FEATURES ?= object-store

# A program that is built outside of the checkout does not find the checkout's library from where it lies.
ifdef CARGO_TARGET_DIR
export ORT_DYLIB_PATH ?= $(shell ls $(CURDIR)/.runtime/onnxruntime/libonnxruntime* 2>/dev/null | head -n 1)
endif

.PHONY: demo test bench chaos runtime checker build deploy-check

# Made-up images to latent features in Parquet: the main job, on input that needs no download.
demo: build
	target/release/latentflow run pipelines/quickstart.toml
	@echo
	@echo "The latent features lie in demo/latents; README.md says how to read them. To look at them now:"
	@echo "  target/release/latentflow inspect demo/latents"

build: runtime
	cargo build --release --locked

# Tests on real data run where LATENTFLOW_TEST_DATA names its folder, and are skipped, visibly, elsewhere; with
# LATENTFLOW_REQUIRE_TEST_DATA set they fail instead.
test: runtime checker
	cargo test --locked --features $(FEATURES)

# Whole runs beside their floor and beside Python programs: one table. BENCH="--works photos --scale 0.2" for a quick look.
bench: runtime
	python3 benches/compare.py $(BENCH)

# The same test kills 20 runs in `make test`.
chaos: runtime
	LATENTFLOW_CHAOS_KILLS=$${LATENTFLOW_CHAOS_KILLS:-200} cargo test --locked --release --test process chaos:: -- --nocapture

# ONNX Runtime, into .runtime/onnxruntime: by pip, pinned by hash.
runtime:
	@deploy/fetch-onnxruntime.sh

# The official checker of ONNX files, for tests of what `train` writes: by pip.
checker:
	@deploy/fetch-onnx-checker.sh

# What lies in deploy/, by the tools that there are: promtool, systemd-analyze.
deploy-check:
	@deploy/check.sh
