"""Chapter 8: a socket filter: TCP packets of an interface are copied to a socket, all are counted by protocol."""

import socket
import sys
from contextlib import suppress

from learn import kernel

import pybpf

ETH_P_ALL = 3
interface = sys.argv[1] if len(sys.argv) > 1 else "lo"
with (
    pybpf.load(kernel("ch08_socket_filter")) as obj,
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packets,  # 0: it gets nothing before it has a filter
    obj.programs["socket_filter"].attach_socket_filter(packets),
):
    packets.bind((interface, ETH_P_ALL))
    print(f"Listening on {interface}. Ctrl-C ends it.", flush=True)
    with suppress(KeyboardInterrupt):
        while True:
            packet = packets.recv(65536)
            source, target = (socket.inet_ntoa(packet[at : at + 4]) for at in (26, 30))
            print(f"TCP, {len(packet)} bytes, {source} -> {target}", flush=True)
    print({number: count for number, count in enumerate(obj.maps["protocols"]) if count})
