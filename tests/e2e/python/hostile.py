"""Sends a node what a hostile tenant, peer or neighbour could send, each packet once, and listens for answers.

Prints as JSON how many packets must have been counted under each reason, by tunnel, and what came back.
"""

import argparse
import json
import time

from scapy.arch import get_if_hwaddr
from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.packet import Raw
from scapy.sendrecv import AsyncSniffer, sendp, srp1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--local", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--own", required=True, help="inner address of the node")
    parser.add_argument("--server", required=True, help="an RS, behind every tunnel")
    parser.add_argument("--key", type=int, required=True)
    parser.add_argument("--tunnel", required=True)
    parser.add_argument("--other-key", type=int, required=True)
    parser.add_argument("--vip", required=True, help="a VIP of another tunnel")
    parser.add_argument("--ports", type=int, nargs="+", required=True, help="where the node listens")
    arguments = parser.parse_args()
    conf.verb = 0

    # Frames are made whole, so that the kernel here has no say in the outer source.
    request = Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=arguments.node, psrc=arguments.local)
    answer = srp1(request, iface=arguments.device, timeout=5)
    ether = Ether(src=get_if_hwaddr(arguments.device), dst=answer[ARP].hwsrc)

    sniffer = AsyncSniffer(iface=arguments.device, lfilter=lambda frame: is_answer(frame, ether.dst))
    sniffer.start()
    time.sleep(0.3)
    expected, frames = {}, []
    for tunnel, reason, packet in packets(arguments):
        of_tunnel = expected.setdefault(tunnel, {})
        of_tunnel[reason] = of_tunnel.get(reason, 0) + 1
        frames.extend(ether / part for part in packet)
    sendp(frames, iface=arguments.device)
    time.sleep(0.7)
    sniffer.stop()
    answers = [frame.summary() for frame in sniffer.results]
    print(json.dumps({"expected": expected, "answers": answers}))


def is_answer(frame, node):
    """Anything of the node's but ARP."""
    return IP in frame and frame.src == node


def packets(arguments):
    """Every packet with the tunnel (empty for none) and the reason that must count it."""
    own, server, mine = arguments.own, arguments.server, arguments.tunnel

    def outer(**fields):
        return IP(src=arguments.local, dst=arguments.node, **fields)

    def key(number=arguments.key, **fields):
        return GRE(proto=0x0800, key_present=1, key=number, **fields)

    def syn(destination, port, source=server):
        return IP(src=source, dst=destination) / TCP(sport=40000, dport=port, flags="S", options=[("MSS", 1400)])

    # Connections into the node: to where it listens on all addresses, and to where it does not.
    for port in [*arguments.ports, 22, 40001]:
        for destination in [own, "127.0.0.1", "0.0.0.0", arguments.vip]:
            yield mine, "not_ours", outer() / key() / syn(destination, port)
        yield mine, "loop", outer() / key() / syn(arguments.node, port)
    yield mine, "not_ours", outer() / key() / syn("255.255.255.255", 8080)
    yield mine, "not_ours", outer() / key() / syn("224.0.0.1", 8080)
    yield mine, "loop", outer() / key() / syn(arguments.local, 22)
    # Through the node to others: the other tenant's RS, and the world.
    for destination in ["10.0.0.11", "10.9.0.1", "198.51.100.77"]:
        yield mine, "not_ours", outer() / key() / syn(destination, 80)
    # Segments of no flow, and what is not TCP.
    for flags in ["A", "R", "SA", "FPU"]:
        segment = IP(src=server, dst=own) / TCP(sport=80, dport=40002, flags=flags)
        yield mine, "not_ours", outer() / key() / segment
    yield mine, "not_ours", outer() / key() / IP(src=server, dst=own) / UDP(sport=53, dport=40003) / b"x"
    yield mine, "not_ours", outer() / key() / IP(src=server, dst=own) / ICMP() / b"ping"
    unreachable = ICMP(type=3, code=3) / IPerror(src=own, dst=server) / TCPerror(sport=40004, dport=80)
    yield mine, "not_ours", outer() / key() / IP(src=server, dst=own) / unreachable
    # Tunnels in the tunnel: the other tenant's key must not be forged from here.
    forged = IP(src=arguments.local, dst=arguments.node) / key(arguments.other_key) / syn(own, 8080)
    yield mine, "nested", outer() / key() / forged
    yield mine, "nested", outer() / key() / IP(src=server, dst=own) / key(arguments.other_key) / syn(own, 8080)
    yield mine, "nested", outer() / key() / IP(src=server, dst=own) / syn(own, 8080)
    in_udp = UDP(sport=50000, dport=4754) / key(arguments.other_key) / syn(own, 8080)
    yield mine, "nested", outer() / key() / IP(src=server, dst=own) / in_udp
    yield mine, "nested", outer() / key() / IP(src=server, dst=own, proto=41) / IPv6()
    # Inner sources that are not behind the tunnel.
    for source in ["8.8.8.8", own, "127.0.0.1", "0.0.0.0", arguments.local, arguments.node, "224.0.0.1"]:
        yield mine, "spoofed_inner", outer() / key() / syn(own, 8080, source=source)
    # Relations that do not exist: another key, none, another peer.
    yield "", "unknown_peer", outer() / key(4004) / syn(own, 8080)
    yield "", "unknown_peer", outer() / GRE(proto=0x0800) / syn(own, 8080)
    for stranger in ["192.0.2.9", "127.0.0.1", arguments.node]:
        yield "", "unknown_peer", IP(src=stranger, dst=arguments.node) / key() / syn(own, 8080)
    # Headers that are not GRE as it is spoken here.
    yield "", "bad_gre", outer() / key(version=1) / syn(own, 8080)
    yield "", "bad_gre", outer(proto=47) / Raw(bytes.fromhex("60000800") + bytes(12)) / syn(own, 8080)
    yield "", "bad_gre", outer(proto=47) / Raw(bytes.fromhex("2000"))
    yield mine, "bad_gre_checksum", outer() / key(chksum_present=1, chksum=0x1234) / syn(own, 8080)
    yield mine, "spoofed_inner", outer() / GRE(proto=0x86DD, key_present=1, key=arguments.key) / IPv6(src="fd66::1", dst="fd66::2") / UDP()
    ethernet = Ether() / syn(own, 8080)
    yield mine, "unknown_protocol", outer() / GRE(proto=0x6558, key_present=1, key=arguments.key) / ethernet
    # The kernel puts outer fragments together before anybody looks at them.
    yield mine, "not_ours", fragment(outer() / key() / syn(own, 8080) / bytes(100), fragsize=64)
    # Inner packets that are none, or none that is carried.
    yield mine, "not_ours", outer() / key() / IP(src=server, dst=own, flags="MF", proto=6) / bytes(24)
    yield mine, "inner_fragment", outer() / key() / IP(src=server, dst=own, frag=3, proto=6) / bytes(24)
    yield mine, "unsupported_protocol", outer() / key() / IP(src=server, dst=own, proto=132) / bytes(24)
    yield mine, "malformed", outer() / key() / Raw(bytes(syn(own, 8080))[:30])
    yield mine, "malformed", outer() / key() / Raw(b"\x45")
    long = syn(own, 8080)
    long.len = 9000
    yield mine, "malformed", outer() / key() / long


main()
