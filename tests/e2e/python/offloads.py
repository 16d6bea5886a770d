"""Switches what a device does for the kernel on or off: checksums, cutting of super-packets, merging.

As `ethtool -K DEVICE tx on|off tso on|off gso on|off gro on|off`.
"""

import array
import fcntl
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
# ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO (linux/ethtool.h).
SETTINGS = {"tx": 0x17, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}

device, value = sys.argv[1], int(sys.argv[2] == "on")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    for number in SETTINGS.values():
        command = array.array("B", struct.pack("II", number, value))
        fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP", device.encode(), command.buffer_info()[0]))
print("null")
