#!/usr/bin/env python3
"""ingre next to Debian's nginx and HAProxy: work per CPU-second of the proxy.

The proxy has core 0 and one worker; the server behind it and the load share core 1. CPU time is that of the proxy's
process tree, so neighbours and a load generator that is too slow disturb it far less than they disturb requests per
second. Rounds are interleaved (A B C, A B C), ratios are taken inside a round, and their median is printed. All
traffic stays on loopback. docs/performance.md says what the figures mean.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import peers
from load import LOAD_CORE, PROXY_CORE, SCENARIOS, Load

PACKAGES = {"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl",
            "curl": "curl", "taskset": "util-linux"}
LOGGED = "ingre with JSON access log"


def main():
    options = arguments()
    peers.need(PACKAGES)
    if not {PROXY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        sys.exit("needs cores 0 and 1")
    with peers.Workshop() as workshop:
        workshop.make_certificate()
        origin = peers.start_origin(workshop, LOAD_CORE)
        makers = {"ingre": peers.ingre(options.binary), "nginx": peers.nginx(), "HAProxy": peers.haproxy()}
        if options.access_log:
            makers[LOGGED] = peers.ingre(options.binary, logged=True)
        proxies = [peers.Proxy(workshop, name, PROXY_CORE, origin, make) for name, make in makers.items()]
        load = Load(workshop, LOAD_CORE)
        rows = []
        for name in options.scenarios:
            rows += rows_of(SCENARIOS[name], measure(load, name, SCENARIOS[name], proxies, options))
        text = document(rows, options)
    print(text, end="")
    if options.markdown:
        options.markdown.write_text(text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--binary", type=Path, default=root / "target/release/ingre", help="default: target/release/ingre")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=int, default=3, help="length of a round of one proxy")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="default: %(default)s")
    parser.add_argument("--access-log", action="store_true", help=f"also `{LOGGED}`, in the scenarios that count requests")
    parser.add_argument("--markdown", type=Path, help="write the table here as well")
    options = parser.parse_args()
    options.scenarios = options.scenarios.split(",")
    unknown = [name for name in options.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are: {', '.join(SCENARIOS)}")
    if options.rounds < 1 or options.secs < 1:
        parser.error("at least one round of one second")
    if not options.binary.is_file():
        parser.error(f"no {options.binary}: cargo build --locked --release")
    options.binary = options.binary.resolve()
    return options


# --------------------------------------------------------------------------------------------------------- measure

def measure(load, name, scenario, proxies, options):
    """One list per proxy with (work per CPU-second, p99) of each round, `None` where a round has failed."""
    proxies = [proxy for proxy in proxies if proxy.name != LOGGED or scenario.unit == "requests"]
    results = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:
        # Connections to the origin, memory, caches.
        one(load, name, scenario, proxy, 1)
    print(f"{name}: warmed up", file=sys.stderr)
    for _ in range(options.rounds):
        for proxy in proxies:
            results[proxy.name].append(one(load, name, scenario, proxy, options.secs))
    return results


def one(load, name, scenario, proxy, seconds):
    cpu, wall = peers.cpu_seconds(proxy.process.pid), time.monotonic()
    try:
        done = scenario.run(load, proxy, seconds)
    except RuntimeError as error:
        print(f"{name}, {proxy.name}: {error}", file=sys.stderr)
        return None
    finally:
        # Opened for appending, so the next line goes to the new end.
        if proxy.access_log:
            os.truncate(proxy.access_log, 0)
    wall, cpu = time.monotonic() - wall, peers.cpu_seconds(proxy.process.pid) - cpu
    if proxy.process.poll() is not None or cpu <= 0:
        sys.exit(f"{proxy.name} has ended, or this kernel has no /proc/PID/task/*/schedstat")
    print(f"{name}, {proxy.name}: {done.work / cpu:,.0f} per CPU-second, {cpu / wall:.0%} of its core", file=sys.stderr)
    return done.work / cpu, done.p99


# ----------------------------------------------------------------------------------------------------------- table

def rows_of(scenario, results):
    """One row; one more where ingre has been measured with its log, set against the same rounds of the others."""
    rows = []
    for name, title in (("ingre", scenario.title), (LOGGED, f"{scenario.title}: {LOGGED}")):
        if name in results:
            p99 = [median(result[1] for result in results[of] if result) for of in (name, "nginx", "HAProxy")]
            rows.append([title, f"{show(median(result[0] for result in results[name] if result), ',.0f')} {scenario.unit}",
                         *(show(ratio(results[name], results[peer]), ".2f") for peer in ("nginx", "HAProxy")),
                         " / ".join(show(value, ".1f") for value in p99) if any(p99) else "–"])
    return rows


def ratio(ours, theirs):
    """Of each round by itself: what changes from round to round is the same for both."""
    return median(a[0] / b[0] for a, b in zip(ours, theirs) if a and b)


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def show(value, form):
    return "–" if value is None else format(value, form)


def document(rows, options):
    versions = [first_line(options.binary, "version"), nginx_version(["nginx"]), haproxy_version(["haproxy"])]
    head = ["", "ingre per CPU-second", "÷ nginx", "÷ HAProxy", "p99 ms: ingre / nginx / HAProxy"]
    return table(versions, options, head, rows)


def table(versions, options, head, rows):
    lines = [f"{date.today()}, Linux {os.uname().release}, {cpu_model()}; {', '.join(versions)}; rounds: "
             f"{options.rounds} x {options.secs} s, medians.", "", line(head), line(["---", *["--:"] * (len(head) - 1)]), *map(line, rows)]
    return "\n".join(lines) + "\n"


def line(cells):
    return f"| {' | '.join(cells)} |"


def nginx_version(program):
    return first_line(*program, "-v").partition("version: ")[2].replace("/", " ")


def haproxy_version(program):
    return "HAProxy " + first_line(*program, "-v").split()[2].partition("-")[0]


def first_line(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True, timeout=10)
    return done.stdout.splitlines()[0]


def cpu_model():
    fields = (text.partition(":") for text in peers.text_of("/proc/cpuinfo").splitlines())
    return next((value.strip() for key, _, value in fields if key.strip() == "model name"), os.uname().machine)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(str(error))
