"""The far end of many tunnels at once, packet by packet: scapy writes what is asked for and takes apart what comes back.

Each line on standard input is a JSON object that says what to do; the answer is one line of JSON. Outer packets are
taken from the wire, so that every byte of their headers is seen.
"""

import argparse
import json
import select
import socket
import sys
import time

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import GRE
from scapy.packet import Raw
from scapy.utils import checksum

GRE_IN_UDP = 4754
ETH_P_ALL = 3
PROTOCOLS = {"gre": 47, "ipip": 4, "gre-in-udp": 17}


class Asker:
    def __init__(self, node):
        self.node = node
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.wire.bind(("wan", 0))
        self.out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        # Somebody has to take what arrives, or the kernel answers that nobody does.
        self.takers = [socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) for protocol in (47, 4, 41)]
        taker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taker.bind(("0.0.0.0", GRE_IN_UDP))
        self.takers.append(taker)
        self.number = 0
        self.last = {}

    def ask(self, want):
        """Sends one echo request through the tunnel; what the node sends until it is silent."""
        self.drain()
        self.send(want, self.echo(want))
        answers, patience = [], want.get("wait", 5)
        while select.select([self.wire], [], [], patience)[0]:
            frame, address = self.wire.recvfrom(65535)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            packet = IP(frame) if address[1] == 0x0800 else None
            if packet is None or packet.src != self.node or packet.proto not in (47, 4, 41, 17):
                continue
            self.last[want["tunnel"]] = bytes(packet)[: packet.len]
            answers.append(describe(packet))
            patience = 0.2
        return answers

    def flood(self, want):
        """Echo requests from so many sources, without a look at the answers."""
        for index in range(want["count"]):
            want["inner_source"] = f"10.{want['number']}.{index >> 8}.{index & 255}"
            self.send(want, self.echo(want))
            if index % 50 == 49:
                time.sleep(0.005)
        return want["count"]

    def nested(self, want):
        """A tunnel packet in the tunnel."""
        inner = IP(src=inner_source(want), dst=want["inner"], proto=47) / GRE(proto=0x0800) / self.echo(want)
        self.send(want, inner)
        return 1

    def too_big(self, want):
        """A router says that the last packet of this tunnel was too big."""
        quoted = bytearray(self.last[want["tunnel"]])
        if "forged_key" in want:
            quoted[24:28] = want["forged_key"].to_bytes(4, "big")
        if "forged_target" in want:
            quoted[16:20] = socket.inet_aton(want["forged_target"])
        message = ICMP(type=3, code=4, nexthopmtu=want["mtu"]) / Raw(bytes(quoted[: want.get("bytes", 28)]))
        self.out.sendto(bytes(IP(src="192.0.2.2", dst=self.node) / message), (self.node, 0))
        return len(quoted)

    def echo(self, want):
        self.number += 1
        header = IP(src=inner_source(want), dst=want["inner"], tos=want.get("inner_tos", 0))
        echo = ICMP(type=8, id=self.number & 0xFFFF, seq=self.number >> 16)
        return header / echo / Raw(bytes(want.get("bytes", 56)))

    def send(self, want, inner):
        kind = want["kind"]
        packet = IP(
            src=want["peer"], dst=self.node, proto=PROTOCOLS[kind], tos=want.get("outer_tos", 0), flags="DF"
        )
        if kind == "gre-in-udp":
            packet = packet / UDP(sport=51234, dport=GRE_IN_UDP)
        if kind != "ipip":
            header = GRE(proto=0x0800)
            if want.get("key") is not None:
                header.key_present, header.key = 1, want["key"]
            packet = packet / header
        self.out.sendto(bytes(packet / Raw(bytes(inner))), (self.node, 0))

    def drain(self):
        while select.select([self.wire], [], [], 0)[0]:
            self.wire.recv(65535)


def inner_source(want):
    return want.get("inner_source", f"10.{want['number']}.0.10")


def describe(packet):
    """What an outer packet says, and whether its checksums are right."""
    packet = IP(bytes(packet)[: packet.len])
    seen = {
        "to": packet.dst,
        "tos": packet.tos,
        "ttl": packet.ttl,
        "df": packet.flags == "DF",
        "protocol": packet.proto,
        "length": packet.len,
        "right": checksum(bytes(packet)[:20]) == 0,
    }
    inner = bytes(packet.payload)
    if packet.proto == 17:
        datagram = packet[UDP]
        seen["source_port"], seen["port"] = datagram.sport, datagram.dport
        seen["udp_checksum"] = datagram.chksum != 0
        again = packet.copy()
        del again[UDP].chksum
        seen["right"] &= datagram.chksum == 0 or IP(bytes(again))[UDP].chksum == datagram.chksum
        inner = inner[8:]
    if packet.proto in (47, 17):
        header = GRE(inner)
        seen["checksum"] = bool(header.chksum_present)
        seen["key"] = header.key if header.key_present else None
        seen["sequence"] = header.sequence_number if header.seqnum_present else None
        seen["right"] &= not header.chksum_present or checksum(inner) == 0
        length = 4 * (1 + header.chksum_present + header.key_present + header.seqnum_present)
        inner = inner[length:]
    inner = IP(inner)
    seen["inner"] = {"tos": inner.tos, "offset": inner.frag * 8, "more": "MF" in str(inner.flags)}
    if inner.frag == 0 and ICMP in inner:
        seen["inner"]["icmp"] = inner[ICMP].type
    return seen


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--node", required=True)
    asker = Asker(parser.parse_args().node)
    print("ready", flush=True)
    for line in sys.stdin:
        want = json.loads(line)
        print(json.dumps(getattr(asker, want["do"])(want)), flush=True)


main()
