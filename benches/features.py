#!/usr/bin/env python3
"""What each feature of a rule or a pool costs when it is used, and that a plain rule pays for none of them.

Plain HTTP, 1 KiB, keep-alive, one worker on core 0; the server behind it and the load share core 1. Every feature has a
domain of its own in one process, whose other domains have all of them. Rounds are interleaved with the plain rule, and
the median of the ratios inside a round is printed: requests per CPU-second kept against a program that has only the
plain rule.
"""
import argparse
import statistics
import sys
from datetime import date
from pathlib import Path

import peers
from load import LOAD_CORE, PROXY_CORE, Load

PLAIN = "plain rule beside all of these"

# Domain -> what the table says, options of the rule, options of its pool, fields of the request.
FEATURES = {
    "plain": (PLAIN, "", "", ()),
    "when": ("two conditions that hold (a header, a network)", "when: {headers: {X-A: '1'}, clients: [127.0.0.0/8]}", "", ("X-A: 1",)),
    "rewrite": ("rewriting: a prefix", "rewrite: {prefix: /1}", "", ()),
    "regex": ("rewriting: a regular expression with a capture", "rewrite: {regex: '^/(.*)$', path: '/$1'}", "", ()),
    "edits": ("three edits of the request, two of the response, with variables",
              "request_headers: {remove: [X-A], set: {X-B: $remote_addr}, add: {X-C: $host}}, "
              "response_headers: {remove: [Server], set: {X-Frame-Options: DENY}}", "", ("X-A: 1",)),
    "cors": ("CORS, an origin of a list", "cors: {origins: ['https://a.test']}", "", ("Origin: https://a.test",)),
    "access": ("an access list of three networks", "access: [{allow: [192.0.2.0/24, 127.0.0.0/8]}, {deny: [all]}]", "", ()),
    "rate": ("a rate per client", "limits: [{rate: 1000000/s}]", "", ()),
    "flight": ("requests at a time per client", "limits: [{in_flight: 100000}]", "", ()),
    "split": ("a split over two pools", "split: [{pool: plain, weight: 90}, {pool: plain, weight: 10}]", "", ()),
    "gzip": ("gzip, of 1 KiB", "compress: {algorithms: [gzip], types: [application/octet-stream]}", "", ("Accept-Encoding: gzip",)),
    "least": ("least connections, two RS", "", "balance: least_connections", ()),
    "ewma": ("peak EWMA, two RS", "", "balance: peak_ewma", ()),
    "hash": ("Maglev by client, two RS", "", "balance: maglev", ()),
    "sticky": ("a sticky cookie, given out each time", "", "sticky: {cookie: s, max_age: 3600s}", ()),
    "caps": ("a cap per RS", "", "max_connections: 100000", ()),
    "retries": ("retries with a budget and a time for each", "", "retries: {on: [timeout, 503], per_try_timeout: 10s}", ()),
}


def main():
    options = arguments()
    peers.need({"nginx": "nginx", "wrk": "wrk", "openssl": "openssl", "taskset": "util-linux"})
    with peers.Workshop() as workshop:
        workshop.make_certificate()
        origin = peers.start_origin(workshop, LOAD_CORE)
        alone = peers.Proxy(workshop, "alone", PROXY_CORE, origin, peers.ingre(options.binary))
        all_of_them = peers.Proxy(workshop, "all", PROXY_CORE, origin, with_features(options.binary))
        load = Load(workshop, LOAD_CORE)
        ratios = {domain: [] for domain in FEATURES}
        for round_ in range(options.rounds + 1):
            for domain, (_, _, _, fields) in FEATURES.items():
                base = rate(load, alone, "any", (), options.secs)
                used = rate(load, all_of_them, domain, fields, options.secs)
                if round_ > 0:
                    ratios[domain].append(used / base)
                print(f"{round_} {domain}: {used / base:.3f}", file=sys.stderr)
    rows = [f"| {FEATURES[domain][0]} | {statistics.median(values):.2f} |" for domain, values in ratios.items()]
    text = "\n".join([f"{date.today()}, {options.rounds} rounds of {options.secs} s.", "",
                      "| used | requests per CPU-second kept |", "|---|--:|", *rows, ""])
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--binary", type=Path, default=root / "target/release/ingre", help="default: target/release/ingre")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=int, default=1, help="length of a round of one feature")
    parser.add_argument("--markdown", type=Path, help="write the table here as well")
    options = parser.parse_args()
    if not options.binary.is_file():
        parser.error(f"no {options.binary}: cargo build --locked --release")
    options.binary = options.binary.resolve()
    return options


def with_features(binary):
    def make(proxy, values):
        head = peers.ingre_config(values).split("\npools:\n")[0]
        pools, routes = ["pools:"], ["routes:"]
        for domain, (_, rule, pool, _) in FEATURES.items():
            # A second RS where there is something to choose: the same server under another address.
            upstreams = [values["upstream"]]
            if "balance" in pool:
                upstreams.append(values["upstream"].replace("127.0.0.1", "127.0.0.2"))
            servers = ", ".join(f'{{address: "{upstream}"}}' for upstream in upstreams)
            pools.append(f"  - {{name: {domain}, servers: [{servers}], keepalive: 1024, keepalive_timeout: 1h, "
                         f"health_check: {{type: off}}{', ' * bool(pool)}{pool}}}")
            answer = "" if "split:" in rule else f", pool: {domain}"
            routes.append(f"  - domains: [{domain}]\n    rules: [{{url: /1{answer}{', ' * bool(rule)}{rule}}}]")
        config = proxy.dir / "config.yaml"
        config.write_text("\n".join([head, *pools, *routes, ""]))
        return [str(binary), "run", "-c", str(config)]
    return make


def rate(load, proxy, domain, fields, seconds):
    before = peers.cpu_seconds(proxy.process.pid)
    done = load.wrk(proxy.url(False, "/1k"), 64, seconds, f"Host: {domain}", *fields)
    return done / (peers.cpu_seconds(proxy.process.pid) - before)


if __name__ == "__main__":
    main()
