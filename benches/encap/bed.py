"""Two hosts, A and B: network namespaces with a veth between them, and an engine in each."""
import ctypes
import itertools
import os
import select
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

import peers

SIDES = ("A", "B")
OUTER = {"A": "192.0.2.1", "B": "192.0.2.2"}
VETH, TUN, KEY = "veth0", "gt0", 4242
# What a card without tunnel offloads does: the sender's kernel cuts, the receiver's kernel merges.
LIKE_A_CARD = "tso off gso off tx-udp-segmentation off gro on".split()
PREFIX = "ingre-bench-"
ECHO_PORT = 7
# What `socket` has no names for.
IP_PKTINFO, CLONE_NEWNET, PR_SET_PDEATHSIG = 8, 0x40000000, 1
LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = itertools.count()


def other(side):
    return "B" if side == "A" else "A"


def inner(side, tunnel=0):
    """The address of a side inside a tunnel."""
    return f"10.{98 if side == 'A' else 99}.{(tunnel + 1) >> 8}.{(tunnel + 1) & 255}"


def run(*command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout.strip()[-1000:]}")
    return done.stdout


def sweep():
    """Removes the namespaces of runs that were killed; their processes have ended with them."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        pid = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and not os.path.exists(f"/proc/{pid}"):
            run("ip", "netns", "delete", name)


@contextmanager
def bed(workshop, engine, mtu, tunnels=1, flows=None):
    """A bed whose engines carry; nothing of it is left afterwards. `flows`: most that an ingre tunnel remembers."""
    made = Bed(workshop, engine, mtu, tunnels, flows)
    try:
        made.build()
        yield made
    finally:
        made.clear()


class Bed:
    def __init__(self, workshop, engine, mtu, tunnels, flows):
        self.workshop, self.engine, self.mtu, self.tunnels, self.flows = workshop, engine, mtu, tunnels, flows
        self.name = f"{PREFIX}{os.getpid()}-{next(NUMBERS)}"
        # The engines are those whose CPU time is looked at; OVS has another process besides.
        self.engines, self.running = {}, []
        self.seconds_to_ready = None
        plain = engine.device == VETH
        self.target = OUTER["B"] if plain else inner("B")

    def build(self):
        for side in SIDES:
            run("ip", "netns", "add", self.namespace(side))
            for name, value in (("ipv6/conf/all/disable_ipv6", "1"), ("ipv4/conf/all/rp_filter", "0"),
                                ("ipv4/conf/default/rp_filter", "0")):
                self.set(side, name, value)
        mtu = ["mtu", str(self.mtu), "numtxqueues", "1", "numrxqueues", "1"]
        self.ip("A", "link", "add", VETH, *mtu, "type", "veth", "peer", "name", VETH, *mtu, "netns", self.namespace("B"))
        for side in SIDES:
            self.ip(side, "link", "set", "lo", "up")
            self.ip(side, "link", "set", VETH, "up")
            self.ip(side, "address", "add", f"{OUTER[side]}/24", "dev", VETH)
            if self.engine.like_a_card:
                with self.inside(side):
                    run("ethtool", "-K", VETH, *LIKE_A_CARD)
        self.engine.start(self, "B")
        since = time.monotonic()
        self.engine.start(self, "A")
        self.wait_for_echoes()
        self.seconds_to_ready = time.monotonic() - since

    def clear(self):
        for process in reversed(self.running):
            self.end(process)
        for side in SIDES:
            if os.path.exists(f"/run/netns/{self.namespace(side)}"):
                run("ip", "netns", "delete", self.namespace(side))

    # ------------------------------------------------------------------------------------------------------ hosts

    def namespace(self, side):
        return f"{self.name}{side}"

    def ip(self, side, *arguments):
        return run("ip", "-n", self.namespace(side), *arguments)

    @contextmanager
    def inside(self, side):
        """This thread, and what it starts and opens, is on that host."""
        with open(f"/run/netns/{self.namespace(side)}") as there, open("/proc/self/ns/net") as home:
            enter(there)
            try:
                yield
            finally:
                enter(home)

    def set(self, side, name, value):
        with self.inside(side), open(f"/proc/sys/net/{name}", "w") as setting:
            setting.write(value)

    def devices(self, side):
        """Packets received so far, by device."""
        with self.inside(side):
            lines = peers.text_of("/proc/thread-self/net/dev").splitlines()[2:]
        return {name.strip(): int(fields.split()[1]) for name, _, fields in (line.partition(":") for line in lines)}

    def wait_for(self, side, process, what, condition, seconds=10):
        peers.wait_until(condition, seconds, f"{self.engine.name}, {side}: {what}", process, self.log(side))

    def listens(self, side, port):
        """Whether a TCP socket does."""
        with self.inside(side):
            lines = [line.split() for name in ("tcp", "tcp6")
                     for line in peers.text_of(f"/proc/thread-self/net/{name}").splitlines()[1:]]
        return any(line[3] == "0A" and line[1].endswith(f":{port:04X}") for line in lines)

    # -------------------------------------------------------------------------------------------------- processes

    def start(self, side, command, is_engine=False, **options):
        with self.inside(side):
            process = self.workshop.processes.start(list(map(str, command)), self.log(side), preexec_fn=end_with_parent,
                                                    **options)
        self.running.append(process)
        if is_engine:
            self.engines[side] = process
        return process

    def end(self, process):
        """Asks it to end and waits for it and its children; returns how long that took, in seconds."""
        since, pids = time.monotonic(), peers.tree(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        while any(map(peers.alive, pids)) and time.monotonic() < since + 60:
            process.poll()
            time.sleep(0.01)
        took = time.monotonic() - since
        self.workshop.processes.stop(process)
        self.running.remove(process)
        return took

    def log(self, side):
        return self.workshop.dir / f"{self.namespace(side)}.log"

    def cpu_seconds(self):
        return sum(peers.cpu_seconds(engine.pid) for engine in self.engines.values())

    def resident_bytes(self, side):
        """Of the engine's processes on this side; pages that two of them share count twice."""
        texts = (peers.text_of(f"/proc/{pid}/status") for pid in peers.tree(self.engines[side].pid))
        fields = (line.split() for text in texts for line in text.splitlines())
        return sum(int(words[1]) << 10 for words in fields if words and words[0] == "VmRSS:")

    def check(self):
        for side, engine in self.engines.items():
            if engine.poll() is not None:
                raise RuntimeError(f"the engine of {side} has ended\n{peers.text_of(self.log(side))[-1000:]}")

    # ------------------------------------------------------------------------------------------------------- echo

    def tunnel_device(self, tunnel):
        return self.engine.device if tunnel == 0 else f"gt{tunnel}"

    def wait_for_echoes(self):
        """Until an echo has come back through every tunnel. The last one is waited for, then the others are there."""
        end = time.monotonic() + 10 + self.tunnels / 25
        with self.inside("B"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            server.bind(("0.0.0.0", ECHO_PORT))
            for tunnel in reversed(range(self.tunnels)):
                while not self.echo(server, tunnel):
                    self.check()
                    if time.monotonic() > end:
                        logs = "\n".join(peers.text_of(self.log(side))[-500:] for side in SIDES)
                        raise RuntimeError(f"tunnel {tunnel} carries nothing\n{logs}")
                    time.sleep(0.01)

    def echo(self, server, tunnel):
        target = self.target if tunnel == 0 else inner("B", tunnel)
        with self.inside("A"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            try:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.tunnel_device(tunnel).encode())
                client.connect((target, ECHO_PORT))
                client.send(b"echo")
                while ready := select.select([client, server], [], [], 0.2)[0]:
                    if client in ready:
                        return client.recv(64) == b"echo"
                    # The answer leaves by the device that the question came by. It may be a late question of an earlier client.
                    data, ancillary, _, sender = server.recvmsg(64, 64)
                    server.sendmsg([data], ancillary, 0, sender)
            except OSError:
                # No device yet, no route yet, or an ICMP error.
                pass
        return False


def enter(namespace):
    if LIBC.setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")


def end_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
