"""USDT: programs at the probes that a program's authors have put into it, and what tells them where arguments are.

A probe is at one or many places of a file. At each place its arguments are elsewhere, so the program looks up a *spec*:
the place of each argument. The program's object has two maps for that, which usdt.bpf.h defines:

* ``__bpf_usdt_specs``, an array of specs. Each attachment takes as many of them as there are different
  arguments among its places, and gives them back when it is closed. They hold the attachment's cookie too.
* ``__bpf_usdt_ip_to_spec_id``, for kernels without cookies (before 5.15): the spec by address of the instruction.

Objects compiled with libbpf's header have the same maps; which fields a spec has, the object's own types tell.

Source: usdt.c and usdt.bpf.h of libbpf.
"""

from __future__ import annotations

import errno
import os

from pybpf.constants import BPF_NOEXIST, BPF_TRACE_UPROBE_MULTI
from pybpf.errors import BPFError, BPFExistsError, BPFNotFoundError, ClosedError, NotSupportedError, ObjectError
from pybpf.links.base import Link, Links
from pybpf.links.refusal import attaching, refused
from pybpf.symbols.usdt_arguments import INDEXED_MEMORY, MAX_ARGUMENTS, parse_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pybpf.links.base import Attachable
    from pybpf.maps.loaded import LoadedMaps
    from pybpf.spec import ObjectSpec
    from pybpf.symbols.elf import Binary
    from pybpf.symbols.usdt import UsdtProbe
    from pybpf.symbols.usdt_arguments import UsdtArgument
    from pybpf.syscall import FD

SPECS, SPEC_OF_ADDRESS = "__bpf_usdt_specs", "__bpf_usdt_ip_to_spec_id"

QUICK_PLACES = {5: bytes.fromhex("90 0f1f440000"), 10: bytes.fromhex("90 662e0f1f840000000000")}
"""x86-64: an instruction of one byte that does nothing, and one of so many bytes, which the kernel turns into a call
(`compat.quick_uprobe_size`). The uprobe is put on the long one then, and costs no trap."""


class UsdtSpecs:
    """The two maps of an object, and which specs are free. Made by the first attachment.

    Attributes:
        map: the specs.
        by_address: which spec belongs to an instruction.
        has_cookies: whether the object's programs were told when they were loaded that the kernel has cookies.
    """

    def __init__(self, maps: LoadedMaps, spec: ObjectSpec) -> None:
        """Raises ObjectError when the object has no such maps."""
        if SPECS not in maps or SPEC_OF_ADDRESS not in maps:
            raise ObjectError(f"the object has no maps {SPECS} and {SPEC_OF_ADDRESS}: include usdt.bpf.h in its source")
        self.map = maps[SPECS]
        self.by_address = maps[SPEC_OF_ADDRESS]
        self.has_cookies = _is_true(spec, "LINUX_HAS_BPF_COOKIE")
        self._returned: list[int] = []
        self._unused = iter(range(self.map.max_entries))

    def take(self) -> int:
        """The number of a spec that nobody uses.

        Raises:
            BPFError: E2BIG: all are in use.
        """
        try:
            return self._returned.pop()
        except IndexError:
            number = next(self._unused, None)
        if number is None:
            hint = "Define BPF_USDT_MAX_SPEC_CNT before usdt.bpf.h, or set max_entries of the map before the load"
            raise BPFError(errno.E2BIG, "attach", f"all {self.map.max_entries} specs of {SPECS} are in use", hint)
        return number

    def give_back(self, numbers: list[int]) -> None:
        self._returned += numbers

    def write(self, number: int, arguments: list[UsdtArgument], cookie: int) -> None:
        """Fill a spec.

        Raises:
            ObjectError: the object's specs have no fields for such arguments.
        """
        described: list[dict[str, Any]] = [self._fields(argument) for argument in arguments]
        described += [{}] * (MAX_ARGUMENTS - len(arguments))
        try:
            self.map[number] = {"args": described, "usdt_cookie": cookie, "arg_cnt": len(arguments)}
        except ClosedError:
            raise
        except (TypeError, ValueError) as error:
            what = "the object was compiled with a usdt.bpf.h that has no place for this (libbpf's has it since 1.7)"
            raise ObjectError(f"{what}: {error}") from None

    def _fields(self, argument: UsdtArgument) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "val_off": argument.value & (1 << 64) - 1,
            "arg_type": argument.kind,
            "reg_off": argument.register,
            "arg_signed": argument.is_signed,
            "arg_bitshift": 64 - 8 * argument.size,
        }
        if argument.kind == INDEXED_MEMORY:
            fields["idx_reg_off"], fields["scale_bitshift"] = argument.index, argument.shift
        return fields


