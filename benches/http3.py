#!/usr/bin/env python3
"""HTTP/3: ingre next to a newer nginx and HAProxy, which Debian has from version 13 on: work per CPU-second.

As compare.py, with proxy/examples/h3_load.rs as the client, which keeps no sessions. `--newer DIR` is a tree with Debian 13's nginx and
haproxy in it (`debootstrap --variant=minbase --include=nginx,haproxy trixie DIR`): their programs run with their own
libraries, without a chroot.
"""
import argparse
import sys
from pathlib import Path

import compare
import peers
from load import Done, Load, Scenario, checked

PACKAGES = {"nginx": "nginx", "openssl": "openssl", "taskset": "util-linux"}
LOADER = "lib64/ld-linux-x86-64.so.2"
LIBRARIES = "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"


def main():
    options = arguments()
    peers.need(PACKAGES)
    programs = {name: newer(options.newer, name) for name in ("nginx", "haproxy")}
    with peers.Workshop() as workshop:
        workshop.make_certificate()
        origin = peers.start_origin(workshop, compare.LOAD_CORE)
        makers = {"ingre": peers.ingre(options.binary), "nginx": peers.nginx(programs["nginx"], quic=True),
                  "HAProxy": peers.haproxy(programs["haproxy"], quic=True)}
        proxies = [peers.Proxy(workshop, name, compare.PROXY_CORE, origin, make) for name, make in makers.items()]
        load = Load(workshop, compare.LOAD_CORE)
        load.client = options.client
        rows = []
        for name, scenario in SCENARIOS.items():
            results = compare.measure(load, name, scenario, proxies, options)
            ours = compare.median(result[0] for result in results["ingre"] if result)
            rows.append([scenario.title, f"{compare.show(ours, ',.0f')} {scenario.unit}",
                         *(compare.show(compare.ratio(results["ingre"], results[peer]), ".2f") for peer in ("nginx", "HAProxy"))])
    versions = [compare.first_line(options.binary, "version"), compare.nginx_version(programs["nginx"]),
                compare.haproxy_version(programs["haproxy"])]
    print(compare.table(versions, options, ["", "ingre per CPU-second", "÷ nginx", "÷ HAProxy"], rows), end="")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--newer", type=Path, required=True, metavar="DIR", help="tree with nginx 1.25 or newer and HAProxy")
    parser.add_argument("--binary", type=Path, default=root / "target/release/ingre", help="default: target/release/ingre")
    parser.add_argument("--client", type=Path, default=root / "target/release/examples/h3_load",
                        help="cargo build --release -p proxy --example h3_load; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=int, default=3, help="length of a round of one proxy")
    return parser.parse_args()


def newer(directory, name):
    libraries = ":".join(str(directory / library) for library in LIBRARIES)
    return [str(directory / LOADER), "--library-path", libraries, str(directory / "usr/sbin" / name)]


# ------------------------------------------------------------------------------------------------------- scenarios

def ask(load, proxy, connections, streams, path, seconds):
    """Requests answered with 200, and the connections that took."""
    output = load.run([str(load.client), f"127.0.0.1:{proxy.https}", "localhost", str(load.workshop.cert), str(connections),
                       str(streams), str(seconds), path], seconds)
    counts = [int(word) for word in output.split() if word.isdecimal()]
    if len(counts) != 4:
        raise RuntimeError(f"h3_load: {output[-500:]}")
    return checked("h3_load", output, counts[0], counts[1])


SCENARIOS = {
    "h3": Scenario("HTTP/3, 1 KiB, 16 connections of 32 streams", "requests",
                   lambda load, proxy, seconds: Done(ask(load, proxy, 16, 32, "/1k", seconds))),
    "handshakes": Scenario("full QUIC handshake, one request each", "handshakes",
                           lambda load, proxy, seconds: Done(ask(load, proxy, 16, 0, "/1k", seconds))),
    "download": Scenario("download of 1 MiB, HTTP/3", "MiB",
                         lambda load, proxy, seconds: Done(ask(load, proxy, 4, 4, "/1m", seconds))),
}


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(str(error))
