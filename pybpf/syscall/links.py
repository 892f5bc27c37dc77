"""The bpf(2) commands that work on links: attachments that a descriptor or a pin keeps.

Source: include/uapi/linux/bpf.h, kernel/bpf/syscall.c; bpf(2).
"""

from __future__ import annotations

from pybpf.constants import BPF_F_ID
from pybpf.syscall.door import pointer
from pybpf.syscall.fd import FD, fileno
from pybpf.syscall.invoke import descriptor, invoke, number, path_bytes
from pybpf.syscall.record import Record, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybpf.syscall.door import Buffer
    from pybpf.syscall.fd import FdLike
    from pybpf.syscall.invoke import Path


def link_create(
    prog_fd: FdLike,
    target: int | FdLike,
    attach_type: int,
    *,
    flags: int = 0,
    target_btf_id: int = 0,
    cookie: int = 0,
    bpf_cookie: int = 0,
    iter_info: Buffer = b"",
    relative_fd: FdLike | None = None,
    relative_id: int = 0,
    expected_revision: int = 0,
    pf: int = 0,
    hooknum: int = 0,
    priority: int = 0,
    netfilter_flags: int = 0,
    syms: Sequence[str] | None = None,
    addrs: Sequence[int] | None = None,
    path: Path | None = None,
    path_fd: FdLike | None = None,
    offsets: Sequence[int] | None = None,
    ref_ctr_offsets: Sequence[int] | None = None,
    pid: int = 0,
    ids: Sequence[int] | None = None,
    cookies: Sequence[int] | None = None,
    multi_flags: int = 0,
) -> FD:
    """BPF_LINK_CREATE (Linux 5.7): attach a program; it stays as long as the link is open or pinned.

    Which of the fields after `flags` apply follows from the kind of attachment:

    * tracing (fentry, fexit, fmod_ret, LSM, tp_btf; Linux 5.19), and freplace: `target_btf_id`, `cookie`;
    * iterators (Linux 5.8): `iter_info`, a union bpf_iter_link_info;
    * perf events (Linux 5.15): `bpf_cookie`;
    * cgroups, tcx (Linux 6.6), netkit (Linux 6.7): `relative_fd` or `relative_id` (sets BPF_F_ID),
      `expected_revision`;
    * netfilter (Linux 6.4): `pf`, `hooknum`, `priority`, `netfilter_flags`;
    * kprobe_multi (Linux 5.18): `syms` or `addrs`, `cookies`, `multi_flags`;
    * uprobe_multi (Linux 6.6): `path` (or `path_fd`), `offsets`, `ref_ctr_offsets`, `cookies`, `pid`, `multi_flags`;
    * tracing_multi (Linux 7.2): `ids`, `cookies`.

    Args:
        prog_fd: the program; for BPF_STRUCT_OPS the map.
        target: what to attach to: a descriptor (cgroup, perf event, network namespace), or an interface's number
            (XDP, tcx, netkit); 0 if there is none. -1 is passed on, which probes use.
        attach_type: BPF_XDP and so on; 0 for freplace.
        flags: XDP_FLAGS_SKB_MODE and so on for XDP; BPF_F_BEFORE, BPF_F_AFTER for tcx, netkit and cgroups.
        target_btf_id: the function to replace, in the program that `target` is.
        cookie, bpf_cookie, cookies: what bpf_get_attach_cookie() gives to the program.
        pf: NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10).
        hooknum: NF_INET_PRE_ROUTING (0) to NF_INET_POST_ROUTING (4).
        priority: lower runs first; not the smallest or largest 32-bit number.
        netfilter_flags: BPF_F_NETFILTER_IP_DEFRAG (Linux 6.6).
        syms: names of kernel functions.
        addrs: addresses of kernel functions.
        path: the executable or library.
        offsets: where in the file, in bytes.
        ref_ctr_offsets: where in the file the semaphores are, in bytes.
        pid: only this process; 0 is all.
        ids: BTF type ids of the functions.
        multi_flags: BPF_F_KPROBE_MULTI_RETURN, BPF_F_UPROBE_MULTI_RETURN; BPF_F_UPROBE_MULTI_PATH_FD with path_fd.

    Raises:
        BPFPermissionError: a capability is missing.
        BPFError: EINVAL: kernel, program and attach type do not go together; EBUSY; EBADF; E2BIG: a field that
            this kernel does not know.
        NotSupportedError: the kernel cannot attach this way.
        ValueError: arrays of different length.
    """
    if relative_id:
        flags |= BPF_F_ID
    attr = Record("BPF_LINK_CREATE")
    attr.put(prog_fd=fileno(prog_fd), target_fd=fileno(target), attach_type=attach_type, flags=flags)
    attr.put(target_btf_id=target_btf_id, iter_info_len=len(iter_info))
    attr.point("iter_info", iter_info)
    dotted = {
        "tracing.cookie": cookie,
        "perf_event.bpf_cookie": bpf_cookie,
        "tcx.relative_fd": relative_id or number(relative_fd),
        "tcx.expected_revision": expected_revision,
        "netfilter.pf": pf,
        "netfilter.hooknum": hooknum,
        "netfilter.priority": priority,
        "netfilter.flags": netfilter_flags,
    }
    for name, value in dotted.items():
        if value:
            attr[name] = value
    if syms is not None or addrs is not None:
        count = len(addrs or () if syms is None else syms)
        _arrays(attr, "kprobe_multi", count, {"addrs": ("L", addrs), "cookies": ("Q", cookies)})
        attr["kprobe_multi.flags"] = multi_flags
        if syms is not None:
            _strings(attr, "kprobe_multi.syms", syms)
    elif offsets is not None:
        arrays = {"offsets": ("L", offsets), "ref_ctr_offsets": ("L", ref_ctr_offsets), "cookies": ("Q", cookies)}
        _arrays(attr, "uprobe_multi", len(offsets), arrays)
        attr["uprobe_multi.flags"] = multi_flags
        attr["uprobe_multi.pid"] = pid
        attr["uprobe_multi.path_fd"] = number(path_fd)
        attr.point("uprobe_multi.path", None if path is None else path_bytes(path))
    elif ids is not None:
        _arrays(attr, "tracing_multi", len(ids), {"ids": ("I", ids), "cookies": ("Q", cookies)})
    return descriptor(attr)


