"""Chapter 8: a load balancer: `ch08_balance.py INTERFACE OWN_ADDRESS BACKEND=MAC [BACKEND=MAC ...]`."""

import sys
from contextlib import suppress
from ipaddress import IPv4Address
from time import sleep

from learn import kernel

import pybpf


def wire(address: str) -> int:
    """The number in the bytes of the packet, read as this machine reads them."""
    return int.from_bytes(IPv4Address(address).packed, sys.byteorder)


if len(sys.argv) < 4:
    sys.exit(__doc__)
interface, own, *hosts = sys.argv[1:]
spec = pybpf.ObjectSpec.from_file(kernel("ch08_balance"))
spec.globals["own_address"], spec.globals["backend_count"] = wire(own), len(hosts)
with spec.load() as obj:
    for index, host in enumerate(hosts):
        address, _, mac = host.partition("=")
        obj.maps["backends"][index] = {"address": wire(address), "mac": bytes.fromhex(mac.replace(":", ""))}
    with obj.programs["balance"].attach_xdp(interface, mode="generic"), suppress(KeyboardInterrupt):
        print(f"Balancing on {interface}. Ctrl-C ends it.", flush=True)
        while True:
            sleep(1)
    print(f"{obj.globals['forwarded']} datagrams forwarded, {obj.globals['returned']} returned")
