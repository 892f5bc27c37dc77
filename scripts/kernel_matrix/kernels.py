"""The table of the kernels, and of the machines they run on.

Facts only. Kernels come from the Debian suite named beside them; the newest package whose name matches is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Architecture:
    """One Debian architecture and how QEMU emulates it."""

    name: str  # Debian's name
    machine: str  # the kernel's name, as in uname -m
    qemu: str  # the emulator's program
    qemu_package: str  # the Debian package that has it
    qemu_arguments: tuple[str, ...]
    console: str  # the guest's name for its serial console
    console_arguments: tuple[str, ...]  # QEMU's device for it, fed by the character device named "console"
    serial_bus: str  # the virtio-serial device
    kernel_arguments: str
    loader: str  # the dynamic loader, below the root
    library_folder: str  # Debian's multiarch name
    root_suite: str = "trixie"  # the suite of the guest's programs: its Python is new enough, on the old kernels too


_UNWATCHED = "mitigations=off nowatchdog cryptomgr.notests"

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="amd64",
            machine="x86_64",
            qemu="qemu-system-x86_64",
            qemu_package="qemu-system-x86",
            # QEMU 7.2 emulates five-level page tables with faults: guests crash now and then. So it does cmpxchg16b
            # (without which newer kernels make no arenas and no local storage, kmalloc_nolock) and code that the
            # kernel changes while another processor runs it (int3 in __schedule), unless one thread emulates all.
            # What is slow to emulate is left out too: it costs an eighth.
            qemu_arguments=(
                *("-M", "q35", "-cpu", "max,-avx,-avx2,-erms,-fsrm,-la57"),
                *("-accel", "tcg,thread=single"),
            ),
            console="ttyS0",
            console_arguments=("-serial", "chardev:console"),
            serial_bus="virtio-serial-pci",
            # The TSC is measured at boot: on a busy machine so wrongly that clocks run four times too fast.
            kernel_arguments=f"{_UNWATCHED} tsc=reliable clocksource=hpet",
            loader="usr/lib64/ld-linux-x86-64.so.2",
            library_folder="x86_64-linux-gnu",
        ),
        Architecture(
            name="arm64",
            machine="aarch64",
            qemu="qemu-system-aarch64",
            qemu_package="qemu-system-arm",
            # The architected pointer authentication algorithm is very slow to emulate.
            qemu_arguments=(
                *("-M", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on"),
                *("-accel", "tcg,thread=multi"),
            ),
            console="ttyAMA0",
            console_arguments=("-serial", "chardev:console"),
            serial_bus="virtio-serial-pci",
            kernel_arguments=_UNWATCHED,
            loader="usr/lib/ld-linux-aarch64.so.1",
            library_folder="aarch64-linux-gnu",
        ),
        Architecture(
            name="s390x",
            machine="s390x",
            qemu="qemu-system-s390x",
            qemu_package="qemu-system-misc",
            qemu_arguments=("-M", "s390-ccw-virtio", "-cpu", "max", "-accel", "tcg,thread=multi"),
            console="ttysclp0",
            console_arguments=("-device", "sclpconsole,chardev=console"),
            serial_bus="virtio-serial-ccw",
            kernel_arguments="",
            loader="usr/lib/ld64.so.1",
            library_folder="s390x-linux-gnu",
            root_suite="forky",  # the mirror lists trixie's newest packages for s390x and does not have them
        ),
    )
}


@dataclass(frozen=True)
class Kernel:
    """One column of the matrix."""

    name: str
    architecture: Architecture
    suite: str  # the Debian suite that carries it
    package: str  # a regular expression of the whole package name
    tests: str = "not pure"  # which run here, as pytest's -m has it; pure ones ask nothing of the kernel
    configuration: Path | None = None  # what to build it with when the package has its sources


_AMD64, _ARM64, _S390X = (ARCHITECTURES[name] for name in ("amd64", "arm64", "s390x"))
_ALL_TESTS = ""  # once on each architecture

KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("5.10", _AMD64, "bullseye", r"linux-image-5\.10\.[^-]+-\d+-cloud-amd64"),
        Kernel("6.1", _AMD64, "bookworm", r"linux-image-6\.1\.[^-]+-\d+-cloud-amd64"),
        Kernel("6.12", _AMD64, "trixie", r"linux-image-6\.12\.[^-]+-cloud-amd64", tests=_ALL_TESTS),
        Kernel("6.18", _AMD64, "trixie-backports", r"linux-image-6\.18\.[^-]+-cloud-amd64"),
        Kernel("newest", _AMD64, "trixie-backports", r"linux-image-\d+\.\d+\.[^-]+-cloud-amd64"),
        Kernel("6.12-arm64", _ARM64, "trixie", r"linux-image-6\.12\.[^-]+-cloud-arm64", tests=_ALL_TESTS),
        Kernel("6.12-s390x", _S390X, "trixie", r"linux-image-6\.12\.[^-]+-s390x", tests=_ALL_TESTS),
        Kernel(
            "6.12-built",
            _AMD64,
            "trixie",
            r"linux-source-6\.12",
            tests="built",
            configuration=Path(__file__).with_name("built.config"),
        ),
    )
}

#: The programs of the guest, installed with what they depend on.
ROOT_PACKAGES = (
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libc-bin",
    "mount",
    "procps",
    "python3",
    "python3-hypothesis",
    "python3-pyelftools",
    "python3-pytest",
    "python3-pyroute2",
    "util-linux",
)

_MODULES = """
    virtio_pci virtio_mmio virtio_console virtio_rng
    veth dummy ifb tun bridge macvlan ipvlan vxlan vrf bonding netkit nlmon netdevsim ipip sit ip_gre ip_tunnel fou
    cls_bpf act_bpf act_mirred act_gact cls_matchall cls_u32 sch_ingress sch_fq sch_fq_codel sch_netem sch_htb
    sch_prio sch_bpf
    nf_conntrack nf_nat nf_tables nf_flow_table nft_compat nf_defrag_ipv4 nf_defrag_ipv6
    ip_tables iptable_filter x_tables xt_bpf xt_mark
    tcp_bbr tcp_dctcp tcp_vegas sctp tls vsock vsock_loopback af_packet xfrm_interface
    unix_diag inet_diag tcp_diag udp_diag raw_diag netlink_diag xsk_diag mptcp_diag
    bpf_preload bpf_crypto_skcipher ecb cbc aes_generic crypto_user crc32c_intel
    loop overlay ext4 fuse
