#!/usr/bin/env python3
"""The loads of the benchmark, once each, without anybody to compare with: what a profile of the program is gathered from.

The binary is one that was built to count (`just optimised`); it writes the profile when it ends. The access log is on, as it
is for nearly everybody: what the profile does not know counts as seldom.
"""
import argparse
import os
import sys
from pathlib import Path

import peers
from load import SCENARIOS, alone

PACKAGES = {"nginx": "nginx", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl", "curl": "curl",
            "taskset": "util-linux"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--secs", type=int, default=3, help="length of each load")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="default: %(default)s")
    options = parser.parse_args()
    peers.need(PACKAGES)
    with alone(options.binary, logged=True) as (load, proxy):
        for name in options.scenarios.split(","):
            done = SCENARIOS[name].run(load, proxy, options.secs)
            os.truncate(proxy.access_log, 0)
            print(f"{SCENARIOS[name].title}: {done.work:,} {SCENARIOS[name].unit}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(str(error))
