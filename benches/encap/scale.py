"""Many tunnels and many flows: what a packet costs then, memory, and the time to come and go."""
import sys
import time
from contextlib import ExitStack

import peers

from . import flood
from .bed import bed

# Packets a second; the engines need well below one core for them.
RATE = 20_000
SPREAD = 100
# Packets that may be on their way while a table is filled: a device's queue has room for 500.
FILL_CHUNK, FILL_WINDOW = 128, 256
TESTS = ("tunnels", "flows", "idle")
# Starting and ending a thousand tunnels is slow and steady.
IDLE_ROUNDS = 3


def tunnels(workshop, engine, options):
    """Rounds of {"one", "among", "spread"}: CPU microseconds per packet with one tunnel; with many, into one of them; with
    many, into a hundred of them."""
    count, rounds = options.tunnels, []
    with ExitStack() as stack:
        alone, many = (stack.enter_context(bed(workshop, engine, 1500, tunnels)) for tunnels in (1, count))
        for where in (alone, many):
            stack.enter_context(flood.sink(where))
        cases = {"one": (alone, [0]), "among": (many, [count // 2]), "spread": (many, range(0, count, -(-count // SPREAD)))}
        for _ in range(options.rounds):
            one_round = {}
            for name, (where, into) in cases.items():
                with flood.OneFlow(where, into) as source:
                    one_round[name] = cost(where, source, flood.one_flow(), options.secs)
            rounds.append(told("tunnels", one_round))
    return rounds


def flows(workshop, engine, options):
    """Rounds of {"one", "known", "forgotten"}: CPU microseconds per packet of one flow, of random flows that all are known, and
    of the same flows when there is no room for them; and {"known": {"A", "B"}, "forgotten": ...}: bytes of memory that each
    engine took for them."""
    rounds, all_flows = [], flood.random_flows(options.flows)
    again = flood.shuffled(all_flows)
    with ExitStack() as stack:
        enter = stack.enter_context
        room = {"one": None, "known": options.flows * 5 // 4, "forgotten": None}
        beds = {name: enter(bed(workshop, engine, 1500, flows=flows)) for name, flows in room.items()}
        sources = {name: enter(flood.Flood(where, [0])) for name, where in beds.items()}
        before = {(name, side): where.resident_bytes(side) for name, where in beds.items() for side in where.engines}
        for _ in range(options.rounds):
            one_round = {"one": cost(beds["one"], sources["one"], flood.one_flow(), options.secs)}
            for name in ("known", "forgotten"):
                # Each time, so that none is too old.
                fill(beds[name], sources[name], all_flows)
                one_round[name] = cost(beds[name], sources[name], again, options.secs)
            rounds.append(told("flows", one_round))
        growth = {name: {side: beds[name].resident_bytes(side) - before[name, side] for side in beds[name].engines}
                  for name in ("known", "forgotten")}
    return rounds, growth


def fill(where, source, all_flows):
    """One packet of every flow, as fast as they go through without loss."""
    start, sent, lost = tunnelled(where), 0, 0
    step = FILL_CHUNK * flood.PORTS_BYTES
    for at in range(0, len(all_flows), step):
        source.send(all_flows[at:at + step], FILL_CHUNK)
        sent += FILL_CHUNK
        end = time.monotonic() + 0.2
        while sent - lost - (tunnelled(where) - start) > FILL_WINDOW:
            if time.monotonic() > end:
                lost = sent - (tunnelled(where) - start)
                break
            time.sleep(0.0002)
    if lost > 0.01 * sent:
        print(f"{lost} of {sent} flows did not come through", file=sys.stderr)


def idle(workshop, engine, options):
    """Rounds of {"ready", "gone", "resident", "machine", "cpu"}: seconds until every tunnel of A has carried an echo; seconds
    from the signal until A has ended; bytes of A's processes; bytes by which the machine's available memory shrank, per side;
    CPU-seconds per second."""
    rounds = []
    for _ in range(min(options.rounds, IDLE_ROUNDS)):
        free = available()
        with bed(workshop, engine, 1500, options.tunnels) as made:
            one_round = {"ready": made.seconds_to_ready, "resident": made.resident_bytes("A"),
                         "machine": (free - available()) / len(made.engines)}
            cpu = peers.cpu_seconds(made.engines["A"].pid)
            time.sleep(options.secs)
            one_round["cpu"] = (peers.cpu_seconds(made.engines["A"].pid) - cpu) / options.secs
            since = time.monotonic()
            made.end(made.engines.pop("A"))
            while tunnels_of(made, "A") and time.monotonic() < since + 60:
                time.sleep(0.05)
            one_round["gone"] = time.monotonic() - since
            rounds.append(told("idle", one_round))
    return rounds


def cost(where, source, packets, seconds):
    """CPU microseconds of both engines per packet that came out of B's tunnels."""
    cpu, received = where.cpu_seconds(), tunnelled(where)
    count = RATE * seconds
    source.send(packets, count, RATE)
    # What is still on its way.
    time.sleep(0.05)
    cpu, received = where.cpu_seconds() - cpu, tunnelled(where) - received
    where.check()
    if received < 0.5 * count:
        raise RuntimeError(f"{received} of {count} packets came through")
    if received < 0.99 * count:
        print(f"{received} of {count} packets came through: is the machine busy?", file=sys.stderr)
    return cpu / received * 1e6


def tunnelled(where):
    """Packets that came out of B's tunnels so far."""
    return sum(tunnels_of(where, "B"))


def tunnels_of(where, side):
    return [packets for device, packets in where.devices(side).items() if device.startswith("gt")]


def available():
    line = next(line for line in peers.text_of("/proc/meminfo").splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) << 10


def told(test, values):
    print(f"{test}: {', '.join(f'{name} {value:.4g}' for name, value in values.items())}", file=sys.stderr)
    return values
