#!/usr/bin/env python3
"""Flame graphs of ingre under the two main loads: where its CPU time goes, kernel included where perf may see it.

Takes a binary with symbols and frame pointers; `just flame` builds one. Says so and succeeds where perf or a program that
draws flame graphs is missing.
"""
import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import peers
from load import SCENARIOS, alone

# Odd, so that it does not keep step with timers.
SAMPLES_PER_SECOND = 997
PAINTERS = (("inferno-collapse-perf", "inferno-flamegraph"), ("stackcollapse-perf.pl", "flamegraph.pl"))
PACKAGES = {"nginx": "nginx", "wrk": "wrk", "openssl": "openssl", "taskset": "util-linux"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="directory for the SVG files")
    parser.add_argument("--secs", type=int, default=5)
    parser.add_argument("--scenarios", default="h1,tls-h1")
    options = parser.parse_args()
    painter = next((pair for pair in PAINTERS if all(map(shutil.which, pair))), None)
    if not shutil.which("perf") or not painter:
        print("skipped: needs perf (Debian: linux-perf) and inferno or Brendan Gregg's FlameGraph scripts")
        return
    peers.need(PACKAGES)
    options.out.mkdir(parents=True, exist_ok=True)
    with alone(options.binary) as (load, proxy):
        for name in options.scenarios.split(","):
            SCENARIOS[name].run(load, proxy, 1)
            picture = options.out / f"{name}.svg"
            picture.write_text(paint(painter, name, record(load, proxy, name, options.secs)))
            print(picture)


def record(load, proxy, name, seconds):
    """Samples of the proxy's threads while the load runs, as perf prints them."""
    workshop = load.workshop
    data, log = workshop.dir / "perf.data", workshop.dir / "perf.log"
    # Ends by itself: perf that is told to stop may lose what it has not written yet.
    perf = workshop.processes.start(["perf", "record", "-q", "-F", str(SAMPLES_PER_SECOND), "--call-graph", "fp", "-o", str(data),
                                     "-p", str(proxy.process.pid), "--", "sleep", str(seconds)], log)
    SCENARIOS[name].run(load, proxy, seconds)
    try:
        perf.wait(30)
    finally:
        workshop.processes.stop(perf)
    script = subprocess.run(["perf", "script", "-i", data], capture_output=True, text=True, errors="replace", timeout=120)
    if script.returncode != 0 or not script.stdout:
        raise RuntimeError(f"perf has recorded nothing\n{peers.text_of(log)}{script.stderr[-1000:]}")
    return script.stdout


def paint(painter, name, script):
    collapse, draw = painter
    stacks = subprocess.run([collapse], input=script, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    options = ["--title", f"ingre: {SCENARIOS[name].title}"]
    return subprocess.run([draw, *options], input=stacks.stdout, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(str(error))
