"""A client of HTTP/3 that does what it is told, right or wrong.

Each line on standard input is a JSON object that says what to do; the answer is one line of JSON. Packets leave and come
only while something is being done, so that a case decides about the time.
"""

import argparse
import hashlib
import json
import select
import socket
import ssl
import sys
import time

from aioquic.h3.connection import H3Connection, encode_frame
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic import events

PATIENCE = 20


class Client:
    """One connection."""

    # Sessions that can be taken up again, of all connections.
    tickets = []

    def __init__(self, address, ca, want):
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=want.get("alpn", ["h3"]),
            server_name=want.get("name", "localhost"),
            idle_timeout=want.get("idle", 60),
            max_data=want.get("max_data", 16 << 20),
            max_stream_data=want.get("max_stream_data", 4 << 20),
        )
        if want.get("certificate"):
            configuration.load_cert_chain(want["certificate"], want["key"])
        if ca:
            configuration.load_verify_locations(cafile=ca)
        else:
            configuration.verify_mode = ssl.CERT_NONE
        if "ticket" in want:
            configuration.session_ticket = self.tickets[want["ticket"]]
        self.address = address
        self.quic = QuicConnection(configuration=configuration, session_ticket_handler=self.tickets.append)
        self.socket = None
        self.h3 = None
        self.closed = None
        self.streams = {}
        self.ended = set()
        self.move()
        self.quic.connect(address, now=time.time())
        if "early" in want:
            # What the library sends before it has heard anything.
            self.speak()
            numbers = [self.begin(request) for request in want["early"]]
            self.pump(lambda: all(self.is_over(number) for number in numbers) or self.closed, PATIENCE)
            self.answers = [self.answer(number) for number in numbers]
        self.pump(lambda: self.shaken or self.closed, PATIENCE)
        if want.get("h3", True) and not self.closed and not self.h3:
            self.speak()
        if "tickets" in want:
            self.pump(lambda: len(self.tickets) >= want["tickets"], PATIENCE)

    shaken = False
    answers = []

    def speak(self):
        self.h3 = H3Connection(self.quic)
        # The library does not know that the answer to HEAD has a length and no content.
        self.h3._check_content_length = lambda stream: None

    def move(self):
        """Goes on from another port."""
        if self.socket:
            self.socket.close()
        family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.socket.setblocking(False)

    def stream(self, number):
        empty = {"heads": [], "body": bytearray(), "sha": hashlib.sha256(), "length": 0, "ended": False}
        return self.streams.setdefault(number, {**empty, "reset": None, "stop": None})

    def pump(self, done, patience):
        """Lets packets come and go until something is there or the time is over."""
        deadline = time.time() + patience
        while not done():
            now = time.time()
            for data, _ in self.quic.datagrams_to_send(now=now):
                try:
                    self.socket.sendto(data, self.address)
                except OSError:
                    pass
            timer = self.quic.get_timer()
            wait = min(deadline, timer or deadline) - now
            ready, _, _ = select.select([self.socket], [], [], max(0, min(wait, 0.5)))
            for _ in range(64 if ready else 0):
                try:
                    data, address = self.socket.recvfrom(65536)
                except (BlockingIOError, ConnectionError):
                    break
                self.quic.receive_datagram(data, address, now=time.time())
            now = time.time()
            if timer and now >= timer:
                self.quic.handle_timer(now=now)
            event = self.quic.next_event()
            while event:
                self.take(event)
                event = self.quic.next_event()
            # The library tells only when it has nothing left to wait for.
            if self.quic._close_event and not self.closed:
                self.take(self.quic._close_event)
            if self.closed or now >= deadline:
                break
        for data, _ in self.quic.datagrams_to_send(now=time.time()):
            try:
                self.socket.sendto(data, self.address)
            except OSError:
                pass

    def take(self, event):
        if isinstance(event, events.HandshakeCompleted):
            self.shaken = True
        elif isinstance(event, events.ConnectionTerminated):
            self.closed = {"code": event.error_code, "reason": event.reason_phrase,
                           "transport": event.frame_type is not None}
        elif isinstance(event, events.StreamReset):
            self.stream(event.stream_id)["reset"] = event.error_code
        elif isinstance(event, events.StopSendingReceived):
            self.stream(event.stream_id)["stop"] = event.error_code
        elif isinstance(event, events.StreamDataReceived):
            if event.end_stream:
                self.stream(event.stream_id)["ended"] = True
            if self.h3 is None or event.stream_id % 4 == 3:
                self.stream(event.stream_id)["body"] += event.data
        if self.h3 is None:
            return
        for what in self.h3.handle_event(event):
            stream = self.stream(what.stream_id)
            if isinstance(what, HeadersReceived):
                stream["heads"].append([[k.decode(), v.decode("latin-1")] for k, v in what.headers])
            elif isinstance(what, DataReceived):
                stream["sha"].update(what.data)
                stream["length"] += len(what.data)
                if stream["length"] <= 1 << 16:
                    stream["body"] += what.data
            if what.stream_ended:
                stream["ended"] = True

    def begin(self, want):
        """Sends a request, or as much of it as is wanted; the number of its stream."""
        number = self.quic.get_next_available_stream_id()
        if "raw" in want:
            self.quic.send_stream_data(number, bytes.fromhex(want["raw"]), want.get("end", True))
            return number
        fields = want.get("fields") or [
            [":method", want.get("method", "GET")],
            [":scheme", "https"],
            [":authority", want.get("authority", "localhost")],
            [":path", want.get("path", "/")],
        ]
        fields = fields + want.get("headers", [])
        body = b"x" * want["size"] if "size" in want else want.get("body", "").encode()
        trailers = want.get("trailers")
        whole = want.get("end", True)
        encoded = [(k.encode(), v.encode("latin-1")) for k, v in fields]
        self.h3.send_headers(number, encoded, whole and not body and not trailers)
        if body:
            self.h3.send_data(number, body, whole and not trailers)
        if trailers:
            self.h3.send_headers(number, [(k.encode(), v.encode()) for k, v in trailers], whole)
        if "behind" in want:
            self.quic.send_stream_data(number, bytes.fromhex(want["behind"]), want.get("behind_end", True))
        return number

    def is_over(self, number):
        stream = self.stream(number)
        return stream["ended"] or stream["reset"] is not None

    def answer(self, number):
        stream = self.stream(number)
        heads = [dict(head) for head in stream["heads"]]
        finals = [i for i, head in enumerate(heads) if not head.get(":status", "1").startswith("1")]
        final = finals[0] if finals else len(heads)
        return {
            "stream": number,
            "status": int(heads[final][":status"]) if finals else None,
            "headers": heads[final] if finals else {},
            "interim": heads[:final],
            "trailers": heads[final + 1] if len(heads) > final + 1 else None,
            "length": stream["length"],
            "sha256": stream["sha"].hexdigest(),
            "body": stream["body"].decode("latin-1"),
            "ended": stream["ended"],
            "reset": stream["reset"],
            "stop": stream["stop"],
        }


