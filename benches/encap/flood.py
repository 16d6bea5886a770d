"""Sends small UDP packets with given ports from A into tunnels, at a fixed rate: what iperf3 cannot do is a million flows."""
import ctypes
import os
import random
import socket
import time
from array import array
from contextlib import contextmanager

from .bed import LIBC, inner

PAYLOAD_BYTES = 64
HEADER_BYTES = 8
PACKET_BYTES = HEADER_BYTES + PAYLOAD_BYTES
# Packets of one system call, all into one tunnel.
BURST = 32
PORTS_BYTES = 4
SINK_PORT = 40_001
# What `socket` has no name for.
SO_NO_CHECK = 11


class Address(ctypes.Structure):
    """struct sockaddr_in"""
    _fields_ = [("family", ctypes.c_uint16), ("port", ctypes.c_uint16), ("address", ctypes.c_uint8 * 4),
                ("zero", ctypes.c_uint8 * 8)]


class Vector(ctypes.Structure):
    """struct iovec"""
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class Message(ctypes.Structure):
    """struct mmsghdr"""
    _fields_ = [("name", ctypes.POINTER(Address)), ("name_len", ctypes.c_uint32), ("vectors", ctypes.POINTER(Vector)),
                ("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_len", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("padding", ctypes.c_int), ("sent", ctypes.c_uint64)]


def one_flow():
    """Both ports of a flow, once for each packet of a burst."""
    return (b"\x9c\x40" + SINK_PORT.to_bytes(2)) * BURST


@contextmanager
def sink(bed):
    """B takes the packets of `one_flow` and throws them away, so that its kernel has nothing to refuse."""
    with bed.inside("B"):
        taker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        taker.bind(("0.0.0.0", SINK_PORT))
        yield


def random_flows(count):
    """Both ports of `count` flows, as they go into the packets."""
    return os.urandom(PORTS_BYTES * count)


def shuffled(flows):
    """The same flows in another order."""
    numbers = array("I", flows)
    random.shuffle(numbers)
    return numbers.tobytes()


class Flood:
    """Raw UDP sockets into some tunnels of a bed. A burst goes into one tunnel, the next one into the next."""

    def __init__(self, bed, tunnels):
        self.sockets, self.targets = [], [socket.inet_aton(inner("B", tunnel)) for tunnel in tunnels]
        for tunnel, target in zip(tunnels, self.targets):
            with bed.inside("A"):
                into = self.open()
            into.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bed.tunnel_device(tunnel).encode())
            # Never read.
            into.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            self.prepare(into, target)
            self.sockets.append(into)
        # Length, and no checksum; the ports are written before each burst.
        header = b"\0\0\0\0" + PACKET_BYTES.to_bytes(2, "big") + b"\0\0"
        self.packets = bytearray((header + b"x" * PAYLOAD_BYTES) * BURST)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.packets))
        self.vectors = (Vector * BURST)(*((start + PACKET_BYTES * at, PACKET_BYTES) for at in range(BURST)))
        self.target = Address(socket.AF_INET)
        self.messages = (Message * BURST)()
        for at, message in enumerate(self.messages):
            message.name, message.name_len = ctypes.pointer(self.target), ctypes.sizeof(Address)
            message.vectors, message.vector_count = ctypes.pointer(self.vectors[at]), 1

    def open(self):
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)

    def prepare(self, into, target):
        """Not connected, so that an ICMP error of B does not take the place of a packet."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for into in self.sockets:
            into.close()

    def send(self, flows, count, rate=None):
        """Sends `count` packets with the flows in turn, `rate` a second or at once. Both are counted in whole bursts."""
        start, turns = time.monotonic(), len(flows) // (PORTS_BYTES * BURST)
        for burst in range(count // BURST):
            at = burst % turns * PORTS_BYTES * BURST
            ports = flows[at:at + PORTS_BYTES * BURST]
            for byte in range(PORTS_BYTES):
                self.packets[byte::PACKET_BYTES] = ports[byte::PORTS_BYTES]
            turn = burst % len(self.sockets)
            self.target.address[:] = self.targets[turn]
            if LIBC.sendmmsg(self.sockets[turn].fileno(), self.messages, BURST, 0) < 0:
                raise OSError(ctypes.get_errno(), "the flood cannot send")
            if rate:
                time.sleep(max(0, start + (burst + 1) * BURST / rate - time.monotonic()))


class OneFlow(Flood):
    """The flow of `sink` through connected sockets: the sender's kernel looks up no route per packet, as with a program that
    talks to somebody for longer."""

    def __init__(self, bed, tunnels):
        super().__init__(bed, tunnels)
        for vector, message in zip(self.vectors, self.messages):
            vector.base, vector.len = vector.base + HEADER_BYTES, PAYLOAD_BYTES
            message.name, message.name_len = None, 0

    def open(self):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def prepare(self, into, target):
        # As above, no checksum: otherwise packets are joined, and are not counted one by one.
        into.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        into.connect((socket.inet_ntoa(target), SINK_PORT))
