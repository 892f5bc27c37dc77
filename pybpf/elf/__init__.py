"""BPF object files: from the bytes of a `.bpf.o` to the parts of an `ObjectSpec`. Pure: no kernel, no privileges.

`container` reads ELF itself, `collect` visits every section once, and one module per concern makes sense of what is
found. `linking` puts a program and the subprograms it calls into one piece of code, and `datasec` makes the object's
BTF fit for the kernel; both are used at load time.
"""
