# The two commands of the README are `make up` and `make test`. Everything is built into one directory outside the
# checkout, so that a second run, also from another checkout, reuses it.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/beeacon/target
CARGO ?= cargo
LOCKED ?= --locked
ARGS ?=

.PHONY: up demo build agent test drill mutants test-machine test-avx512 format format-check clippy deny bench bench-peers fuzz

# The main job: build, then Beeacon over the local Docker, or over demo logs where there is none.
up: build
	@$(CARGO_TARGET_DIR)/release/beeacon up --or-demo $(ARGS)

demo: build
	@$(CARGO_TARGET_DIR)/release/beeacon demo $(ARGS)

build:
	$(CARGO) build $(LOCKED) --release -p beeacon

# The small program for hosts that only ship, put beside the large one. By package name: a build of the whole workspace would unify
# features. It fails when the program has become larger than 15 MiB.
AGENT_BYTES_MAX = 15728640
agent:
	$(CARGO) build $(LOCKED) --profile small -p beeacon-agent
	@install -D $(CARGO_TARGET_DIR)/small/beeacon-agent $(CARGO_TARGET_DIR)/release/beeacon-agent
	@bytes=$$(stat -c %s $(CARGO_TARGET_DIR)/small/beeacon-agent); echo "beeacon-agent has $$bytes bytes, allowed are $(AGENT_BYTES_MAX)"; \
		[ $$bytes -le $(AGENT_BYTES_MAX) ]

# Installs what the tests need, builds, runs every test. Servers are private to the run and end with it. One cargo call for
# everything: with other packages it would choose other features and build the large libraries once more.
test: test-machine
	BEEACON_TEST_REQUIRE_ALL=$${BEEACON_TEST_REQUIRE_ALL:-1} $(CARGO) test $(LOCKED) --workspace -- --test-threads=2 --show-output

test-machine:
	deploy/test-machine

# The faults of the tests at their full scale: 300 kills of agent and server, 20 erased disks, restarts of dockerd, a thousand lost answers,
# links cut for a minute, hundreds of containers, a thousand changes of alerts while their server, Alertmanager and Redis are killed. Two hours or
# so; the balance says what was seen, stored and missing by gap, for every container.
DRILLED = kills links churn lives planted_everywhere fresh
drill: test-machine
	$(CARGO) test $(LOCKED) --workspace --no-run
	BEEACON_DRILL_SCALE=$${BEEACON_DRILL_SCALE:-15} BEEACON_TEST_REQUIRE_ALL=1 $(CARGO) test $(LOCKED) --workspace --test end_to_end -- --nocapture $(DRILLED)

# Breaks one line after another and sees whether a test notices, in a copy of the tree. ARGS names mutants; all without any.
mutants:
	tests/mutants/run $(ARGS)

# The scan's AVX-512 code on an emulated processor, for machines that have none. Installs bochs; needs root.
test-avx512:
	deploy/test-avx512 $(ARGS)

format:
	$(CARGO) fmt --all

format-check:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings

# Bans, licences and sources; advisories need a database from outside and are checked at release.
deny: $(CARGO_TARGET_DIR)/tools/bin/cargo-deny
	$(CARGO_TARGET_DIR)/tools/bin/cargo-deny --locked check bans licenses sources

$(CARGO_TARGET_DIR)/tools/bin/cargo-deny:
	CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/tools/build $(CARGO) install --quiet --locked --version 0.20.2 --root $(CARGO_TARGET_DIR)/tools cargo-deny

# One run, ratios to the floors beside them; the figures also land in target/bench/*.json. ARGS names parts: lines, shipping, asking.
bench: agent
	$(CARGO) bench $(LOCKED) -p beeacon --bench whole_way -- $(ARGS)

# The pollen filter beside other scanners, which are built in a workspace of their own; ARGS is how many megabytes.
bench-peers:
	CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/peers $(CARGO) run $(LOCKED) --release --manifest-path benches/peers/Cargo.toml -- $(ARGS)

# Coverage-guided fuzzing of what strangers can send and of the pollen filter, each target for FUZZ_SECONDS, from the committed corpus.
# Needs g++.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= frame scrub rule levels known
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1
fuzz:
	cd fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/fuzz $(CARGO) build --release --target x86_64-unknown-linux-gnu
	for target in $(FUZZ_TARGETS); do \
		mkdir -p $(CARGO_TARGET_DIR)/fuzz/found/$$target && \
		$(CARGO_TARGET_DIR)/fuzz/x86_64-unknown-linux-gnu/release/$$target -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 \
			-artifact_prefix=$(CARGO_TARGET_DIR)/fuzz/found/$$target- $(CARGO_TARGET_DIR)/fuzz/found/$$target fuzz/corpus/$$target || exit 1; \
	done