def _is_true(spec: ObjectSpec, name: str) -> bool:
    """What an extern of the object was told when it was loaded; True for an object that does not ask."""
    extern, kconfig = spec.externs.get(name), spec.maps.get(".kconfig")
    if extern is None or kconfig is None or kconfig.data is None:
        return True
    return any(kconfig.data[extern.offset : extern.offset + extern.size])


class UsdtLink(Link):
    """A program at every place of a USDT probe: one link of many uprobes (Linux 6.6), or one uprobe for each place.

    Attributes:
        probes: the places.
    """

    __slots__ = ("_addresses", "_numbers", "_specs", "_uprobes", "probes")

    def __init__(self, specs: UsdtSpecs, target: str, probes: list[UsdtProbe]) -> None:
        super().__init__(None, "usdt", target)
        self.probes = probes
        self._specs = specs
        self._numbers: list[int] = []
        self._addresses: list[int] = []
        self._uprobes = Links()

    def _release(self) -> None:
        try:
            super()._release()
            self._uprobes.close()
        finally:
            if not self._pin_path and not self._is_inherited:
                self._forget()

    def _forget(self) -> None:
        """Give back the specs."""
        for address in self._addresses:
            try:
                self._specs.by_address.pop(address, None)
            except ClosedError:  # with the object; then nobody can attach to these addresses any more
                break
        self._specs.give_back(self._numbers)
        self._numbers, self._addresses = [], []


def attach_usdt(
    program: Attachable, path: str, provider: str, name: str, *, pid: int = -1, cookie: int = 0
) -> UsdtLink:
    """Attaches a program to every place of a USDT probe. Since Linux 4.1; probes with a semaphore since 4.20.

    Args:
        program: of type kprobe, from an object whose source includes usdt.bpf.h.
        path: the executable or library; a name without a slash is looked up as a library or program, in what the
            process has mapped first; ``archive.zip!/lib.so`` is a member of an archive. Empty: the first file with such
            a probe that the process has mapped.
        provider: the first part of the probe's name, for example ``"python"``.
        name: the second, for example ``"gc__start"``.
        pid: only this process; -1 for all, 0 for the caller. Kernels without cookies (before 5.15) want it, except for
            executables that are always at the same address.
        cookie: a number that bpf_usdt_cookie() gives to the program.

    Raises:
        BPFNotFoundError: the file, the probe or the process does not exist.
        ObjectError: the file is no executable or library, or its notes are damaged; an argument is in a place that
            programs cannot read; the program's object does not know USDT.
        NotSupportedError: the kernel has no uprobes, no semaphores; or no cookies, and no process is given.
        BPFPermissionError: a capability is missing.
        BPFError: E2BIG: the object's map has no room for so many specs.
    """
    from pybpf.symbols.usdt import read_probes

    target = f"{path}:{provider}:{name}"
    what = attaching(program, f"usdt {target}")
    try:
        specs = _specs_of(program)
        for binary in _binaries(path, pid):
            with binary:
                probes = read_probes(binary, provider, name)
                if probes:
                    link = UsdtLink(specs, target, probes)
                    _attach(program, binary, link, max(pid, -1), cookie)
                    return link
    except ObjectError as error:
        raise ObjectError(f"{what}: {error}") from None
    except BPFError as error:
        raise refused(error, f"{what}: {error.what}" if error.what else what) from None
    hint = "`readelf -n` lists the probes of a file, and so does pybpf.symbols.usdt_probes(path)"
    raise BPFNotFoundError(errno.ENOENT, "attach", f"{what}: there is no such probe", hint)


def _specs_of(program: Attachable) -> UsdtSpecs:
    maps, spec = program.maps, program.spec
    if maps is None or spec is None:
        raise ObjectError("the program was opened by itself: without the maps of its object it cannot read arguments")
    with maps.lock:
        if maps.usdt is None:
            maps.usdt = UsdtSpecs(maps, spec.spec)
        return maps.usdt


def _binaries(path: str, pid: int) -> Iterator[Binary]:
    """Where to look for the probe: one file, or every file that a process has mapped."""
    from pybpf.symbols.binary import find_binary
    from pybpf.symbols.elf import Binary
    from pybpf.symbols.process import mapped_files

    if path:
        yield Binary(find_binary(path, pid))
        return
    if pid < 0:
        raise ValueError("give a path, or the process whose files are to be looked at")
    for file in mapped_files(pid):
        try:
            yield Binary(file)
        except (ObjectError, OSError):  # code that is in no ELF file, or whose file cannot be reached
            continue


