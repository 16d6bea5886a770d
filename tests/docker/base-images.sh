#!/bin/bash
# Makes local stand-ins for the base images that the Dockerfile names, out of Debian packages, for machines that cannot pull.
#
#   base-images.sh           the runtime image (gcr.io/distroless/cc-debian12): C library, libgcc, users, certificates
#   base-images.sh rust      the compiler image as well (rust:1.95-slim-bookworm), from this machine's toolchain; needs debootstrap
#   base-images.sh --remove  removes the stand-ins, and only them: an image that was pulled has no such label
#
# An image that is already there is left alone. Needs root, a Docker engine, and apt on Debian 12.
set -euo pipefail

readonly runtime=gcr.io/distroless/cc-debian12 compiler=rust:1.95-slim-bookworm
readonly label=ingre.stand-in=true

main() {
    case "${1-}" in
        "") make_once "$runtime" runtime_tree ;;
        rust) make_once "$runtime" runtime_tree && make_once "$compiler" compiler_tree \
            'ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' ;;
        --remove) remove ;;
        *) echo "usage: $0 [rust | --remove]" >&2 && exit 2 ;;
    esac
}

# NAME FUNCTION [CHANGE]: imports the tree that FUNCTION fills.
make_once() {
    if docker image inspect "$1" >/dev/null 2>&1; then
        echo "$1: already here"
        return
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/debs" "$work/tree"
    "$2"
    tar -C "$work/tree" --numeric-owner --owner 0 --group 0 -c . |
        docker import --change "LABEL $label" ${3:+--change "$3"} - "$1" >/dev/null
    echo "$1: made from $(find "$work/debs" -name '*.deb' | wc -l) Debian packages," \
        "$(docker image inspect -f '{{.Size}}' "$1" | numfmt --to=iec) bytes"
    rm -rf "$work"
}

# What the real image holds and ingre uses; no shell, as there.
runtime_tree() {
    unpack base-files netbase libc6 libgcc-s1 tzdata ca-certificates
    cd "$work/tree"
    rm -rf usr/share/doc usr/share/man usr/share/lintian
    mkdir -p etc/ssl/certs home/nonroot tmp
    chmod 1777 tmp
    find usr/share/ca-certificates -name '*.crt' -exec cat {} + >etc/ssl/certs/ca-certificates.crt
    printf '%s\n' root:x:0:0:root:/root:/sbin/nologin nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin \
        nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin >etc/passwd
    printf '%s\n' root:x:0: nobody:x:65534: nonroot:x:65532: >etc/group
    printf '%s\n' 'passwd: files' 'group: files' 'hosts: files dns' >etc/nsswitch.conf
    cd - >/dev/null
}

# A Debian with a linker, and the toolchain where the real image has it.
compiler_tree() {
    debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates --cache-dir="$work/debs" \
        bookworm "$work/tree" >"$work/log" 2>&1 || { tail "$work/log" && exit 1; }
    # A machine may trust more authorities than Debian does, and cargo in the image has to reach what cargo here reaches.
    cp /etc/ssl/certs/ca-certificates.crt "$work/tree/etc/ssl/certs/"
    mkdir -p "$work/tree/usr/local/cargo/bin" "$work/tree/usr/local/rustup"
    cp -a "$(rustc --print sysroot)/." "$work/tree/usr/local/rustup/"
    rm -rf "$work/tree/usr/local/rustup/share/doc" "$work/tree"/var/cache/apt/archives/*.deb
    local tool
    for tool in cargo rustc rustdoc; do ln -s "/usr/local/rustup/bin/$tool" "$work/tree/usr/local/cargo/bin/"; done
}

# Unpacks packages into the tree without installing them.
unpack() {
    cd "$work/debs"
    apt-get -qq -o APT::Sandbox::User=root download "$@" 2>/dev/null ||
        { apt-get -qq update && apt-get -qq -o APT::Sandbox::User=root download "$@"; }
    local deb
    for deb in *.deb; do dpkg-deb -x "$deb" "$work/tree"; done
    cd - >/dev/null
}

remove() {
    local image
    for image in "$runtime" "$compiler"; do
        if [ "$(docker image inspect -f '{{index .Config.Labels "ingre.stand-in"}}' "$image" 2>/dev/null)" = true ]; then
            docker image rm "$image" >/dev/null
            echo "$image: removed"
        fi
    done
}

main "$@"
