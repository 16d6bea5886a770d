#!/usr/bin/env python3
"""What scanners say about TLS of the default configuration: sslyze and testssl.sh must find nothing to complain of.

Starts the program on a port of its own, with an RSA and an ECDSA certificate for the same name that a private authority has
signed, and lets both scanners look at it. What they say about an authority that nobody knows is left out, by name; nothing else is.

    tests/scanners.py --binary target/debug/ingre            the whole run: minutes
    tests/scanners.py --binary target/debug/ingre --quick    a part of it: seconds
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

NAME = "scanned.test"
CONFIGURATION = """\
listeners:
  - name: https
    address: "127.0.0.1:{port}"
    tls: {{certificates: [{{certificate: rsa.pem, key: rsa.key}}, {{certificate: ecdsa.pem, key: ecdsa.key}}]}}
pools: []
routes:
  - domains: ["*"]
    rules:
      - url: /
        respond: {{body: scanned}}
        response_headers:
          set:
            Strict-Transport-Security: "max-age=63072000"
            Content-Security-Policy: "default-src 'none'"
            X-Frame-Options: DENY
            X-Content-Type-Options: nosniff
            Referrer-Policy: no-referrer
access_log: {{output: "off"}}
"""
# What is said because the authority is private: a chain that leads to nobody, no lists, responders and logs of it, no record of it in DNS.
PRIVATE = (
    "cert_chain_of_trust",
    "cert_crlDistributionPoints",
    "cert_ocspURL",
    "cert_revocation",
    "cert_mustStapleExtension",
    "OCSP_stapling",
    "certificate_transparency",
    "DNS_CAArecord",
    "cert_caIssuers",
    # About the scanner itself.
    "engine_problem",
)
COMPLAINTS = ("LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL")


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


def certificates(directory):
    """An authority, and two certificates of the same name by it."""
    make = lambda *command: run("openssl", *command, cwd=directory)
    make("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
         "-days", "300", "-subj", "/O=Scanned/CN=Scanned root", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    make("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-rsa.key", "-out", "ca-rsa.pem",
         "-days", "300", "-subj", "/O=Scanned/CN=Scanned root RSA", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    (directory / "extensions").write_text(
        f"subjectAltName=DNS:{NAME}\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\n"
        "basicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    for kind, key, authority in (
        ("rsa", ["rsa:2048"], "ca-rsa"),
        ("ecdsa", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "ca"),
    ):
        make("req", "-newkey", *key, "-nodes", "-keyout", f"{kind}.key", "-out", f"{kind}.csr", "-subj", f"/CN={NAME}")
        make("x509", "-req", "-in", f"{kind}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-sha256",
             "-days", "200", "-extfile", "extensions", "-out", f"{kind}.pem")
    both = (directory / "ca.pem").read_text() + (directory / "ca-rsa.pem").read_text()
    (directory / "cas.pem").write_text(both)


def start(binary, directory):
    """The program, once it listens, and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "config.yaml").write_text(CONFIGURATION.format(port=port))
    log = open(directory / "log", "w")
    program = subprocess.Popen([binary, "run", "-c", "config.yaml"], cwd=directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    for _ in range(600):
        if program.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return program, port
        except OSError:
            time.sleep(0.05)
    program.kill()
    sys.exit("the program does not start:\n" + (directory / "log").read_text())


def sslyze(python, directory, port, quick):
    """What sslyze has to say against Mozilla's intermediate configuration."""
    out = directory / "sslyze.json"
    # The commands are what the comparison needs, and all of them otherwise.
    target = f"{NAME}:{port}{{127.0.0.1}}"
    command = [python, "-m", "sslyze", "--mozilla_config=intermediate", f"--certinfo_ca_file={directory}/cas.pem",
               f"--json_out={out}", target]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
    if f"{NAME}:{port}: OK - Compliant." in done.stdout:
        return []
    start = done.stdout.find("COMPLIANCE")
    complaints = [line.strip() for line in done.stdout[max(start, 0):].splitlines() if line.strip().startswith("*")]
    # Of a private authority: no trusted path.
    complaints = [line for line in complaints if "path validation failed" not in line]
    return ["sslyze: " + line for line in complaints] or ([] if start >= 0 else ["sslyze: " + done.stdout + done.stderr])


def testssl(directory, port, quick):
    """What testssl.sh rates worse than `OK` or `INFO`."""
    out = directory / "testssl.json"
    what = ["--protocols", "-H", "-R", "-Z"] if quick else []
    command = ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--nodns", "none", "--add-ca",
               str(directory / "cas.pem"), "--jsonfile", str(out), *what, f"{NAME}:{port}"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=1200, cwd=directory)
    if not out.exists():
        return ["testssl: " + done.stdout[-2000:] + done.stderr[-2000:]]
    findings = json.loads(out.read_text())
    bad = [f for f in findings if f["severity"] in COMPLAINTS and not f["id"].split(" ")[0].startswith(PRIVATE)]
    if not any(finding["id"] == "TLS1_3" for finding in findings):
        bad.append({"id": "TLS1_3", "severity": "FATAL", "finding": "nothing was looked at: " + done.stdout[-2000:]})
    return [f"testssl: {f['severity']} {f['id']}: {f['finding']}" for f in bad]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--sslyze", default=os.environ.get("INGRE_SSLYZE", "target/scanners/bin/python"), help="a Python that has sslyze")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    binary = str(pathlib.Path(options.binary).resolve())
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        certificates(directory)
        program, port = start(binary, directory)
        try:
            complaints = sslyze(options.sslyze, directory, port, options.quick) + testssl(directory, port, options.quick)
        finally:
            program.send_signal(signal.SIGTERM)
            program.wait(60)
    for complaint in complaints:
        print(complaint)
    print(f"{len(complaints)} complaints")
    sys.exit(1 if complaints else 0)


main()