def goaways(client):
    """Numbers of the GOAWAY frames on the server's control stream, and its SETTINGS."""
    from aioquic.buffer import Buffer

    found, settings = [], {}
    for number, stream in client.streams.items():
        data = bytes(stream["body"]) if number % 4 == 3 else b""
        buffer = Buffer(data=data)
        if not data or buffer.pull_uint_var() != 0:
            continue
        while not buffer.eof():
            kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
            payload = Buffer(data=buffer.pull_bytes(length))
            if kind == 7:
                found.append(payload.pull_uint_var())
            while kind == 4 and not payload.eof():
                name = payload.pull_uint_var()
                settings[str(name)] = payload.pull_uint_var()
    return found, settings


def do(state, want, arguments):
    what = want["do"]
    patience = want.get("patience", PATIENCE)
    if what == "connect":
        state["client"] = Client((arguments.host, arguments.port), arguments.ca, want)
        client = state["client"]
        return {
            "closed": client.closed,
            "alpn": client.shaken,
            "early": client.quic.tls.early_data_accepted,
            "answers": client.answers,
            "tickets": len(client.tickets),
        }
    client = state["client"]
    if what == "requests":
        numbers = [client.begin(request) for request in want["requests"]]
        client.pump(lambda: all(client.is_over(number) for number in numbers), patience)
        return {"answers": [client.answer(number) for number in numbers], "closed": client.closed}
    if what == "begin":
        number = client.begin(want)
        client.pump(lambda: client.stream(number)["length"] >= want.get("until", 0), patience)
        return client.answer(number)
    if what == "send":
        if want.get("raw") is not None:
            client.quic.send_stream_data(want["stream"], bytes.fromhex(want["raw"]), want.get("end", False))
        else:
            client.h3.send_data(want["stream"], want.get("body", "").encode(), want.get("end", False))
        client.pump(lambda: False, want.get("patience", 0.05))
        return {"closed": client.closed}
    if what == "finish":
        client.pump(lambda: client.is_over(want["stream"]), patience)
        return {**client.answer(want["stream"]), "closed": client.closed}
    if what == "reset":
        client.quic.reset_stream(want["stream"], want.get("code", 0x10C))
        client.quic.stop_stream(want["stream"], want.get("code", 0x10C))
        client.pump(lambda: False, want.get("patience", 0.05))
        return {"closed": client.closed}
    if what == "rapid":
        for _ in range(want["count"]):
            if client.closed:
                break
            try:
                number = client.begin({"path": want["path"]})
                client.quic.reset_stream(number, 0x10C)
                client.quic.stop_stream(number, 0x10C)
            except Exception:
                break
            client.pump(lambda: False, 0.002)
        client.pump(lambda: client.closed, patience)
        return {"closed": client.closed}
    if what == "raw":
        # Streams of the client's own, and requests, byte by byte.
        for stream in want["streams"]:
            number = client.quic.get_next_available_stream_id(is_unidirectional=stream.get("uni", False))
            data = bytes.fromhex(stream["raw"])
            if want.get("drip"):
                for at in range(len(data)):
                    client.quic.send_stream_data(number, data[at:at + 1], False)
                    client.pump(lambda: False, 0.003)
                data = b""
            client.quic.send_stream_data(number, data, stream.get("end", False))
        number_of = lambda: [n for n in client.streams if client.streams[n]["reset"] is not None
                             or client.streams[n]["stop"] is not None or client.streams[n]["ended"]]
        client.pump(lambda: client.closed or (not want.get("wait_close") and number_of()), patience)
        return {
            "closed": client.closed,
            "resets": {str(n): s["reset"] for n, s in client.streams.items() if s["reset"] is not None},
            "stops": {str(n): s["stop"] for n, s in client.streams.items() if s["stop"] is not None},
        }
    if what == "move":
        client.move()
        if want.get("new_id", True):
            client.quic.change_connection_id()
        # Who only receives has to say where.
        client.quic.send_ping(1)
        return {}
    if what == "wait":
        client.pump(lambda: client.closed, patience)
        found, settings = goaways(client)
        return {"closed": client.closed, "goaways": found, "settings": settings}
    if what == "goaway":
        client.pump(lambda: client.closed or len(goaways(client)[0]) >= want.get("count", 1), patience)
        found, settings = goaways(client)
        return {"closed": client.closed, "goaways": found, "settings": settings}
    if what == "frame":
        return {"raw": encode_frame(want["kind"], bytes.fromhex(want["payload"])).hex()}
    if what == "close":
        client.quic.close(error_code=0x100)
        client.pump(lambda: False, 0.05)
        return {}
    raise ValueError(what)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--ca")
    arguments = parser.parse_args()
    state = {}
    for line in sys.stdin:
        print(json.dumps(do(state, json.loads(line), arguments)), flush=True)


if __name__ == "__main__":
    main()
