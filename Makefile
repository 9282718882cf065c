# Builds, tests and benchmarks latentflow. The main targets are `make demo` and `make test`.

# The Cargo features that tests are built with, in addition to the default ones.
FEATURES ?= object-store
# Seconds of `make fuzz`.
SECONDS ?= 300

# A program that is built outside of the checkout does not find the checkout's ONNX Runtime relative to its own location.
ifdef CARGO_TARGET_DIR
export ORT_DYLIB_PATH ?= $(shell ls $(CURDIR)/.runtime/onnxruntime/libonnxruntime* 2>/dev/null | head -n 1)
endif

.PHONY: demo test fuzz docs test-python cookbook scale bench bench-ci chaos runtime checker readers build deploy-check release release-check try-release reference

# Encodes synthetic images to latent features in Parquet: the main use case, with input that needs no download.
demo: build
	target/release/latentflow run pipelines/quickstart.toml
	target/release/latentflow report demo/latents --out demo/report.html
	@echo
	@echo "The latent features are in demo/latents; docs/getting-started/quickstart.md describes how to read them. Charts of them:"
	@echo "  $(CURDIR)/demo/report.html"

build: runtime
	cargo build --release --locked

# Tests on real data read the folder that LATENTFLOW_TEST_DATA names. Without it they are skipped, and each prints a line
# about it. If LATENTFLOW_REQUIRE_TEST_DATA is set, they fail instead.
test: runtime checker readers
	cargo test --locked --features $(FEATURES)
	cargo test --locked -p scaled-jpeg

# Runs one fuzz target, such as `make fuzz TARGET=csv SECONDS=600`; fuzz/README.md lists what it needs.
SECONDS ?= 300
fuzz:
	mkdir -p fuzz/corpus/$(TARGET)
	ASAN_OPTIONS=detect_leaks=0 cargo +nightly fuzz run $(TARGET) fuzz/corpus/$(TARGET) fuzz/seeds/$(TARGET) -- \
	    -max_total_time=$(SECONDS) -rss_limit_mb=2048 -timeout=20 -detect_leaks=0

# Writes the pages of docs/reference that are generated from the program.
reference:
	LATENTFLOW_UPDATE_REFERENCE=1 cargo test --locked --features $(FEATURES) --test suite reference::

# Checks the links and anchors of all pages, and builds the book of docs/ into target/book. mdBook is installed if it is missing.
MDBOOK = $(shell command -v mdbook || echo .runtime/mdbook/bin/mdbook)
docs:
	@python3 scripts/check_links.py
	@[ -x "$(MDBOOK)" ] || cargo install mdbook --locked --root .runtime/mdbook
	@$(MDBOOK) build docs

# Compares complete runs with their lower bound and with Python programs, in one table. A quick run:
# BENCH="--workloads photos --scale 0.2".
bench: runtime
	python3 benches/compare.py $(BENCH)

# Counts the instructions of our own parts with Valgrind, and compares them with benches/instructions.json.
bench-ci:
	python3 benches/instructions.py $(BENCH)

# Kills 200 runs at random instants. The same test kills 20 runs in `make test`.
chaos: runtime
	LATENTFLOW_CHAOS_KILLS=$${LATENTFLOW_CHAOS_KILLS:-200} cargo test --locked --release --test process chaos:: -- --nocapture

# Tests the Python package in a virtual environment of its own, .runtime/python.
test-python: runtime
	@scripts/test-python.sh $(FEATURES)

# Runs pages of docs/cookbook as they are written; they install packages with pip. PAGES="sklearn-pca" selects some of them.
cookbook: runtime
	cargo build --locked --features $(FEATURES)
	python3 scripts/cookbook.py --latentflow "$${CARGO_TARGET_DIR:-target}/debug/latentflow" $(PAGES)

# Tests all engines of docs/guides/engines.md, and kills processes of Spark and Ray in mid-job.
scale: test-python
	@scripts/test-scale.sh

# Downloads ONNX Runtime to .runtime/onnxruntime, with pip, pinned by hash.
runtime:
	@scripts/fetch-onnxruntime.sh

# Downloads the official checker of ONNX files with pip, for tests of the models that `train` writes.
checker:
	@scripts/fetch-python-packages.sh onnx-checker "onnx>=1.17,<2"

# Downloads readers of Parquet with pip, for tests of the types in outputs.
readers:
	@scripts/fetch-python-packages.sh parquet-readers "pyarrow>=20,<27" "pandas>=2.2,<4" "polars>=1.30,<3" "duckdb>=1.2,<3"

# Checks the files in deploy/ with the tools that are installed: promtool, systemd-analyze.
deploy-check:
	@deploy/check.sh

# Builds the files of a release into target/release-files: see docs/development/releasing.md.
release:
	@scripts/release.sh

# Tests the lists of linked crates, without a build.
release-check:
	@python3 scripts/test_linked_crates.py

# Tries the files of a release in bare Debian roots; needs root and debootstrap.
try-release:
	@deploy/try-release.sh
