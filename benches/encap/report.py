"""The tables, and which goals are met."""
import os
import statistics
from datetime import date
from pathlib import Path

import peers

from . import traffic
from .bed import run
from .engines import BASELINE, PLAIN, SWITCH, UNSET
from .scale import SPREAD

GRE, IN_UDP = "ingre", "ingre-udp"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
STREAM_TITLES = {"tcp1": "1 stream", "tcp1r": "1 stream, reverse", "tcp4": "4 streams", "tcp4r": "4 streams, reverse"}
AT_LEAST, AT_MOST = "≥", "≤"


class Results:
    """path: by MTU, engine and test, what each round gave, or None; scale: by test."""

    def __init__(self, options):
        self.options, self.path, self.scale = options, {}, {}

    def add(self, mtu, engine, test, result):
        self.path.setdefault(mtu, {}).setdefault(engine, {}).setdefault(test, []).append(result)

    def rounds(self, mtu, engine, test):
        return self.path.get(mtu, {}).get(engine, {}).get(test, [])

    def value(self, mtu, engine, test, key):
        return median(result[key] for result in self.rounds(mtu, engine, test) if result)

    def ratio(self, mtu, engine, to, test, key):
        """Of each round by itself: what changes from round to round is the same for both."""
        pairs = zip(self.rounds(mtu, engine, test), self.rounds(mtu, to, test))
        return median(ours[key] / theirs[key] for ours, theirs in pairs if ours and theirs and theirs[key])

    def scale_ratio(self, test, key):
        return median(values[key] / values["one"] for values in self.scale_rounds(test))

    def scale_value(self, test, key):
        return median(values[key] for values in self.scale_rounds(test))

    def scale_rounds(self, test):
        return self.scale.get(test, ([], {}))[0] if test == "flows" else self.scale.get(test, [])

    def engines(self, mtu):
        return self.path.get(mtu, {})


def median(values):
    values = list(values)
    return statistics.median(values) if values else None


def show(value, form=".2f"):
    return "–" if value is None else format(value, form)


# ------------------------------------------------------------------------------------------------------- document

