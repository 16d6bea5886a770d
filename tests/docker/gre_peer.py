"""gre_peer.py REMOTE KEY: the far end of a GRE tunnel with a web server behind it, in some seventy lines that share nothing with ingre.

A raw socket on one side, a TUN device with 10.0.0.10 on the other, the kernel's TCP and Python's HTTP server in between; connections come
from 172.16.0.1. Only packets from REMOTE that are exactly RFC 2784 and RFC 2890 with this key are taken, everything else is reported. On
TERM it says how many packets went each way. Needs a network namespace of its own and root.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REMOTE, KEY = sys.argv[1], int(sys.argv[2])
HEADER = struct.pack("!HHI", 0x2000, 0x0800, KEY)
COUNTED = {"in": 0, "out": 0, "strange": 0}


def tun():
    set_interface, tun_device, no_packet_information = 0x400454CA, 0x0001, 0x1000
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, set_interface, struct.pack("16sH22x", b"inner", tun_device | no_packet_information))
    commands = "ip address add 10.0.0.10/32 dev inner && ip link set inner up mtu 1400 && ip route add 172.16.0.1/32 dev inner"
    subprocess.run(commands, shell=True, check=True)
    return device


def from_the_wire(wire, device):
    while True:
        packet, (source, _) = wire.recvfrom(65536)
        gre = packet[(packet[0] & 15) * 4 :]
        if source != REMOTE or gre[:8] != HEADER:
            COUNTED["strange"] += 1
            print(f"not ours: from {source}, GRE header {gre[:8].hex()}", flush=True)
            continue
        COUNTED["in"] += 1
        os.write(device, gre[8:])


def to_the_wire(wire, device):
    while True:
        packet = os.read(device, 65536)
        # The kernel's own IPv6 chatter on the device is not the tenant's.
        if packet[0] >> 4 == 4:
            COUNTED["out"] += 1
            wire.sendto(HEADER + packet, (REMOTE, 0))


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{self.server.server_address[0]} to {self.client_address[0]} by GRE key {KEY}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def end(*_):
    print(f"peer: {COUNTED['in']} GRE packets in, {COUNTED['out']} out", flush=True)
    os._exit(0 if COUNTED["in"] and COUNTED["out"] and not COUNTED["strange"] else 1)


signal.signal(signal.SIGTERM, end)
DEVICE = tun()
WIRE = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
for leg in (from_the_wire, to_the_wire):
    threading.Thread(target=leg, args=(WIRE, DEVICE), daemon=True).start()
ThreadingHTTPServer(("10.0.0.10", 80), Server).serve_forever()