def _arrays(attr: Record, variant: str, count: int, arrays: dict[str, tuple[str, Sequence[int] | None]]) -> None:
    """Let the fields point to arrays of one length; "L" is unsigned long, as the kernel reads them."""
    attr[f"{variant}.cnt"] = count
    for name, (code, values) in arrays.items():
        if values is None:
            continue
        if len(values) != count:
            raise ValueError(f"{variant}: {name} has {len(values)} entries, not {count}")
        attr.point(f"{variant}.{name}", pack(code, values))


def _strings(attr: Record, name: str, strings: Sequence[str]) -> None:
    """Let the field point to an array of pointers to strings."""
    encoded = [string.encode() + b"\0" for string in strings]
    text = b"".join(encoded)
    if not text:
        return
    place, alive = pointer(text)
    attr.keep(alive)
    places = []
    for string in encoded:
        places.append(place)
        place += len(string)
    attr.point(name, pack("L", places))


def link_update(link_fd: FdLike, new_prog_fd: FdLike, *, flags: int = 0, old_prog_fd: FdLike | None = None) -> None:
    """BPF_LINK_UPDATE (Linux 5.7): let the link run another program, without a gap.

    Args:
        new_prog_fd: the program; for struct_ops links (Linux 6.4) the map.
        flags: BPF_F_REPLACE: only if `old_prog_fd` is what runs now.
        old_prog_fd: the program (or map) to take the place of; needs BPF_F_REPLACE.

    Raises:
        BPFPermissionError: EPERM: `old_prog_fd` is not what runs there.
        BPFError: EINVAL: links of this kind cannot be updated, or the programs differ in type; ENOLINK: it is
            detached.
    """
    attr = Record("BPF_LINK_UPDATE")
    attr.put(link_fd=fileno(link_fd), new_prog_fd=fileno(new_prog_fd), flags=flags, old_prog_fd=number(old_prog_fd))
    invoke(attr)


def link_detach(link_fd: FdLike) -> None:
    """BPF_LINK_DETACH (Linux 5.9): detach at once, whoever else has the link open. The descriptor stays valid.

    Raises:
        NotSupportedError: EOPNOTSUPP: only cgroup, netns, XDP, tcx, netkit, sockmap and struct_ops links can do it.
    """
    attr = Record("BPF_LINK_DETACH")
    attr.put(link_fd=fileno(link_fd))
    invoke(attr)


def iter_create(link_fd: FdLike, flags: int = 0) -> FD:
    """BPF_ITER_CREATE (Linux 5.8): start an iteration; read(2) gives what the program writes, until 0 bytes.

    Args:
        link_fd: a link of an iterator program.
        flags: none is defined.
    """
    attr = Record("BPF_ITER_CREATE")
    attr.put(link_fd=fileno(link_fd), flags=flags)
    return descriptor(attr)