"""

#: Kernel modules that tests may need, with what these depend on. A kernel that has none of that name (built in, or
#: another version) goes without.
MODULES = tuple(_MODULES.split())


def module_name(file: str) -> str:
    """The name of the module in a file such as kernel/net/sched/act_bpf.ko.xz; - and _ are the same in names."""
    return file.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def module_closure(dependencies: str, wanted: Iterable[str]) -> list[str]:
    """The files of the wanted modules and of all that they need, from the text of modules.dep.

    A line of modules.dep is `file: file file ...`; depmod lists what is needed in full, not only the next step.
    """
    by_name: dict[str, list[str]] = {}
    for line in dependencies.splitlines():
        file, _, needs = line.partition(":")
        by_name[module_name(file)] = [file, *needs.split()]
    names = {name.replace("-", "_") for name in wanted}
    return sorted({file for name in names for file in by_name.get(name, ())})


def newest_first(names: Iterable[str], pattern: str) -> list[str]:
    """The names that match the whole pattern, the one with the greatest version in it first."""

    def version(name: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", name)]

    return sorted((name for name in names if re.fullmatch(pattern, name)), key=version, reverse=True)


def parts_of_image(image: str, dependencies: Iterable[str]) -> list[str]:
    """The packages a kernel consists of: its image package, and those of its dependencies that are of its release.

    From 6.19 on, Debian splits an image into linux-base-RELEASE, linux-binary-RELEASE and linux-modules-RELEASE.
    """
    release = image.removeprefix("linux-image-")
    return [image, *(name for name in dependencies if name.startswith("linux-") and name.endswith(f"-{release}"))]
