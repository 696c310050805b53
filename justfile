# The usual tasks. `just` lists them; CONTRIBUTING.md has the same commands without just.

# List the tasks.
default:
    @just --list

# Build all programs (debug).
build:
    cargo build --workspace --bins

# Run all checks and tests; as root all of them, arguments go to cargo test.
test *args:
    ./test {{ args }}

# Run the unit tests only: no root, no processes, no network.
unit:
    cargo test --workspace --lib --bins

# Run one end-to-end test as root, such as `just e2e node_revoked`; WARREN_LAB_KEEP=1 keeps its logs.
e2e name *args: build
    cargo test -p warren-tests --test {{ name }} -- --nocapture {{ args }}

# Format the source.
fmt:
    cargo fmt --all

# Run clippy; every warning is an error.
clippy:
    cargo clippy --workspace --all-targets -- -D warnings

# Build the API documentation; every warning is an error.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Build the Debian package.
deb:
    packaging/build-deb

# Install the package on three Debian systems under a real systemd (root), and follow the README.
boot:
    packaging/test-boot

# Run the commands of the documents on four Debian systems under a real systemd (root).
docs *args:
    packaging/test-docs {{ args }}

# Check licences, banned crates and their sources (needs cargo-deny).
deny:
    cargo deny check licenses bans sources

# Find dependencies that no crate uses (needs cargo-machete).
machete:
    cargo machete

# Show a live network in network namespaces (root); `just demo --keep` stays until Ctrl-C.
demo *args:
    ./demo {{ args }}

# Run the lab (root), such as `just lab up --nodes 12` or `just lab measure join`.
lab *args:
    cargo build --release -p warren -p warren-lab
    ${CARGO_TARGET_DIR:-target}/release/warren-lab {{ args }}

# Simulate the policy, such as `just sim compare --synthetic 490 --k 5 --max-degree 15`.
sim *args:
    cargo run --release -p warren-sim -- {{ args }}

# Measure how long one decision of the planner takes; fails above its bound.
bench:
    cargo bench -p warren-policies

# Fuzz all parsers for a minute each, or such as `just fuzz 600 management`.
fuzz *args:
    fuzz/run {{ args }}

# Inject faults and attacks into networks of real nodes (root), and write docs/RELIABILITY.md.
faults *args:
    ./test --faults {{ args }}
