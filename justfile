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

# Each fuzz target of the proxy for SECONDS; needs a nightly compiler and cargo-fuzz
fuzz SECONDS="60":
    cd proxy && for target in $(cargo +nightly fuzz list); do \
        cargo +nightly fuzz run "$target" -- -max_total_time={{SECONDS}} || exit 1; done

# The slow things: all of CI, fuzzing, cargo-deny with its advisories, the image from source
full: ci fuzz
    cargo deny check
    just image
