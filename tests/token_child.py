"""Run in a process of its own: loads an object in a user namespace that has nothing but a token.

The parent delegates everything through a BPF file system that the child asked for; see Linux, kernel/bpf/token.c.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys

import pybpf
from pybpf import syscall

libc = ctypes.CDLL(None, use_errno=True)
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432  # on all machines but alpha
SET_STRING, CREATE = 1, 6
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000


def check(result: int, what: str) -> int:
    if result < 0:
        raise SystemExit(f"cannot: {what}: {os.strerror(ctypes.get_errno())}")
    return result


def run(path: str, **options: object) -> str:
    with pybpf.load(path, **options) as obj:
        obj.maps["secret"][0] = 77
        return f"{' '.join(obj.programs)} {obj.maps['secret'][0]} {obj.maps['secret'].info().btf_value_type_id > 0}"


def child(link: socket.socket, path: str) -> None:
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
    link.send(b"1")
    link.recv(1)  # the map of users is written
    filesystem = check(libc.syscall(FSOPEN, b"bpf", 0), "fsopen")
    socket.send_fds(link, [b"2"], [filesystem])
    mount = socket.recv_fds(link, 1, 1)[1][0]
    place = f"/proc/self/fd/{mount}/."
    try:
        pybpf.load(path, token="").close()
        print("loaded without a token")
    except PermissionError:
        print("refused")
    try:
        token = syscall.token_create(os.open(place, os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        raise SystemExit(f"cannot: {error}") from None
    with token:
        print("by token:", run(path, token=token))
    print("by path:", run(path, token=place))


def main(path: str) -> None:
    parent_end, child_end = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        parent_end.close()
        try:
            child(child_end, path)
        finally:
            sys.stdout.flush()
        os._exit(0)
    child_end.close()
    parent_end.recv(1)
    for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)
    parent_end.send(b"1")
    _, fds, _, _ = socket.recv_fds(parent_end, 1, 1)
    if fds:
        for option in (b"delegate_cmds", b"delegate_maps", b"delegate_progs", b"delegate_attachs"):
            if libc.syscall(FSCONFIG, fds[0], SET_STRING, option, b"any", 0) < 0:
                print("cannot:", option, flush=True)
                os.kill(pid, 9)
        check(libc.syscall(FSCONFIG, fds[0], CREATE, None, None, 0), "fsconfig")
        mount = check(libc.syscall(FSMOUNT, fds[0], 0, 0), "fsmount")
        socket.send_fds(parent_end, [b"3"], [mount])
        os.close(mount)
        os.close(fds[0])
    parent_end.close()
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(os.WEXITSTATUS(status))
