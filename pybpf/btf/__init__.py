"""Type information: BTF and .BTF.ext, read, written, relocated and used to decode values.

Rules of this floor:

* Pure: bytes in, values out. Only `kernel` and `index` touch files; nothing here makes a system call of its own.
* Lazy: a type is decoded when somebody asks for it.
* Whatever is wrong with the input is a `pybpf.errors.BTFError`.

Import the modules you need: `pybpf.btf.reader`, `kinds`, `writer`, `ext`, `kernel`, `relocation`, `codec`.
"""
