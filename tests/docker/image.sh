#!/bin/bash
# Builds the image from a binary and looks at it as a user would: a page over HTTP and HTTPS, health, user, stop; then, with
# tunnels, a request through a running container into GRE and back. What is on the other side of the tunnel is not ours: tests/docker/gre_peer.py.
#
#   image.sh BINARY          says "skipped" and succeeds where no Docker engine answers
#
# Needs root, the base images (tests/docker/base-images.sh), curl, iproute2, python3. Leaves no image, container, network or namespace.
set -euo pipefail

readonly binary=$1 root=$(dirname "$(readlink -f "$0")")/../..
readonly tag=ingre-test:$$ name=ingre-test-$$ peer=ingre-peer-$$
readonly subnet=198.51.100.0/28 local=198.51.100.2 far=198.51.100.3

main() {
    if ! docker info >/dev/null 2>&1; then
        echo "skipped: no Docker engine answers here"
        return
    fi
    work=$(mktemp -d)
    trap clean EXIT
    build
    serves_pages
    read_only_root
    tunnels
    echo "image: all well"
}

# Only what the stage needs goes to the engine: not the sources, not target/.
build() {
    mkdir "$work/context"
    cp -r "$root/Dockerfile" "$root/config.yaml" "$work/context/"
    install -D -m 644 "$root/certs/README.md" "$work/context/certs/README.md"
    install -m 755 "$binary" "$work/context/ingre"
    docker build -q -t "$tag" --target prebuilt --build-arg BINARY=ingre "$work/context" >"$work/build" 2>&1 ||
        { cat "$work/build" && return 1; }
    say "built, $(docker image inspect -f '{{.Size}}' "$tag" | numfmt --to=iec)"
    docker run --rm "$tag" version
    expect 65532:65532 "$(docker image inspect -f '{{.Config.User}}' "$tag")"
}

# As shipped, as an ordinary user.
serves_pages() {
    docker run -d --health-interval 1s --name "$name" --security-opt no-new-privileges --cap-drop ALL \
        -p 127.0.0.1::8443 -p 127.0.0.1::8080 "$tag" >/dev/null
    within 20 healthy
    say "healthy"
    page
    local before=$SECONDS
    docker stop -t 20 "$name" >/dev/null
    expect 0 "$(docker inspect -f '{{.State.ExitCode}}' "$name")"
    [ $((SECONDS - before)) -lt 15 ] || fail "stopping took $((SECONDS - before)) s"
    say "stopped in $((SECONDS - before)) s, exit code 0"
    docker rm "$name" >/dev/null
}

page() {
    local http https
    http=$(docker port "$name" 8080/tcp | head -1)
    https=$(docker port "$name" 8443/tcp | head -1)
    curl -sS --fail --max-time 5 -o /dev/null "http://$http/"
    # Not `docker cp`, which does not see a tmpfs.
    cp "/proc/$(docker inspect -f '{{.State.Pid}}' "$name")/root/etc/ingre/certs/dev-ca.pem" "$work/ca.pem"
    curl -sS --fail --max-time 5 --cacert "$work/ca.pem" -o /dev/null "https://localhost:${https##*:}/"
    say "pages over HTTP and, with its own CA, HTTPS"
}

# Nothing but the certificates is written.
read_only_root() {
    docker run -d --health-interval 1s --name "$name" --read-only --tmpfs /etc/ingre/certs:uid=65532,gid=65532,mode=700 "$tag" >/dev/null
    within 20 healthy
    say "healthy with a read-only root"
    docker rm -f "$name" >/dev/null
}

