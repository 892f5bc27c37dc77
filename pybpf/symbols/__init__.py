"""Symbols: where a name is, in the running kernel or in an ELF file.

* `kallsyms`: the kernel's own symbol table, and what its names tell.
* `binary`: the file that a program or library name means.
* `elf`: the file offset of a function, which is what a uprobe needs.
* `usdt`: the probes that a program's authors have put into it.
* `process`: the files that a process has mapped.
"""

from __future__ import annotations

from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.symbols.binary import find_binary
    from pybpf.symbols.elf import function_offset, function_offsets, match_functions
    from pybpf.symbols.kallsyms import has_syscall_wrapper, kernel_addresses, syscall_function
    from pybpf.symbols.usdt import UsdtProbe, usdt_probes

_HOMES = {
    "UsdtProbe": "usdt",
    "find_binary": "binary",
    "function_offset": "elf",
    "function_offsets": "elf",
    "has_syscall_wrapper": "kallsyms",
    "kernel_addresses": "kallsyms",
    "match_functions": "elf",
    "syscall_function": "kallsyms",
    "usdt_probes": "usdt",
}

__all__ = [
    "UsdtProbe",
    "find_binary",
    "function_offset",
    "function_offsets",
    "has_syscall_wrapper",
    "kernel_addresses",
    "match_functions",
    "syscall_function",
    "usdt_probes",
]

if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOMES)
