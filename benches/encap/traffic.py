"""One test of one engine: TCP and UDP by iperf3, round trips by sockperf, and the CPU time they take."""
import glob
import json
import re
import resource
import subprocess
import time

import peers

IPERF_PORT, SOCKPERF_PORT = 5201, 11111
# Small packets at a rate that all carry without loss: 15 625 datagrams of 64 bytes a second.
SMALL_BYTES, SMALL_BITS_PER_SECOND = 64, 8_000_000

STREAMS = {"tcp1": (1, False), "tcp1r": (1, True), "tcp4": (4, False), "tcp4r": (4, True)}
TESTS = (*STREAMS, "udp64", "rr")


def run_test(bed, test, seconds, congestion):
    """What was carried: {"gbps" | "kpps" | "p50", ..., "engine", "all"}, the last two CPU-seconds per GB, per million packets
    (microseconds per packet) or per million round trips."""
    before = Cpu(bed)
    if test in STREAMS:
        result, unit = tcp(bed, seconds, congestion, *STREAMS[test])
    elif test == "udp64":
        result, unit = udp(bed, seconds)
    else:
        result, unit = round_trips(bed, seconds)
    after = Cpu(bed)
    bed.check()
    result["engine"] = (after.engine - before.engine) / unit
    result["all"] = (after.all - before.all) / unit
    return result


class Cpu:
    """CPU-seconds so far: of both engines; and with the load generators, which have been waited for, and the kernel's threads
    that move packets."""

    def __init__(self, bed):
        self.engine = bed.cpu_seconds()
        load = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.all = self.engine + load.ru_utime + load.ru_stime + sum(map(thread_seconds, kernel_threads()))


def kernel_threads():
    return [path.rpartition("/")[0] for path in glob.glob("/proc/[0-9]*/comm")
            if peers.text_of(path).startswith(("ksoftirqd/", "napi/"))]


def thread_seconds(directory):
    fields = peers.text_of(f"{directory}/schedstat").split()
    return int(fields[0]) / 1e9 if fields else 0


def tcp(bed, seconds, congestion, streams, reverse):
    # By socket: only the first network namespace may make just any algorithm the default.
    end = iperf(bed, seconds, "-P", str(streams), "-C", congestion, *(["-R"] if reverse else []))
    received = end["sum_received"]
    if not received["bytes"]:
        raise RuntimeError("nothing was received")
    return {"gbps": received["bits_per_second"] / 1e9}, received["bytes"] / 1e9


def udp(bed, seconds):
    total = iperf(bed, seconds, "-u", "-l", str(SMALL_BYTES), "-b", str(SMALL_BITS_PER_SECOND))["sum"]
    received = total["packets"] - total["lost_packets"]
    if received <= 0:
        raise RuntimeError("nothing was received")
    return {"kpps": received / total["seconds"] / 1e3, "lost": total["lost_percent"]}, received / 1e6


def iperf(bed, seconds, *options):
    with server(bed, IPERF_PORT, ["iperf3", "-s", "-1", "-B", bed.target]):
        text = client(bed, seconds, ["iperf3", "-J", "-c", bed.target, "-t", str(seconds), *options])
    try:
        report = json.loads(text)
        end = report["end"]
    except (ValueError, KeyError):
        raise RuntimeError(f"iperf3: {text.strip()[-300:]}") from None
    if not end.get("sum_received", end.get("sum")):
        raise RuntimeError(f"iperf3: {report.get('error', 'no result')}")
    return end


def round_trips(bed, seconds):
    where = ["--tcp", "-i", bed.target, "-p", str(SOCKPERF_PORT)]
    with server(bed, SOCKPERF_PORT, ["sockperf", "sr", *where]):
        text = client(bed, seconds, ["sockperf", "pp", *where, "-t", str(seconds), "-m", "64", "--full-rtt"])
    found = [re.search(pattern, text) for pattern in (r"percentile 50\.0+ ?=\s*([\d.]+)", r"percentile 99\.0+ ?=\s*([\d.]+)",
                                                      r"\[Valid Duration\].*ReceivedMessages=(\d+)")]
    if not all(found):
        raise RuntimeError(f"sockperf: {text.strip()[-300:]}")
    p50, p99, trips = (float(match.group(1)) for match in found)
    return {"p50": p50, "p99": p99}, trips / 1e6


class server:
    """A server on B, there before the client is and waited for after it."""

    def __init__(self, bed, port, command):
        self.bed, self.port, self.command = bed, port, command

    def __enter__(self):
        self.process = self.bed.start("B", self.command)
        self.bed.wait_for("B", self.process, self.command[0], lambda: self.bed.listens("B", self.port), 5)

    def __exit__(self, *_):
        # iperf3 ends by itself after one client, but not without one.
        deadline = time.monotonic() + 0.5
        while self.process.poll() is None and self.command[0] == "iperf3" and time.monotonic() < deadline:
            time.sleep(0.01)
        self.bed.end(self.process)


def client(bed, seconds, command):
    with bed.inside("A"):
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds * 3 + 15)
            return done.stdout or done.stderr
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{command[0]}: not done within {seconds * 3 + 15} s") from None