# Key 4096 on the wire to a peer in a network namespace on the container's bridge.
tunnels() {
    [ -e /dev/net/tun ] || { say "tunnels skipped: no /dev/net/tun" && return; }
    docker network create --subnet "$subnet" --gateway 198.51.100.1 -o "com.docker.network.bridge.name=igt$$" "$name" >/dev/null
    ip netns add "$peer"
    ip link add "igp$$" type veth peer name eth0 netns "$peer"
    ip link set "igp$$" master "igt$$" up
    ip -n "$peer" link set lo up
    ip -n "$peer" address add "$far/28" dev eth0
    ip -n "$peer" link set eth0 up
    ip netns exec "$peer" python3 "$root/tests/docker/gre_peer.py" "$local" 4096 >"$work/peer" 2>&1 &
    peer_pid=$!
    cat >"$work/config.yaml" <<YAML
listeners:
  - name: http
    address: 0.0.0.0:8080
  - name: https
    address: 0.0.0.0:8443
    tls: { development: {} }
admin: { address: 127.0.0.1:9901 }
tunnels:
  - name: tenant
    local: $local
    peers: [$far]
    key: 4096
    address: 172.16.0.1
    networks: [10.0.0.0/24]
pools:
  - name: far
    tunnel: tenant
    servers: [{ address: 10.0.0.10:80 }]
routes:
  - domains: ["*"]
    rules: [{ url: /, pool: far }]
YAML
    chmod 644 "$work/config.yaml"

    # Without the rights: a refusal by name, not a hang.
    if timeout 20 docker run --rm -v "$work/config.yaml:/etc/ingre/config.yaml:ro" "$tag" >"$work/refused" 2>&1; then
        fail "tunnels started without NET_ADMIN"
    fi
    grep -q NET_ADMIN "$work/refused" || fail "the refusal does not name NET_ADMIN: $(cat "$work/refused")"
    say "without the rights: $(grep -m 1 NET_ADMIN "$work/refused")"

    through_the_tunnel
    # As in examples/docker-compose.yaml: nothing but the two rights. Without DAC_OVERRIDE root may not write where uid 65532 may.
    through_the_tunnel --cap-drop ALL --security-opt no-new-privileges --read-only --tmpfs /etc/ingre/certs
    # The peer's word for what was on the wire.
    kill "$peer_pid"
    wait "$peer_pid" || fail "the peer saw no GRE, or some that was not as it should be"
    cat "$work/peer"
}

through_the_tunnel() {
    docker run -d --health-interval 1s --name "$name" --network "$name" --ip "$local" -p 127.0.0.1::8080 -p 127.0.0.1::8443 \
        --user 0 --cap-add NET_ADMIN --cap-add NET_RAW --device /dev/net/tun --sysctl net.ipv4.conf.all.rp_filter=0 \
        -v "$work/config.yaml:/etc/ingre/config.yaml:ro" "$@" "$tag" >/dev/null
    within 20 healthy
    expect "10.0.0.10 to 172.16.0.1 by GRE key 4096" \
        "$(curl -sS --fail --max-time 10 "http://$(docker port "$name" 8080/tcp | head -1)/")"
    page
    docker stop -t 20 "$name" >/dev/null
    expect 0 "$(docker inspect -f '{{.State.ExitCode}}' "$name")"
    docker rm "$name" >/dev/null
    say "a request through a container into GRE and back${1:+, with $*}"
}

healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$name")" = healthy ]; }

# SECONDS COMMAND: until it succeeds; a container that has ended will not.
within() {
    local end=$((SECONDS + $1))
    until "$2"; do
        [ "$(docker inspect -f '{{.State.Running}}' "$name")" = true ] || fail "the container has ended"
        [ "$SECONDS" -lt "$end" ] || fail "not $2 within $1 s"
        sleep 0.3
    done
}

expect() { [ "$1" = "$2" ] || fail "expected \`$1\`, got \`$2\`"; }
say() { echo "image: $*"; }
fail() {
    echo "image: FAILED: $*" >&2
    docker logs "$name" 2>&1 | tail -30 >&2 || true
    docker inspect -f '{{range .State.Health.Log}}{{.Output}}{{end}}' "$name" 2>/dev/null | tail -3 >&2 || true
    [ ! -s "$work/peer" ] || cat "$work/peer" >&2
    exit 1
}

clean() {
    [ -z "${peer_pid-}" ] || kill "$peer_pid" 2>/dev/null || true
    docker rm -f "$name" >/dev/null 2>&1 || true
    ip link delete "igp$$" 2>/dev/null || true
    ip netns delete "$peer" 2>/dev/null || true
    docker network rm "$name" >/dev/null 2>&1 || true
    docker image rm "$tag" >/dev/null 2>&1 || true
    rm -rf "$work"
}

main "$@"