def _attach(program: Attachable, binary: Binary, link: UsdtLink, pid: int, cookie: int) -> None:
    """Take the specs, write them, and attach. Whatever fails, the link is closed."""
    specs, probes = link._specs, link.probes
    try:
        _check_machine(binary)
        numbers: dict[tuple[tuple[int, ...], ...], int] = {}
        places, cookies = [], []
        for probe in probes:
            place = probe.offset + _skipped(binary, probe)
            arguments = _arguments(binary, probe, place)
            key = tuple(argument.facts() for argument in arguments)
            if key not in numbers:
                numbers[key] = specs.take()
                link._numbers.append(numbers[key])
                specs.write(numbers[key], arguments, cookie)
            places.append(place)
            cookies.append(numbers[key])
        if program.attach_type_number == BPF_TRACE_UPROBE_MULTI:
            link._fd = _attach_at_once(program, binary.path, places, probes, cookies, pid)
        else:
            for place, probe, number in zip(places, probes, cookies, strict=True):
                _attach_one(program, binary, place, probe, number, pid, link)
    except BaseException:
        link.close()
        raise


def _arguments(binary: Binary, probe: UsdtProbe, place: int) -> list[UsdtArgument]:
    address = probe.address + place - probe.offset
    return parse_arguments(probe.arguments, os.uname().machine, lambda name: binary.variable(name) - address)


def _check_machine(binary: Binary) -> None:
    """The arguments of a probe are in the words of a machine: only this one's can be read."""
    machine = os.uname().machine
    known = {
        "x86_64": ("EM_X86_64", "EM_386"),
        "aarch64": ("EM_AARCH64",),
        "s390x": ("EM_S390",),
        "riscv64": ("EM_RISCV",),
    }
    if binary.machine not in known.get(machine, (binary.machine,)):
        raise ObjectError(f"{binary.name} is for another machine: {binary.machine.removeprefix('EM_')}")


def _skipped(binary: Binary, probe: UsdtProbe) -> int:
    """Bytes from the probe's place to the instruction that the kernel can make quick."""
    code = binary.code(probe.offset, 1 + max(QUICK_PLACES))
    if binary.machine != "EM_X86_64" or not code.startswith(tuple(QUICK_PLACES.values())):
        return 0
    from pybpf.compat import quick_uprobe_size

    size = quick_uprobe_size()
    return int(bool(size) and code.startswith(QUICK_PLACES[size]))


def _attach_at_once(
    program: Attachable, path: str, offsets: list[int], probes: list[UsdtProbe], cookies: list[int], pid: int
) -> FD:
    from pybpf.links.uprobe_multi import create_uprobe_multi

    semaphores = [probe.semaphore for probe in probes]
    return create_uprobe_multi(
        program, path, offsets, pid=pid, cookies=cookies, ref_ctr_offsets=semaphores if any(semaphores) else ()
    )


def _attach_one(
    program: Attachable, binary: Binary, place: int, probe: UsdtProbe, number: int, pid: int, link: UsdtLink
) -> None:
    """A uprobe of its own for one place."""
    from pybpf.links.uprobe import attach_uprobe

    has_cookies = link._specs.has_cookies
    if not has_cookies:
        address = _address(binary, place, probe.address + place - probe.offset, pid)
        try:
            link._specs.by_address.put(address, number, BPF_NOEXIST)
        except BPFExistsError:
            what = f"a program of this object is at the address {address:#x} already"
            hint = "Without cookies (before Linux 5.15) an object has one program at each place"
            raise BPFExistsError(errno.EEXIST, "attach", what, hint) from None
        link._addresses.append(address)
    cookie = number if has_cookies else 0
    link._uprobes.append(
        attach_uprobe(program, binary.path, offset=place, pid=pid, cookie=cookie, ref_ctr_offset=probe.semaphore)
    )


def _address(binary: Binary, offset: int, own: int, pid: int) -> int:
    """Where an instruction is in memory: in every process, or in the one that is given."""
    if binary.is_fixed:
        return own
    if pid < 0:
        hint = "Give pid=, or use Linux 5.15: without cookies a program knows its probe by the address in one process"
        raise NotSupportedError(errno.EOPNOTSUPP, "attach", f"{binary.name} is at another address each time", hint)
    from pybpf.symbols.process import code_address

    address = code_address(pid, binary.path, offset)
    if address is None:
        raise BPFNotFoundError(errno.ESRCH, "attach", f"process {pid} has not mapped {binary.path} as code")
    return address
