"""The load of each scenario: what one run does, and how much of it was done."""
import os
import re
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable

import peers

PROXY_CORE, LOAD_CORE = 0, 1

# One cipher suite for every client, so that all proxies do the same cryptography: some would choose AES-256.
SUITE = "TLS_AES_128_GCM_SHA256"
OPENSSL = f"""openssl_conf = a
[a]
ssl_conf = b
[b]
system_default = c
[c]
MinProtocol = TLSv1.3
Ciphersuites = {SUITE}
Groups = X25519
"""
# What is open when the time is over counts as an error for some clients.
MOST_ERRORS = 0.002


@dataclass
class Done:
    """Requests, handshakes or MiB, and the slowest hundredth in milliseconds where that means something."""
    work: float
    p99: float | None = None


class Load:
    """Runs load generators on one core, one after the other."""

    def __init__(self, workshop, core):
        self.workshop, self.core = workshop, core
        config = workshop.dir / "openssl.cnf"
        config.write_text(OPENSSL)
        self.environment = {**os.environ, "OPENSSL_CONF": str(config)}
        # Zeros that take no memory. What is in them does not matter to any proxy.
        self.upload = workshop.dir / "100m"
        self.upload.touch()
        os.truncate(self.upload, 100 << 20)

    def run(self, command, seconds):
        """The output of a command that should take so long."""
        process = self.workshop.processes.start(command, core=self.core, env=self.environment, stdout=subprocess.PIPE,
                                                stderr=subprocess.STDOUT, text=True, errors="replace")
        try:
            return process.communicate(timeout=seconds + 20)[0]
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{command[0]} has not ended after {seconds + 20} s") from None
        finally:
            self.workshop.processes.stop(process)

    def wrk(self, url, connections, seconds, *headers):
        options = [f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
        output = self.run(["wrk", "-t1", *options, *(f"-H{header}" for header in headers), url], seconds)
        done = re.search(r"(\d+) requests in ", output)
        errors = re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", output)
        return checked("wrk", output, done and int(done[1]), sum(map(int, errors)))

    def h2load(self, url, connections, streams, seconds, *options):
        """Has a list of suites of its own. The windows are 1 MiB for a stream and 16 MiB for a connection, about what a
        browser has: the client is not to be the limit."""
        options = [f"-c{connections}", f"-m{streams}", f"-D{seconds}", f"--tls13-ciphers={SUITE}", "-w20", "-W24", *options]
        output = self.run(["h2load", "-t1", *options, url], seconds)
        counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
        done, *errors = map(int, counts.groups()) if counts else (None,)
        if "--h1" not in options and "Application protocol: h2" not in output:
            raise RuntimeError(f"h2load: no HTTP/2\n{output[-500:]}")
        return checked("h2load", output, done, sum(errors))


@contextmanager
def alone(binary, logged=False):
    """A load and ingre, with nobody to compare it with."""
    with peers.Workshop() as workshop:
        workshop.make_certificate()
        origin = peers.start_origin(workshop, LOAD_CORE)
        proxy = peers.Proxy(workshop, "ingre", PROXY_CORE, origin, peers.ingre(binary.resolve(), logged))
        yield Load(workshop, LOAD_CORE), proxy


def checked(program, output, done, errors):
    if not done or errors > done * MOST_ERRORS:
        raise RuntimeError(f"{program}: {done} done, {errors} errors\n{output[-500:]}")
    return done


# ------------------------------------------------------------------------------------------------------- scenarios

def h1(load, proxy, seconds):
    return Done(load.wrk(proxy.url(False, "/1k"), 64, seconds))


def tls_h1(load, proxy, seconds):
    return Done(load.wrk(proxy.url(True, "/1k"), 64, seconds))


def tls_h1_rate(load, proxy, seconds):
    """Far from the limit of any proxy: how much each needs for the same work, and how long requests take then."""
    log = load.workshop.dir / "h2load.log"
    log.unlink(missing_ok=True)
    done = load.h2load(proxy.url(True, "/1k"), 32, 1, seconds, "--h1", f"--rps={3000 / 32}", f"--log-file={log}")
    # Start, status and microseconds of each request.
    taken = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines() if line.count("\t") == 2)
    return Done(done, taken[len(taken) * 99 // 100] / 1000 if taken else None)


def tls_h2(load, proxy, seconds):
    return Done(load.h2load(proxy.url(True, "/1k"), 16, 32, seconds))


def handshakes(load, proxy, seconds):
    """wrk keeps no sessions: every connection is a full handshake and one request."""
    return Done(load.wrk(proxy.url(True, "/1k"), 32, seconds, "Connection: close"))


def download_h1(load, proxy, seconds):
    return Done(load.wrk(proxy.url(True, "/1m"), 16, seconds))


def download_h2(load, proxy, seconds):
    return Done(load.h2load(proxy.url(True, "/1m"), 4, 4, seconds))


def upload_h1(load, proxy, seconds):
    return upload(load, proxy, seconds, "--http1.1")


def upload_h2(load, proxy, seconds):
    return upload(load, proxy, seconds, "--http2")


def upload(load, proxy, seconds, version):
    """One after the other until the time is over; at least one."""
    end, done = time.monotonic() + seconds, 0
    while done == 0 or time.monotonic() < end:
        output = load.run(["curl", "-sSk", version, "-H", "Expect:", "-T", str(load.upload), "--max-time", "20",
                           "-w", "%{http_code} %{http_version} %{size_upload}", "-o", os.devnull,
                           proxy.url(True, "/up/file")], 20)
        wanted = {"--http1.1": "1.1", "--http2": "2"}[version]
        if not re.fullmatch(rf"20[14] {wanted} {100 << 20}", output.strip()):
            raise RuntimeError(f"curl: {output[-500:]}")
        done += 1
    return Done(done * 100)


@dataclass
class Scenario:
    """A row of the table."""
    title: str
    unit: str
    run: Callable[[Load, object, int], Done]


SCENARIOS = {
    "h1": Scenario("HTTP/1.1, 1 KiB, 64 connections", "requests", h1),
    "tls-h1": Scenario("TLS, HTTP/1.1, 1 KiB, 64 connections", "requests", tls_h1),
    "tls-h1-3000": Scenario("the same at 3,000/s, 32 connections", "requests", tls_h1_rate),
    "tls-h2": Scenario("TLS, HTTP/2, 1 KiB, 16 connections of 32 streams", "requests", tls_h2),
    "handshakes": Scenario("full TLS 1.3 handshake, one request each", "handshakes", handshakes),
    "download-h1": Scenario("download of 1 MiB, TLS, HTTP/1.1", "MiB", download_h1),
    "download-h2": Scenario("download of 1 MiB, TLS, HTTP/2", "MiB", download_h2),
    "upload-h1": Scenario("upload of 100 MiB, TLS, HTTP/1.1", "MiB", upload_h1),
    "upload-h2": Scenario("upload of 100 MiB, TLS, HTTP/2", "MiB", upload_h2),
}
