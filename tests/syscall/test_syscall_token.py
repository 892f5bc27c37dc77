"""BPF tokens: a process in a user namespace of its own gets rights that a privileged one delegates to it."""

from __future__ import annotations

import pytest
from syscall_programs import NEEDS_ROOT, python

pytestmark = NEEDS_ROOT

# fsopen(2), fsconfig(2) and fsmount(2) have the same numbers on all machines but alpha.
DELEGATION = """
import ctypes, errno, os, socket
from pybpf import syscall
from pybpf.btf.writer import BTFBuilder
from pybpf.constants import *
from syscall_programs import returns, u32

libc = ctypes.CDLL(None, use_errno=True)
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
SET_STRING, CREATE = 1, 6
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000

def check(result, what):
    if result < 0:
        raise SystemExit(f"cannot: {what}: {os.strerror(ctypes.get_errno())}")
    return result

def give_up(what):
    print("cannot:", what, os.strerror(ctypes.get_errno()), flush=True)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os._exit(0)

parent, child = socket.socketpair()
pid = os.fork()
if pid == 0:
    parent.close()
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
    child.send(b"1")
    child.recv(1)  # the map of users is written
    filesystem = check(libc.syscall(FSOPEN, b"bpf", 0), "fsopen")
    socket.send_fds(child, [b"2"], [filesystem])
    mount = socket.recv_fds(child, 1, 1)[1][0]
    try:
        token = syscall.token_create(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount))
    except OSError as error:
        print("cannot:", error)
        os._exit(0)
    found = []
    with token:
        info = None
        try:
            info = syscall.token_info(token)
        except OSError as error:
            assert error.errno == errno.EINVAL, error  # before Linux 6.17
        if info is not None:
            assert info.allowed_cmds >> BPF_MAP_CREATE & 1 and info.allowed_maps >> BPF_MAP_TYPE_ARRAY & 1
        try:
            syscall.map_create(BPF_MAP_TYPE_LRU_HASH, key_size=4, value_size=4, max_entries=1).close()
        except PermissionError:
            found.append("refused")
        with syscall.map_create(BPF_MAP_TYPE_LRU_HASH, key_size=4, value_size=4, max_entries=1, token_fd=token) as made:
            syscall.map_update_elem(made, u32(1), u32(2))
            assert syscall.map_lookup_elem(made, u32(1), 4) == u32(2)
            found.append("map")
        with syscall.prog_load(BPF_PROG_TYPE_XDP, returns(2), token_fd=token):
            found.append("program")
        builder = BTFBuilder()
        builder.add_int("int", 4, 32, 1)
        with syscall.btf_load(builder.to_bytes(), token_fd=token):
            found.append("btf")
    print(*found, flush=True)
    os._exit(0)
child.close()
parent.recv(1)
for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
    with open(f"/proc/{pid}/{name}", "w") as file:
        file.write(text)
parent.send(b"1")
_, fds, _, _ = socket.recv_fds(parent, 1, 1)
if fds:
    for option in (b"delegate_cmds", b"delegate_maps", b"delegate_progs", b"delegate_attachs"):
        if libc.syscall(FSCONFIG, fds[0], SET_STRING, option, b"any", 0) < 0:
            give_up(option)
    if libc.syscall(FSCONFIG, fds[0], CREATE, None, None, 0) < 0:
        give_up("to make a bpffs for another user namespace")  # before Linux 6.9 the options mean nothing
    mount = check(libc.syscall(FSMOUNT, fds[0], 0, 0), "fsmount")
    socket.send_fds(parent, [b"3"], [mount])
    os.close(mount)
    os.close(fds[0])
status = os.waitpid(pid, 0)[1]
parent.close()
assert status in (0, 9), "see above"
"""


def test_what_a_token_allows() -> None:
    out = python(DELEGATION)
    if "cannot" in out:
        pytest.skip(f"tokens came with Linux 6.9: {out.strip()}")
    assert out.split() == ["refused", "map", "program", "btf"]
