"""What is measured: ways to carry packets from A to B."""
import os
from dataclasses import dataclass
from typing import Callable

from .bed import KEY, OUTER, TUN, VETH, inner, other, run

# Outer IPv4 header and GRE header with key; Open vSwitch carries Ethernet frames in addition.
GRE_BYTES, GRE_ETHERNET_BYTES = 28, 42
OVS_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
BASELINE, PLAIN, SWITCH = "P1", "P0", "OVS"
# What the baseline is without the one setting that it has.
UNSET = "P1-unset"


@dataclass(frozen=True)
class Engine:
    name: str
    what: str
    # Starts the engine of one side and returns when the device is up and has its address.
    start: Callable
    device: str = TUN
    like_a_card: bool = False


def all_engines(binary, baseline):
    """In the order of the table, which is that of a round."""
    both = lambda name, what, *rest: [Engine(name, what, *rest), Engine(f"{name}-sw", f"{what}, veth like a card", *rest, True)]
    gre, in_udp = ingre(binary, "gre"), ingre(binary, "gre-in-udp")
    engines = [*both(PLAIN, "the veth alone", lambda bed, side: None, VETH),
               *both(BASELINE, "a system call per packet: TUN without offloads, raw socket", per_packet(baseline), TUN),
               Engine(UNSET, "the same with the kernel's receive buffer", per_packet(baseline, "--receive-buffer", "unset")),
               *both("ingre", "ingre, `kind: gre`", gre, TUN),
               *both("ingre-udp", "ingre, `kind: gre-in-udp`", in_udp, TUN),
               Engine(SWITCH, "Open vSwitch, userspace datapath, GRE", open_vswitch, "inner")]
    return {engine.name: engine for engine in engines}


def per_packet(baseline, *options):
    def start(bed, side):
        command = [baseline, "--tun", TUN, "--local", OUTER[side], "--remote", OUTER[other(side)], "--key", KEY, *options]
        process = bed.start(side, command, is_engine=True)
        bed.wait_for(side, process, "device", lambda: TUN in bed.devices(side))
        set_up(bed, side, TUN, GRE_BYTES)
    return start


def ingre(binary, kind):
    def start(bed, side):
        config = bed.log(side).with_suffix(".yaml")
        config.write_text("tunnels:\n" + "".join(tunnel(side, index, kind, bed.flows) for index in range(bed.tunnels)))
        process = bed.start(side, [binary, "encap", "-c", config], is_engine=True)
        if bed.tunnels > 1:
            # A is looked at by its first echo; asking for the state of so many devices would be part of the time.
            last = bed.tunnel_device(bed.tunnels - 1)
            if side == "B":
                bed.wait_for(side, process, "devices", lambda: is_up(bed, side, last), 60)
            return
        bed.wait_for(side, process, "device", lambda: TUN in bed.devices(side) and is_up(bed, side, TUN))
        # The engine leaves the main table alone; iperf3 and sockperf do not bind to a device.
        bed.ip(side, "route", "replace", inner(other(side)), "dev", TUN, "src", inner(side))
    return start


def tunnel(side, index, kind, flows):
    return f"""  - name: t{index}
    kind: {kind}
    local: {OUTER[side]}
    peers: [{OUTER[other(side)]}]
    key: {KEY + index}
    device: {TUN if index == 0 else f'gt{index}'}
    address: {inner(side, index)}
    networks: [{inner(other(side), index)}/32]
    services: [{inner(side, index)}]
{f'    flows: {flows}' if flows else ''}
"""


def open_vswitch(bed, side):
    """A bridge with the veth and the outer address, a bridge with the GRE port and the inner address."""
    directory = bed.log(side).with_suffix(".ovs")
    directory.mkdir()
    socket = directory / "db.sock"
    names = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
    options = {"cwd": directory, "env": {**os.environ, **dict.fromkeys(names, str(directory))}}
    configure = lambda *words: run("ovs-vsctl", f"--db=unix:{socket}", "--timeout=20", *words, **options)
    run("ovsdb-tool", "create", "conf.db", OVS_SCHEMA, **options)
    store = bed.start(side, ["ovsdb-server", "conf.db", f"--remote=punix:{socket}"], **options)
    bed.wait_for(side, store, "database", socket.exists)
    configure("--no-wait", "init")
    bed.start(side, ["ovs-vswitchd", f"unix:{socket}", "--disable-system"], is_engine=True, **options)
    address = bed.ip(side, "-o", "link", "show", VETH).split("link/ether ")[1].split()[0]
    for bridge, settings in (("outer", [f"other-config:hwaddr={address}"]), (bed.engine.device, [])):
        configure("add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev", *settings)
    bed.ip(side, "address", "flush", "dev", VETH)
    configure("add-port", "outer", VETH)
    bed.ip(side, "address", "add", f"{OUTER[side]}/24", "dev", "outer")
    bed.ip(side, "link", "set", "outer", "mtu", str(bed.mtu), "up")
    configure("add-port", bed.engine.device, "gre0", "--", "set", "interface", "gre0", "type=gre",
              f"options:remote_ip={OUTER[other(side)]}", f"options:key={KEY}")
    set_up(bed, side, bed.engine.device, GRE_ETHERNET_BYTES)


def set_up(bed, side, device, overhead):
    bed.ip(side, "link", "set", device, "mtu", str(bed.mtu - overhead), "txqueuelen", "1000", "up")
    bed.ip(side, "address", "add", inner(side), "peer", inner(other(side)), "dev", device)


def is_up(bed, side, device):
    return device in bed.devices(side) and ",UP" in bed.ip(side, "-o", "link", "show", "dev", device)
