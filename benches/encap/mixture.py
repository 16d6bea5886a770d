"""Traffic that knows what has to come out: TCP both ways with SHA-256, datagrams that come back as they went."""
import hashlib
import os
import random
import socket
import struct
import threading
import time

from .bed import inner

TCP_PORT, UDP_PORT = 7001, 7002
LONGEST_STREAM = 8 << 20
# The first two fit a tunnel's MTU, the last one leaves in fragments.
DATAGRAMS = (64, 1400, 4000)
# Datagrams a second and tunnel; datagrams on their way at a time; seconds after which one is lost.
RATE, WINDOW, LATE = 1000, 32, 2
PATIENCE = 30
HEAD = struct.Struct("!QQ")


class Mixture:
    """Streams and datagrams through one tunnel of a bed, until `stop`."""

    def __init__(self, bed, tunnel):
        self.bed, self.tunnel = bed, tunnel
        self.bytes = self.streams = self.datagrams = self.lost = 0
        self.failure = None
        # The servers stay until nothing is on its way any more.
        self.stopping, self.ending = threading.Event(), threading.Event()
        address = inner("B", tunnel)
        with bed.inside("B"):
            self.listener = socket.create_server((address, TCP_PORT))
            self.echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.echo.bind((address, UDP_PORT))
        self.echo.settimeout(0.2)
        self.listener.settimeout(0.2)
        self.servers = [self.run(task) for task in (self.serve_streams, self.serve_datagrams)]
        self.clients = [self.run(task) for task in (self.streams_there_and_back, self.datagrams_there_and_back)]

    def run(self, task):
        thread = threading.Thread(target=self.guarded, args=[task], daemon=True)
        thread.start()
        return thread

    def guarded(self, task):
        try:
            task()
        except (OSError, RuntimeError) as error:
            self.failure = self.failure or f"tunnel {self.tunnel}, {task.__name__}: {error}"

    def stop(self):
        for event, threads in ((self.stopping, self.clients), (self.ending, self.servers)):
            event.set()
            for thread in threads:
                thread.join(PATIENCE + 5)
        for one in (self.listener, self.echo):
            one.close()

    def socket(self, kind):
        """A socket of A in the tunnel."""
        with self.bed.inside("A"):
            made = socket.socket(socket.AF_INET, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.bed.tunnel_device(self.tunnel).encode())
        return made

    # ---------------------------------------------------------------------------------------------------- streams

    def serve_streams(self):
        """Takes so many bytes, tells their sum, and sends so many back with theirs."""
        while not self.ending.is_set():
            try:
                peer, _ = self.listener.accept()
            except TimeoutError:
                continue
            with peer:
                peer.settimeout(PATIENCE)
                there, back = HEAD.unpack(exactly(peer, HEAD.size))
                peer.sendall(digest_of(peer, there))
                send(peer, back)

    def streams_there_and_back(self):
        while not self.stopping.is_set():
            there, back = (random.randrange(1, LONGEST_STREAM) for _ in range(2))
            with self.socket(socket.SOCK_STREAM) as stream:
                stream.settimeout(PATIENCE)
                stream.connect((inner("B", self.tunnel), TCP_PORT))
                stream.sendall(HEAD.pack(there, back))
                sent = send(stream, there, with_digest=False)
                if exactly(stream, len(sent)) != sent:
                    raise RuntimeError(f"{there} bytes came out as others")
                received = digest_of(stream, back)
                if exactly(stream, len(received)) != received:
                    raise RuntimeError(f"{back} bytes came back as others")
            self.streams += 1
            self.bytes += there + back

    # -------------------------------------------------------------------------------------------------- datagrams

    def serve_datagrams(self):
        while not self.ending.is_set():
            try:
                data, sender = self.echo.recvfrom(65_535)
            except TimeoutError:
                continue
            self.echo.sendto(data, sender)

    def datagrams_there_and_back(self):
        """Every datagram has a number and a filling that follows from it."""
        waiting, start = {}, time.monotonic()
        with self.socket(socket.SOCK_DGRAM) as asker:
            asker.connect((inner("B", self.tunnel), UDP_PORT))
            while not self.stopping.is_set() or waiting:
                if not self.stopping.is_set() and len(waiting) < WINDOW and self.datagrams < (time.monotonic() - start) * RATE:
                    asker.send(datagram(self.datagrams))
                    waiting[self.datagrams] = time.monotonic()
                    self.datagrams += 1
                    asker.settimeout(0.0005)
                else:
                    asker.settimeout(0.01)
                try:
                    answer = asker.recv(65_535)
                    number = int.from_bytes(answer[:8])
                    if answer != datagram(number):
                        raise RuntimeError(f"datagram {number} came back as another")
                    waiting.pop(number, None)
                except (TimeoutError, BlockingIOError):
                    late = [number for number, sent in waiting.items() if time.monotonic() - sent > LATE]
                    self.lost += len(late)
                    for number in late:
                        del waiting[number]


def datagram(number):
    length = DATAGRAMS[number % len(DATAGRAMS)]
    return number.to_bytes(8) + bytes([number % 251]) * (length - 8)


def send(stream, count, with_digest=True):
    """Sends `count` bytes and, maybe, their sum, which it returns."""
    block, total = os.urandom(1 << 16), hashlib.sha256()
    while count:
        part = block[:min(count, len(block))]
        stream.sendall(part)
        total.update(part)
        count -= len(part)
    if with_digest:
        stream.sendall(total.digest())
    return total.digest()


def digest_of(stream, count):
    total = hashlib.sha256()
    while count:
        part = stream.recv(min(count, 1 << 18))
        if not part:
            raise RuntimeError("a stream has ended early")
        total.update(part)
        count -= len(part)
    return total.digest()


def exactly(stream, count):
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise RuntimeError("a stream has ended early")
        data += part
    return data