def document(results, engines, options):
    parts = [machine(options), goals(results)]
    for mtu in results.path:
        parts += [streams(results, mtu), ratios(results, mtu), small(results, mtu)]
    parts += [many(results), legend(results, engines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(path, text):
    """Between the markers of a file that has them, else as the whole file."""
    figures = f"{BEGIN}\n\n{text}\n{END}"
    old = path.read_text() if path.exists() else ""
    if BEGIN in old and END in old:
        head, tail = old.partition(BEGIN)[0], old.partition(END)[2]
        path.write_text(head + figures + tail)
    else:
        path.write_text(figures + "\n")


def machine(options):
    versions = [run(options.binary, "version").splitlines()[0], run("iperf3", "--version").splitlines()[0].partition(" (")[0]]
    if SWITCH in options.only:
        versions.append("Open vSwitch " + run("ovs-vswitchd", "--version").splitlines()[0].split()[-1])
    return (f"{date.today()}, Linux {os.uname().release}, {cpu_model()}, {len(os.sched_getaffinity(0))} cores; "
            f"{', '.join(versions)}; TCP with {options.congestion}; rounds: {options.rounds} x {options.secs} s, medians.")


def cpu_model():
    fields = (text.partition(":") for text in Path("/proc/cpuinfo").read_text().splitlines())
    return next((value.strip() for key, _, value in fields if key.strip() == "model name"), os.uname().machine)


def table(title, head, rows):
    if not rows:
        return ""
    line = lambda cells: f"| {' | '.join(cells)} |"
    return "\n".join([f"### {title}", "", line(head), line(["---"] + ["--:"] * (len(head) - 1)), *map(line, rows)])


# ---------------------------------------------------------------------------------------------------------- goals

def goals(results):
    against = lambda mtu, engine, to, key: [results.ratio(mtu, engine, to, test, key) for test in traffic.STREAMS]
    one = lambda test, key: [results.ratio(1500, GRE, BASELINE, test, key)]
    idle = lambda key, unit=1: [value and value / unit for value in [results.scale_value("idle", key)]]
    tunnels, flows = f"{results.options.tunnels:,}", f"{results.options.flows:,}"
    rows = [
        ("GRE, MTU 1500: Gb/s ÷ P1", AT_LEAST, 3.0, against(1500, GRE, BASELINE, "gbps")),
        ("GRE, MTU 1500: engine CPU per GB ÷ P1", AT_MOST, 0.40, against(1500, GRE, BASELINE, "engine")),
        ("GRE, MTU 9000: engine CPU per GB ÷ P1", AT_MOST, 0.70, against(9000, GRE, BASELINE, "engine")),
        ("GRE, 64 bytes at a fixed rate: engine CPU per packet ÷ P1", AT_MOST, 0.80, one("udp64", "engine")),
        ("GRE, round trip: p50 ÷ P1", AT_MOST, 1.2, one("rr", "p50")),
        ("GRE, MTU 1500: Gb/s ÷ OVS", AT_LEAST, 4.0, against(1500, GRE, SWITCH, "gbps")),
        ("GRE-in-UDP, MTU 1500: engine CPU per GB ÷ P1", AT_MOST, 0.18, against(1500, IN_UDP, BASELINE, "engine")),
        ("GRE-in-UDP, MTU 1500: Gb/s ÷ P1", AT_LEAST, 6.0, against(1500, IN_UDP, BASELINE, "gbps")),
        (f"{tunnels} tunnels: CPU per packet ÷ 1 tunnel", AT_MOST, 1.05, [results.scale_ratio("tunnels", "among")]),
        (f"{flows} random flows, all known or most forgotten: CPU per packet ÷ 1 flow", AT_MOST, 1.3,
         [results.scale_ratio("flows", key) for key in ("known", "forgotten")]),
        (f"{tunnels} idle tunnels: memory of the processes, MB", AT_MOST, 200, idle("resident", 1e6)),
        ("the same: seconds until all carry", AT_MOST, 5, idle("ready")),
        ("the same: seconds until they are gone", AT_MOST, 30, idle("gone")),
    ]
    return table("Goals", ["goal", "limit", "measured", ""],
                 [[what, f"{sign} {limit}", ", ".join(map(show, values)), verdict(sign, limit, values)]
                  for what, sign, limit, values in rows])


def verdict(sign, limit, values):
    """Met when every value is there and within the limit."""
    known = [value for value in values if value is not None]
    if not known:
        return "not measured"
    if not all(value >= limit if sign == AT_LEAST else value <= limit for value in known):
        return "**not met**"
    return "met" if len(known) == len(values) else "incomplete"


# ----------------------------------------------------------------------------------------------------------- path

def streams(results, mtu):
    tests = tests_of(results, mtu, traffic.STREAMS)
    cell = lambda engine, test: " / ".join(show(results.value(mtu, engine, test, key)) for key in ("gbps", "engine", "all"))
    rows = [[engine, *(cell(engine, test) for test in tests)] for engine in results.engines(mtu)]
    title = f"TCP, MTU {mtu}: Gb/s / engine CPU-s per GB / all CPU-s per GB"
    return table(title, ["", *(STREAM_TITLES[test] for test in tests)], rows if tests else [])


def ratios(results, mtu):
    """Against the per-packet engine, and what is left of the bare veth."""
    tests = tests_of(results, mtu, traffic.STREAMS)
    rows = []
    for engine in results.engines(mtu):
        if engine != UNSET and engine.startswith((PLAIN, BASELINE)):
            continue
        veth = PLAIN + ("-sw" if engine.endswith("-sw") else "")
        cell = lambda test: " / ".join(show(results.ratio(mtu, engine, to, test, key))
                                       for to, key in ((BASELINE, "gbps"), (BASELINE, "engine"), (veth, "gbps")))
        rows.append([engine, *map(cell, tests)])
    title = f"TCP, MTU {mtu}: Gb/s ÷ P1 / engine CPU per GB ÷ P1 / Gb/s ÷ the veth of the same kind"
    return table(title, ["", *(STREAM_TITLES[test] for test in tests)], rows if tests else [])


def small(results, mtu):
    rows = []
    for engine in results.engines(mtu):
        value = lambda test, key, form=".1f": show(results.value(mtu, engine, test, key), form)
        ratio = lambda test, key: show(results.ratio(mtu, engine, BASELINE, test, key))
        rows.append([engine, value("udp64", "kpps"), value("udp64", "lost"), value("udp64", "engine"), ratio("udp64", "engine"),
                     value("udp64", "all"), value("rr", "p50"), ratio("rr", "p50"), value("rr", "p99"), value("rr", "engine")])
    head = ["", "kpps received", "lost %", "engine CPU µs/packet", "÷ P1", "all CPU µs/packet", "RTT p50 µs", "÷ P1",
            "RTT p99 µs", "engine CPU µs/trip"]
    return table(f"UDP of 64 bytes at a fixed rate, and TCP round trips of 64 bytes, MTU {mtu}", head,
                 rows if tests_of(results, mtu, ("udp64", "rr")) else [])


def tests_of(results, mtu, tests):
    return [test for test in tests if any(test in per_test for per_test in results.engines(mtu).values())]


# ---------------------------------------------------------------------------------------------------------- scale

def many(results):
    tunnels, flows, rows = f"{results.options.tunnels:,}", f"{results.options.flows:,}", []
    cost = lambda test, key: [show(results.scale_value(test, key)), show(results.scale_ratio(test, key))]
    if "tunnels" in results.scale:
        rows += [["1 tunnel: CPU µs/packet", *cost("tunnels", "one")],
                 [f"{tunnels} tunnels, packets into one of them", *cost("tunnels", "among")],
                 [f"the same, packets into {min(SPREAD, results.options.tunnels)} of them", *cost("tunnels", "spread")]]
    if "flows" in results.scale:
        rows += [["1 flow: CPU µs/packet", *cost("flows", "one")]]
        for name, title in (("known", f"{flows} random flows, all known"), ("forgotten", "the same flows, room for 65,536")):
            growth = " / ".join(show(results.scale["flows"][1][name][side] / 1e6, ".1f") for side in "AB")
            rows += [[title, *cost("flows", name)], [f"{title}: memory of A and B in addition, MB", growth, "–"]]
    if "idle" in results.scale:
        value = lambda key, unit=1: show(results.scale_value("idle", key) / unit)
        rows += [[f"{tunnels} idle tunnels: memory of the processes, MB", value("resident", 1e6), "–"],
                 ["the same: memory of the whole machine, MB", value("machine", 1e6), "–"],
                 ["the same: CPU, milliseconds per second", value("cpu", 1e-3), "–"],
                 ["the same: seconds until all carry / are gone", f"{value('ready')} / {value('gone')}", "–"]]
    return table("Many tunnels, many flows: GRE, MTU 1500", ["", "measured", "÷ one"], rows)


def legend(results, engines):
    named = [f"{engine.name}: {engine.what}" for engine in engines.values()
             if any(engine.name in results.engines(mtu) for mtu in results.path)]
    return "; ".join(named) + "." if named else ""
