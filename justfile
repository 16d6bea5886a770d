# `just` shows what there is.

[private]
default:
    @just --list --unsorted

# What a commit has to pass; quick, no root
check:
    .ci/run fmt clippy docs deny

# All tests that this user can run; the others are shown as ignored, with the reason
test:
    cargo test --workspace --locked

# All of CI, as root
ci:
    .ci/run

# The small data centre on this machine
lab *OPTIONS:
    cargo run --release --locked -- lab {{OPTIONS}}

# The image from source
image:
    docker build -t ingre .

# The image from a binary made here, which must not need a newer glibc than Debian 12 has
image-prebuilt:
    cargo build --locked --profile dist
    docker build -t ingre --target prebuilt --build-arg BINARY=target/dist/ingre .

# Each fuzz target of each crate for SECONDS; says so where the nightly compiler or cargo-fuzz is missing
fuzz SECONDS="60":
    #!/usr/bin/env bash
    set -euo pipefail
    if ! cargo +nightly fuzz --version; then echo "skipped: no nightly compiler with cargo-fuzz"; exit; fi
    for crate in */fuzz; do
        for target in $(cd "$crate/.." && cargo +nightly fuzz list); do
            (cd "$crate/.." && cargo +nightly fuzz run "$target" -- -max_total_time={{SECONDS}})
        done
    done

# Licences, bans and advisories; says so where cargo-deny is missing
deny:
    if command -v cargo-deny; then cargo deny check; else echo "skipped: no cargo-deny; .ci/run deny checks all but the advisories"; fi

# The slow things
full: ci fuzz deny image
