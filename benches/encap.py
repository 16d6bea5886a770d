#!/usr/bin/env python3
"""The encapsulation next to the bare veth, a per-packet tunnel and Open vSwitch: throughput, and CPU time per GB and packet.

Two network namespaces with a veth between them, an engine in each, iperf3 and sockperf through it. Rounds are interleaved
(A B C, A B C), ratios are taken inside a round, and their median is printed. docs/encapsulation-performance.md says what the
figures mean. Needs root. Exit status 1 when something could not be measured.
"""
import argparse
import os
import re
import sys
from pathlib import Path

import peers
from encap import bed, report, scale, traffic
from encap.engines import SWITCH, all_engines

PACKAGES = {"ip": "iproute2", "iperf3": "iperf3"}
SWITCH_PACKAGES = {"ovs-vsctl": "openvswitch-switch", "ovsdb-tool": "openvswitch-common"}
QUICK = {"rounds": 1, "secs": 1, "mtu": "1500", "only": "P0,P1,ingre,ingre-udp,OVS", "tests": "tcp1,tunnels,flows,idle",
         "tunnels": 20, "flows": 20_000}
FULL = {"rounds": 5, "secs": 3, "mtu": "1500,9000", "only": ".*", "tests": ",".join((*traffic.TESTS, *scale.TESTS)),
        "tunnels": 1_000, "flows": 1_000_000}
# What does not depend on the size of a packet, or has no goal there, is measured at the first MTU only.
FIRST_MTU_ONLY = ("udp64", "rr")


def main():
    options, engines = arguments()
    need(options)
    bed.sweep()
    results, failures = report.Results(options), []
    with peers.Workshop() as workshop:
        for mtu in options.mtu:
            tests = [test for test in options.tests if test in traffic.TESTS]
            if mtu != options.mtu[0]:
                tests = [test for test in tests if test not in FIRST_MTU_ONLY]
            for number in range(options.rounds if tests else 0):
                for engine in engines.values():
                    failures += one_round(workshop, results, engine, mtu, tests, number, options)
        for test in options.tests:
            if test in scale.TESTS and "ingre" in engines:
                try:
                    results.scale[test] = getattr(scale, test)(workshop, engines["ingre"], options)
                except (RuntimeError, OSError) as error:
                    failures.append(failed(test, error))
    text = report.document(results, engines, options)
    print(text, end="")
    if options.markdown:
        report.write(options.markdown, text)
    if failures:
        sys.exit("\n".join(["failed:", *failures]))


def one_round(workshop, results, engine, mtu, tests, number, options):
    """Every test once, all in one bed; returns what has failed."""
    failures, left = [], list(tests)
    try:
        with bed.bed(workshop, engine, mtu) as made:
            for test in tests:
                name = f"round {number + 1}, MTU {mtu}, {engine.name}, {test}"
                try:
                    result = traffic.run_test(made, test, options.secs, options.congestion)
                    print(f"{name}: {', '.join(f'{key} {value:.3g}' for key, value in result.items())}", file=sys.stderr)
                except RuntimeError as error:
                    result = None
                    failures.append(failed(name, error))
                results.add(mtu, engine.name, test, result)
                left.remove(test)
    except (RuntimeError, OSError) as error:
        failures.append(failed(f"round {number + 1}, MTU {mtu}, {engine.name}", error))
        for test in left:
            results.add(mtu, engine.name, test, None)
    return failures


def failed(what, error):
    text = f"{what}: {error}"
    print(text, file=sys.stderr)
    return text.splitlines()[0]


def arguments():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=Path, default=root / "target/release/ingre",
                        help="default: target/release/ingre; the per-packet tunnel is looked for in examples/ beside it")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--secs", type=int, help="length of one test of one engine")
    parser.add_argument("--only", help="engines, each a name or a regular expression")
    parser.add_argument("--mtu", help="of the veth, comma-separated")
    parser.add_argument("--tests", help=f"of {FULL['tests']}")
    parser.add_argument("--congestion", default="cubic", help="TCP's congestion control; default: %(default)s")
    parser.add_argument("--tunnels", type=int, help="how many in `tunnels` and `idle`")
    parser.add_argument("--flows", type=int, help="how many in `flows`")
    parser.add_argument("--markdown", type=Path, help="write the tables here as well, between the markers if the file has them")
    parser.add_argument("--quick", action="store_true", help="one short round at a small scale: does everything carry?")
    options = parser.parse_args()
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.tests, options.mtu = options.tests.split(","), [int(mtu) for mtu in options.mtu.split(",")]
    unknown = [test for test in options.tests if test not in (*traffic.TESTS, *scale.TESTS)]
    if unknown:
        parser.error(f"no test {', '.join(unknown)}; there are: {FULL['tests']}")
    if options.rounds < 1 or options.secs < 1 or options.tunnels < 1 or options.flows < 100:
        parser.error("at least one round of one second, one tunnel and a hundred flows")
    options.binary = options.binary.resolve()
    baseline = options.binary.parent / "examples/per_packet"
    known = all_engines(options.binary, baseline)
    options.only = [name for name in known if any(re.fullmatch(word, name) for word in options.only.split(","))]
    if not options.only:
        parser.error(f"no such engine; there are: {', '.join(known)}")
    for program, build in ((options.binary, ""), (baseline, " -p encap --example per_packet")):
        if not program.is_file():
            parser.error(f"no {program}: cargo build --locked --release{build}")
    return options, {name: known[name] for name in options.only}


def need(options):
    """Ends with what this machine lacks."""
    packages = dict(PACKAGES)
    if "rr" in options.tests:
        packages["sockperf"] = "sockperf"
    if any(name.endswith("-sw") for name in options.only):
        packages["ethtool"] = "ethtool"
    if SWITCH in options.only:
        packages |= SWITCH_PACKAGES
    peers.need(packages)
    if os.geteuid() != 0:
        sys.exit("needs root: network namespaces, TUN devices, raw sockets")
    if not os.path.exists("/dev/net/tun"):
        sys.exit("needs /dev/net/tun: modprobe tun, or docker run --device /dev/net/tun")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
