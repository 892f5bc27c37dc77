"""Chapter 4: the system calls behind it: every call into the kernel that loading, attaching and reading makes."""

import os

from learn import kernel

import pybpf
from pybpf import syscall
from pybpf.syscall import Call


class Teller:
    """Prints each call when it has returned."""

    def before(self, call: Call) -> None:
        pass

    def after(self, call: Call) -> None:
        name = f"{call.name}({call.command})" if call.command else call.name
        print(f"{name} = {call.result}" + (f" ({os.strerror(call.errno)})" if call.errno else ""), flush=True)


teller = Teller()
syscall.add_observer(teller)
spec = pybpf.ObjectSpec.from_file(kernel("ch04_buffer_config"))
spec.programs["hello_ring"].autoload = True
with spec.load() as obj, obj.attach():
    obj.maps["config"][0] = {"text": "Hey root!"}
    if os.fork() == 0:
        os.execv("/bin/true", ["true"])
    os.wait()
    print("event:", next(iter(obj.maps["ring"])), flush=True)
syscall.remove_observer(teller)
