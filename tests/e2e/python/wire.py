"""Reads a capture of the underlay and checks every GRE packet byte by byte; prints what it found as JSON.

Offsets and values are those of RFC 791, RFC 2784 and RFC 2890, written out here; scapy only takes the capture
apart into packets and computes checksums.
"""

import json
import struct
import sys

from scapy.layers.inet import TCP, IP
from scapy.utils import RawPcapNgReader, checksum

ETHERNET = 14


def main():
    found = {"packets": 0, "keys": {}, "ttls": [], "longest": 0, "mss": [], "wrong": []}
    with RawPcapNgReader(sys.argv[1]) as capture:
        for frame, _ in capture:
            if frame[12:14] != b"\x08\x00" or frame[ETHERNET + 9] != 47:
                continue
            found["packets"] += 1
            try:
                check(frame[ETHERNET:], found)
            except (AssertionError, IndexError, struct.error) as problem:
                if len(found["wrong"]) < 20:
                    found["wrong"].append(f"{problem}: {frame[:80].hex()}")
    found["ttls"] = sorted(set(found["ttls"]))
    found["mss"] = sorted(set(found["mss"]))
    print(json.dumps(found))


def check(packet, found):
    (version, _, total, _, fragment, ttl, protocol, _) = struct.unpack_from("!BBHHHBBH", packet)
    assert version == 0x45, "outer version or options"
    assert total <= len(packet), "outer length"
    packet = packet[:total]
    assert fragment == 0x4000, "DF alone"
    assert protocol == 47, "outer protocol"
    assert checksum(packet[:20]) == 0, "outer checksum"
    (flags, kind) = struct.unpack_from("!HH", packet, 20)
    assert flags in (0x0000, 0x2000), "GRE flags and version"
    assert kind == 0x0800, "GRE protocol"
    key, inner = "none", packet[24:]
    if flags == 0x2000:
        key, inner = str(struct.unpack_from("!I", packet, 24)[0]), packet[28:]
    (version, _, length) = struct.unpack_from("!BBH", inner)
    assert version == 0x45 and length == len(inner), "inner length"
    assert checksum(inner[:20]) == 0, "inner checksum"
    assert inner[9] == 6, "inner protocol"
    pseudo = inner[12:20] + struct.pack("!BBH", 0, 6, length - 20)
    assert checksum(pseudo + inner[20:]) == 0, "TCP checksum"
    segment = IP(inner)[TCP]
    if segment.flags.S:
        found["mss"].append(dict(segment.options)["MSS"])
    of_source = found["keys"].setdefault(f"{packet[12]}.{packet[13]}.{packet[14]}.{packet[15]}", {})
    of_source[key] = of_source.get(key, 0) + 1
    found["ttls"].append(ttl)
    found["longest"] = max(found["longest"], total)


main()
