#!/usr/bin/env python3
"""User instructions that ingre spends on a request, counted by callgrind: a figure that no neighbour disturbs.

One connection, one request after the other, 1 KiB from an origin in this process. Start and end of the program are the
same however many requests there are, so the count is (3000 requests - 1000 requests) / 2000.

It says nothing about the kernel, where most of the time of a proxy goes, and nothing about caches. Valgrind has no
AVX-512: in the TLS figure AES is other code than on a CPU that has it, so only plain HTTP is held to a limit.
"""
import argparse
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import peers

FEW, MANY = 1000, 3000
MOST_GROWTH = 0.10
PACKAGES = {"valgrind": "valgrind", "openssl": "openssl"}
BODY = b"x" * 1024
# The fields that nginx sends with a page of its own.
ANSWER = b"""HTTP/1.1 200 OK\r
Server: nginx\r
Date: Thu, 01 Jan 2026 00:00:00 GMT\r
Content-Type: application/octet-stream\r
Content-Length: 1024\r
Connection: keep-alive\r
\r
""" + BODY
REQUEST = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n"


def main():
    options = arguments()
    peers.need(PACKAGES)
    with peers.Workshop() as workshop:
        workshop.make_certificate()
        origin = start_origin()
        counts = {}
        for name, tls in (("h1", False), ("tls-h1", True)):
            few, many = (count(workshop, options.binary, origin, tls, requests) for requests in (FEW, MANY))
            counts[name] = round((many - few) / (MANY - FEW))
            print(f"{options.profile_name}: {counts[name]:,} instructions per request, {name}", flush=True)
    if options.record:
        record(options.record, options.profile_name, counts)
    if options.check:
        check(options.check, options.profile_name, counts)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--binary", type=Path, default=root / "target/debug/ingre", help="default: target/debug/ingre")
    parser.add_argument("--profile-name", help="what the figures are kept under; default: the directory of the binary")
    parser.add_argument("--check", type=Path, metavar="FILE",
                        help=f"fail when plain HTTP needs {MOST_GROWTH:.0%} more than FILE says")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the figures into FILE, beside those of other profiles")
    options = parser.parse_args()
    if not options.binary.is_file():
        parser.error(f"no {options.binary}: cargo build --locked")
    options.binary = options.binary.resolve()
    options.profile_name = options.profile_name or options.binary.parent.name
    return options


# ----------------------------------------------------------------------------------------------------------- count

def count(workshop, binary, origin, tls, requests):
    """Instructions of the whole life of an ingre that serves so many requests."""
    http, https, admin = peers.free_ports(3)
    config, result, log = (workshop.dir / name for name in ("config.yaml", "callgrind.out", "log"))
    config.write_text(peers.ingre_config({"http_port": http, "https_port": https, "admin_port": admin, "cert": workshop.cert,
                                          "key": workshop.key, "upstream": f"127.0.0.1:{origin}"}))
    for old in (result, log):
        old.unlink(missing_ok=True)
    process = workshop.processes.start(["valgrind", "--tool=callgrind", f"--callgrind-out-file={result}",
                                        str(binary), "run", "-c", str(config)], log)
    peers.wait_until(lambda: "ready, " in peers.text_of(log), 120, "ingre is ready", process, log)
    ask(https if tls else http, tls, requests)
    process.terminate()
    try:
        code = process.wait(60)
    except subprocess.TimeoutExpired:
        code = "no exit code within 60 s"
    total = re.search(r"^totals: (\d+)$", peers.text_of(result), re.MULTILINE)
    if code != 0 or not total:
        raise RuntimeError(f"ingre under valgrind: {code}\n{peers.text_of(log)[-1000:]}")
    workshop.processes.stop(process)
    return int(total[1])


def ask(port, tls, requests):
    """One connection; the next request when the whole answer is there."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client_context().wrap_socket(connection, server_hostname="localhost") if tls else connection as connection:
            for _ in range(requests):
                connection.sendall(REQUEST)
                head, body = read_head(connection)
                while len(body) < len(BODY):
                    body += receive(connection)
                if not head.startswith(b"HTTP/1.1 200 ") or body != BODY:
                    raise RuntimeError(f"not the page: {head!r}")


def client_context():
    # The certificate is one that signs itself: nobody is to be trusted here.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    return context


# ---------------------------------------------------------------------------------------------------------- origin

def start_origin():
    """A thread for each connection; all end with this process. Returns the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def serve(connection):
    with connection:
        try:
            while True:
                read_head(connection)
                connection.sendall(ANSWER)
        except OSError:
            # The proxy has closed a connection that it kept.
            pass


def read_head(connection):
    """The head, and what has come of the body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def receive(connection):
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed in the middle")
    return data


# --------------------------------------------------------------------------------------------------------- recorded

def record(path, profile, counts):
    recorded = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**recorded, profile: counts}, indent=2, sort_keys=True) + "\n")
    print(f"written to {path}")


def check(path, profile, counts):
    recorded = json.loads(path.read_text()).get(profile, {}).get("h1")
    if recorded is None:
        sys.exit(f"{path} has no figure for {profile}: `just instructions-record`")
    growth = counts["h1"] / recorded - 1
    if growth > MOST_GROWTH:
        sys.exit(f"a plain HTTP request takes {counts['h1']:,} instructions, {growth:.1%} more than the {recorded:,} of {path};"
                 f" {MOST_GROWTH:.0%} are allowed. Find out why; if it is worth it: `just instructions-record`")
    print(f"{profile}: {growth:+.1%} against {recorded:,} recorded for h1, at most {MOST_GROWTH:+.0%} allowed")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
