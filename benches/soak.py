#!/usr/bin/env python3
"""Mixed TCP and UDP through two tunnels for a long time, while others come and go by SIGHUP at both ends.

Exit status 1 when a sum differs, a tunnel that stays has dropped a packet, a datagram is lost that nobody has counted, or
something grows: memory, descriptors, routing rules. Needs root.
"""
import argparse
import collections
import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import sys
import time
from pathlib import Path

import peers
from encap import bed
from encap.engines import Engine, tunnel
from encap.mixture import Mixture

STAYING, COMING = 2, 20
ADMIN = "127.0.0.1", 9901
# Seconds between two changes; bytes by which a process may grow after the first third.
PERIOD, GROWTH = 1.0, 4 << 20


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=Path, default=root / "target/release/ingre", help="default: target/release/ingre")
    parser.add_argument("--minutes", type=float, default=30, help="default: %(default)s")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root: network namespaces, TUN devices, raw sockets")
    peers.need({"ip": "iproute2"})
    bed.sweep()
    with peers.Workshop() as workshop, bed.bed(workshop, engine(options.binary.resolve()), 1500, STAYING) as made:
        problems = soak(made, options.minutes * 60)
    if problems:
        sys.exit("\n".join(["failed:", *problems]))
    print("passed")


def engine(binary):
    def start(made, side):
        configure(made, side, [])
        process = made.start(side, [binary, "encap", "-c", config(made, side)], is_engine=True)
        made.wait_for(side, process, "start", lambda: "carrying 2 tunnels" in peers.text_of(made.log(side)))
    return Engine("soak", "ingre, two tunnels and others that come and go", start)


def config(made, side):
    return made.log(side).with_suffix(".yaml")


def configure(made, side, coming):
    """The tunnels that stay, and some of the others."""
    numbers = [*range(STAYING), *(STAYING + number for number in coming)]
    text = f"admin: {{address: \"{ADMIN[0]}:{ADMIN[1]}\"}}\ntunnels:\n"
    config(made, side).write_text(text + "".join(tunnel(side, number, "gre", None) for number in numbers))


def soak(made, seconds):
    """What went wrong."""
    end, samples, strays, turns = time.monotonic() + seconds, [], 0, 0
    # What has obeyed once is complete.
    for side in bed.SIDES:
        change(made, side, [])
    begin = {side: state(made, side) for side in bed.SIDES}
    mixtures = [Mixture(made, number) for number in range(STAYING)]
    told = time.monotonic()
    while time.monotonic() < end and not any(mixture.failure for mixture in mixtures):
        coming = sorted(random.sample(range(COMING), random.randrange(COMING)))
        for side in random.sample(bed.SIDES, 2):
            change(made, side, coming)
        strays += stray(made, coming)
        turns += 1
        made.check()
        samples.append({side: made.resident_bytes(side) for side in bed.SIDES})
        if time.monotonic() > told + 60:
            told = time.monotonic()
            print(f"{turns} changes, {summary(mixtures)}, {samples[-1]}", file=sys.stderr)
        time.sleep(PERIOD)
    for mixture in mixtures:
        mixture.stop()
    for side in bed.SIDES:
        change(made, side, [])
    print(f"{turns} changes, {summary(mixtures)}; resident bytes, first and last: {samples[0]}, {samples[-1]}")
    problems = [mixture.failure for mixture in mixtures if mixture.failure]
    problems += [f"tunnel {mixture.tunnel}: nothing carried" for mixture in mixtures if not mixture.streams * mixture.datagrams]
    counted = udp_errors(made)
    for side in bed.SIDES:
        page, final = tunnels(made, side), settled(made, side, begin[side])
        problems += [f"{side}, {entry['name']}: dropped {entry['drops']}" for entry in page["tunnels"] if entry["drops"]]
        counted += sum(page["edges"].values())
        # A datagram for a tunnel that the other side has given up already, or its answer.
        foreign = {reason: count for reason, count in page["unmatched"].items() if reason != "unknown_peer"}
        if foreign or page["unmatched"].get("unknown_peer", 0) > strays:
            problems.append(f"{side}: dropped {page['unmatched']}; {strays} packets may have been for nobody")
        if final != begin[side]:
            problems.append(f"{side}: (descriptors, devices, rules) were {begin[side]} and are {final}")
        # Both ends of the comparison are the most of many moments: with other tunnels, a process has another size.
        third = len(samples) // 3
        first, last = (max(sample[side] for sample in part) for part in (samples[:third + 1], samples[-third - 1:]))
        if last > first + GROWTH:
            problems.append(f"{side}: resident bytes grew from {first} to {last}")
    lost = sum(mixture.lost for mixture in mixtures)
    if lost > counted:
        problems.append(f"{lost} datagrams are lost, {counted} drops are counted")
    return problems


def change(made, side, coming):
    """Gives one end other tunnels and waits until it says so."""
    said = peers.text_of(made.log(side)).count("reloaded")
    configure(made, side, coming)
    made.engines[side].send_signal(signal.SIGHUP)
    made.wait_for(side, made.engines[side], "reload", lambda: peers.text_of(made.log(side)).count("reloaded") > said, 30)
    last = [line for line in peers.text_of(made.log(side)).splitlines() if "reloaded" in line][-1]
    if not last.endswith(f"reloaded, carrying {STAYING + len(coming)} tunnels"):
        raise RuntimeError(f"{side}: {last}")


def stray(made, coming):
    """One datagram into each tunnel that has come; how many packets that makes at most."""
    for number in coming:
        with made.inside("A"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, made.tunnel_device(STAYING + number).encode())
            asker.sendto(b"stray", (bed.inner("B", STAYING + number), 9))
    return 2 * len(coming)


def state(made, side):
    """What must be the same with the same tunnels: open descriptors by kind, devices, routing rules."""
    descriptors = collections.Counter()
    for pid in peers.tree(made.engines[side].pid):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                descriptors[re.sub(r":\[\d+\]$", "", os.readlink(link))] += 1
    return dict(descriptors), len(made.devices(side)), len(made.ip(side, "rule").splitlines())


def settled(made, side, expected):
    """The state once it is the expected one, or what it still is after five seconds: a connection that somebody has just
    closed is open for a moment longer at the other end."""
    until = time.monotonic() + 5
    while (now := state(made, side)) != expected and time.monotonic() < until:
        time.sleep(0.05)
    return now


def tunnels(made, side):
    with made.inside(side):
        admin = http.client.HTTPConnection(*ADMIN, timeout=10)
        admin.request("GET", "/tunnels", headers={"Connection": "close"})
    page = json.loads(admin.getresponse().read())
    admin.close()
    return page


def udp_errors(made):
    """Datagrams that the kernels dropped because a socket or the memory for fragments was full."""
    count = 0
    for side in bed.SIDES:
        with made.inside(side):
            lines = [line.split() for line in peers.text_of("/proc/thread-self/net/snmp").splitlines()]
        for names, values in zip(lines[::2], lines[1::2]):
            count += sum(int(value) for name, value in zip(names[1:], values[1:])
                         if f"{names[0]}{name}" in ("Udp:RcvbufErrors", "Udp:SndbufErrors", "Ip:ReasmFails"))
    return count


def summary(mixtures):
    total = lambda what: sum(getattr(mixture, what) for mixture in mixtures)
    return (f"{total('streams')} streams with {total('bytes') / 1e9:.1f} GB, {total('datagrams')} datagrams of which "
            f"{total('lost')} lost")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
