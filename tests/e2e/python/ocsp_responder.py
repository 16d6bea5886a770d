"""An OCSP responder that can be told what to answer, made with another library than the one that is tested.

Answers about any certificate of the authority whose files are given. A line on standard input says how from then on:

    good SECONDS | revoked | unknown   a response that is good for so long
    outdated | other | forged          one that must not be believed
    garbage | failing | silent         none
"""

import http.server
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

with open(sys.argv[1], "rb") as file:
    ISSUER = x509.load_pem_x509_certificate(file.read())
with open(sys.argv[2], "rb") as file:
    KEY = serialization.load_pem_private_key(file.read(), None)


def forger():
    """An authority of the same name with another key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    builder = x509.CertificateBuilder().issuer_name(ISSUER.subject).subject_name(ISSUER.subject)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()), key


FORGER = forger()
told = ["good", "3600"]


def response(request):
    asked = ocsp.load_der_ocsp_request(request)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    how, status, revoked, life = told[0], ocsp.OCSPCertStatus.GOOD, None, 3600
    if how == "good":
        life = int(told[1])
    elif how == "revoked":
        status, revoked = ocsp.OCSPCertStatus.REVOKED, now
    elif how == "unknown":
        status = ocsp.OCSPCertStatus.UNKNOWN
    begin = now - timedelta(days=2) if how == "outdated" else now
    serial = asked.serial_number + 1 if how == "other" else asked.serial_number
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        issuer_name_hash=asked.issuer_name_hash,
        issuer_key_hash=asked.issuer_key_hash,
        serial_number=serial,
        algorithm=asked.hash_algorithm,
        cert_status=status,
        this_update=begin,
        next_update=begin + timedelta(seconds=life),
        revocation_time=revoked,
        revocation_reason=None,
    )
    issuer, key = FORGER if how == "forged" else (ISSUER, KEY)
    signed = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, issuer).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/ocsp-request"
        if told[0] == "silent":
            time.sleep(60)
        body = b"<html>" if told[0] == "garbage" else response(request)
        self.send_response(500 if told[0] == "failing" else 200)
        self.send_header("Content-Type", "application/ocsp-response")
        # In pieces, as a server that does not know the length beforehand.
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (body[:10], body[10:]):
            if piece:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")
        print("asked", *told, flush=True)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print("port", server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
for line in sys.stdin:
    told = line.split()
