"""What per-CPU maps have beside what other maps have: sums, and the value of one CPU alone.

Source of the flags: commit "bpf: Introduce BPF_F_CPU and BPF_F_ALL_CPUS flags" (Linux 7.0).
"""

from __future__ import annotations

import errno

from pybpf.btf.scalars import to_integer
from pybpf.constants import BPF_ANY, BPF_F_ALL_CPUS, BPF_F_CPU
from pybpf.errors import BPFError, NotSupportedError
from pybpf.maps.batch import UNSUPPORTED
from pybpf.maps.face import PerCPUFace
from pybpf.maps.mapping import MappingMap
from pybpf.syscall import possible_cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class PerCPUMap(MappingMap):
    """A map whose values are `PerCPU` lists. Writing takes such a list, or one value for all CPUs.

    A list is always taken as one value for each CPU: give the value of an array type as a tuple.
    """

    __slots__ = ()
    is_per_cpu = True

    values_face: PerCPUFace

    def _value_face(self) -> PerCPUFace:
        return PerCPUFace(super()._value_face(), possible_cpus())

    def sums(self) -> dict[Any, Any]:
        """Each key with the sum over all CPUs, see `PerCPU.sum`; quicker than asking each value."""
        run_keys, sums = self.keys_face.run, self.values_face.sums
        found: dict[Any, Any] = {}
        for keys, values, count in self.chunks():
            found.update(zip(run_keys(keys, count), sums(values, count), strict=True))
        return found

    def get_cpu(self, key: Any, cpu: int, default: Any = None) -> Any:
        """One CPU's value of an element, or the default if there is no such element.

        Linux 7.0 reads it alone (BPF_F_CPU); from older kernels all of them are read.

        Raises:
            IndexError: there is no such CPU.
        """
        self._check_cpu(cpu)
        one = self.values_face.one
        try:
            data = self._calls.lookup(self._raw_key(key), BPF_F_CPU | cpu << 32)
        except BPFError as error:
            if error.errno not in UNSUPPORTED:
                raise
            found = self.get(key)
            return default if found is None else found[cpu]
        return default if data is None else one.decode(data[: one.size])

    def put_cpu(self, key: Any, cpu: int, value: Any, flags: int = BPF_ANY) -> None:
        """Write one CPU's value of an element, and leave the others as they are (Linux 7.0, BPF_F_CPU).

        A new element has zeros for the other CPUs.

        Raises:
            IndexError: there is no such CPU.
            NotSupportedError: the kernel can only write the values of all CPUs at once.
        """
        self._check_cpu(cpu)
        self._put_one(key, value, flags | BPF_F_CPU | cpu << 32)

    def put_all(self, key: Any, value: Any, flags: int = BPF_ANY) -> None:
        """Write one value for all CPUs: Linux 7.0 takes it once (BPF_F_ALL_CPUS), older ones once for each CPU."""
        try:
            self._put_one(key, value, flags | BPF_F_ALL_CPUS)
        except NotSupportedError:
            self.put(key, [value] * self.values_face.cpus, flags)

    def _put_one(self, key: Any, value: Any, flags: int) -> None:
        face = self.values_face
        data = face.one.encode(value).ljust(face.size, b"\0")
        try:
            self._calls.update(self._raw_key(key), data, flags)
        except BPFError as error:
            if error.errno not in UNSUPPORTED:
                if error.errno == errno.ENOENT:
                    raise self._missing(key) from error
                raise
            hint = "One CPU's value can be written alone since Linux 7.0"
            raise NotSupportedError(error.errno, error.command, self._where("value"), hint) from None

    def _check_cpu(self, cpu: int) -> None:
        to_integer(cpu, self._where("value"), "a CPU")
        if not 0 <= cpu < self.values_face.cpus:
            raise IndexError(f"{self._where('value')}: there is no CPU {cpu}, only 0..{self.values_face.cpus - 1}")
