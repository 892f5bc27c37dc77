"""The security example: what one user may not open."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pybpf import probe
from pybpf.probe.doctor import check_lsm

pytestmark = pytest.mark.kernel

UID = 54321


def read_as_user(path: Path) -> subprocess.CompletedProcess[str]:
    command = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "cat", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_lsm_tells_and_denies(example, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    if not probe.has_link_type("tracing"):
        pytest.skip(f"LSM programs run on trampolines: {probe.has_link_type('tracing').evidence}")
    if check_lsm().level == "limit":
        pytest.skip(check_lsm().what)
    if not probe.has_helper("lsm", "d_path"):
        pytest.skip(f"LSM programs learn paths since Linux 5.12: {probe.has_helper('lsm', 'd_path').evidence}")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    folder = Path("/tmp")
    secret, harmless = folder / f"pybpf_secret_{tmp_path.name}", folder / f"pybpf_harmless_{tmp_path.name}"
    for path in (secret, harmless):
        path.write_text(f"this is {path.name}")
        path.chmod(0o644)
    try:
        assert read_as_user(secret).stdout == secret.read_text()
        running = example("ch09_lsm", str(UID), str(secret))
        refused = read_as_user(secret)
        assert refused.returncode != 0 and "Operation not permitted" in refused.stderr
        assert read_as_user(harmless).stdout == harmless.read_text()
        assert secret.read_text().endswith(secret.name)  # others may
        line = running.wait_for(lambda line: str(secret) in line)
        assert line.startswith("cat (") and line.endswith(f"): {secret} denied")
        assert running.wait_for(lambda line: str(harmless) in line).endswith(f"): {harmless}")
        running.end()
        assert read_as_user(secret).stdout == secret.read_text()
    finally:
        secret.unlink()
        harmless.unlink()
