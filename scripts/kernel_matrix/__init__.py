"""The kernel matrix: run the test suite, or any command, inside stock Debian kernels under QEMU.

`scripts/matrix` is its command line; docs/kernel-matrix.md tells how to use it. A guest is one initramfs made of
concatenated cpio archives: a Debian root with Python, the kernel's modules, and the job (a copy of the checkout and
the command). It has no disk, no network and shares no folder with the host.
"""
