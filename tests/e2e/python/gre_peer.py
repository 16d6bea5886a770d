"""A GRE peer that is not ours: between a kernel TUN device and GRE, every header read and written by scapy.

Makes the TUN device, says `ready`, carries until standard input ends, then prints what it saw as JSON. Whatever
the node sends that RFC 2784 or 2890 forbid, or that the caller did not ask for, stands under `wrong`.
"""

import argparse
import fcntl
import json
import os
import select
import socket
import struct
import sys

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import GRE
from scapy.packet import Raw

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--local", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--key", type=int)
    parser.add_argument("--checksum", action="store_true", help="answer with the GRE checksum")
    parser.add_argument("--sequence", action="store_true", help="answer with sequence numbers")
    arguments = parser.parse_args()

    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", arguments.device.encode(), IFF_TUN | IFF_NO_PI))
    outer = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
    outer.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    outer.bind((arguments.local, 0))
    print("ready", flush=True)

    seen = {"in": 0, "out": 0, "wrong": []}
    while True:
        ready, _, _ = select.select([tun, outer, sys.stdin], [], [])
        if sys.stdin in ready:
            break
        if outer in ready:
            packet = IP(outer.recv(65535))
            seen["in"] += 1
            problem = wrong(packet, arguments)
            if problem and len(seen["wrong"]) < 20:
                seen["wrong"].append(problem + ": " + bytes(packet)[:64].hex())
            if GRE in packet and IP in packet[GRE].payload:
                os.write(tun, bytes(packet[GRE].payload))
        if tun in ready:
            inner = os.read(tun, 65535)
            if inner[0] >> 4 != 4:
                continue
            header = GRE(proto=0x0800)
            if arguments.key is not None:
                header.key_present, header.key = 1, arguments.key
            if arguments.checksum:
                header.chksum_present = 1
            if arguments.sequence:
                header.seqnum_present, header.sequence_number = 1, seen["out"]
            packet = IP(src=arguments.local, dst=arguments.node, proto=47, ttl=61) / header / Raw(inner)
            outer.sendto(bytes(packet), (arguments.node, 0))
            seen["out"] += 1
    print(json.dumps(seen), flush=True)


def wrong(packet, arguments):
    """What is wrong with a packet of the node; None if nothing is."""
    if packet.src != arguments.node or packet.dst != arguments.local:
        return "outer addresses"
    if packet.proto != 47 or packet.flags != "DF" or packet.frag != 0:
        return "outer header"
    if not checksum_holds(packet):
        return "outer checksum"
    header = packet[GRE]
    flags = (
        header.chksum_present,
        header.routing_present,
        header.key_present,
        header.seqnum_present,
        header.strict_route_source,
        header.recursion_control,
        header.flags,
        header.version,
    )
    key = arguments.key is not None
    if flags != (0, 0, int(key), 0, 0, 0, 0, 0):
        return f"GRE flags {flags}"
    if header.proto != 0x0800:
        return "GRE protocol"
    if key and header.key != arguments.key:
        return f"GRE key {header.key}"
    inner = header.payload
    if not isinstance(inner, IP) or inner.len != len(bytes(inner)) or not checksum_holds(inner):
        return "inner header"
    for layer in (TCP, UDP, ICMP):
        if layer in inner and not checksum_holds(inner, layer):
            return "inner checksum"
    return None


def checksum_holds(packet, layer=IP):
    """Whether the checksum of the layer is the one that scapy computes."""
    again = packet.copy()
    del again[layer].chksum
    return packet.__class__(bytes(again))[layer].chksum == packet[layer].chksum


main()
