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

# target/optimised/release/ingre: the release build by a profile of the benchmark's loads, which does up to a tenth more per CPU-second
optimised:
    #!/usr/bin/env bash
    set -euo pipefail
    rustup component add llvm-tools
    profile=$PWD/target/optimised/profile
    rm -rf "$profile"
    RUSTFLAGS="-C profile-generate=$profile" LLVM_PROFILE_FILE=/dev/null cargo build --locked --release --target-dir target/counting
    LLVM_PROFILE_FILE=$profile/%p.profraw benches/train.py --binary target/counting/release/ingre
    "$(rustc --print sysroot)"/lib/rustlib/*/bin/llvm-profdata merge -o "$profile/merged" "$profile"
    RUSTFLAGS="-C profile-use=$profile/merged" cargo build --locked --release --target-dir target/optimised

# The image from source
image:
    docker build -t ingre .

# The image from a binary made here, which must not need a newer glibc than Debian 12 has
image-prebuilt: optimised
    docker build -t ingre --target prebuilt --build-arg BINARY=target/optimised/release/ingre .

# Each fuzz target of each crate for SECONDS, from its seeds (`cargo test` runs those on stable); says so where the nightly compiler or cargo-fuzz is missing
fuzz SECONDS="60":
    #!/usr/bin/env bash
    set -euo pipefail
    if ! cargo +nightly fuzz --version; then echo "skipped: no nightly compiler with cargo-fuzz"; exit; fi
    for crate in */fuzz; do
        for target in $(cd "$crate/.." && cargo +nightly fuzz list); do
            mkdir -p "$crate/corpus/$target"
            (cd "$crate/.." && cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- -max_total_time={{SECONDS}})
        done
    done

# Licences, bans and advisories; says so where cargo-deny is missing
deny:
    if command -v cargo-deny; then cargo deny check; else echo "skipped: no cargo-deny; .ci/run deny checks all but the advisories"; fi

# Next to Debian's nginx and HAProxy: work per CPU-second (OPTIONS: --rounds, --secs, --scenarios, --access-log, --markdown FILE)
bench *OPTIONS:
    cargo build --locked --release
    benches/compare.py {{OPTIONS}}

# What each feature costs when it is used, and that a plain rule pays for none (OPTIONS: --rounds, --secs, --markdown FILE)
bench-features *OPTIONS:
    cargo build --locked --release
    benches/features.py {{OPTIONS}}

# The encapsulation next to a bare veth, a per-packet tunnel and Open vSwitch, as root (OPTIONS: --rounds, --secs, --only, --mtu, --tests, --congestion, --markdown FILE, --quick)
bench-encap *OPTIONS:
    cargo build --locked --release
    cargo build --locked --release -p encap --example per_packet
    benches/encap.py {{OPTIONS}}

# Mixed TCP and UDP through two tunnels while others come and go, as root: sums, drops, memory (OPTIONS: --minutes, 30 if not said)
soak *OPTIONS:
    cargo build --locked --release
    benches/soak.py {{OPTIONS}}

# What testssl.sh and sslyze say about TLS of the default configuration: nothing (`.ci/run install` gets both)
scan:
    cargo build --locked
    tests/scanners.py --binary target/debug/ingre

# Nanoseconds per operation of the pure modules
bench-micro:
    cargo bench --locked -p proxy -p encap --bench micro

# User instructions per request, counted by valgrind; fails when plain HTTP needs 10 % more than is recorded
instructions:
    cargo build --locked
    benches/instructions.py --check benches/instructions.json

# Records what this source needs, for the profile `dev` or `release`: after a change that is worth it, and after a better one
instructions-record PROFILE="dev":
    cargo build --locked --profile {{PROFILE}}
    benches/instructions.py --binary target/{{ if PROFILE == "dev" { "debug" } else { PROFILE } }}/ingre --record benches/instructions.json

# Flame graphs of the two main loads, into target/flame; says so where perf or a program that draws them is missing
flame *OPTIONS:
    #!/usr/bin/env bash
    set -euo pipefail
    if ! command -v perf || ! { command -v inferno-flamegraph || command -v flamegraph.pl; }; then
        echo "skipped: needs perf (Debian: linux-perf) and inferno or Brendan Gregg's FlameGraph scripts"; exit
    fi
    # As shipped, but with names and frame pointers.
    RUSTFLAGS="-C force-frame-pointers=yes" CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only \
        cargo build --locked --release --target-dir target/flame
    benches/flame.py --binary target/flame/release/ingre --out target/flame {{OPTIONS}}

# The slow things
full: ci fuzz deny scan image
