"""Chapter 6: what the verifier rejects, why, and at which line of C; and the program beside it that it takes."""

from learn import kernel

import pybpf

for path in (kernel("ch06_verifier"), kernel("ch06_no_license")):
    for name in pybpf.ObjectSpec.from_file(path).programs:
        spec = pybpf.ObjectSpec.from_file(path)
        spec.only(name)
        try:
            spec.load().close()
        except pybpf.VerifierError as error:
            print(f"{name}: rejected: {error.reason}\n    {error.location}: {error.source.strip()}", flush=True)
        else:
            print(f"{name}: loaded", flush=True)
