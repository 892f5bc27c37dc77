"""`pybpf doctor` and `pybpf features` as processes, in all the ways in which bpf(2) can be kept from working."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pybpf import probe
from pybpf.probe import system
from pybpf.probe.doctor import CHECKS, OF_THE_KERNEL
from pybpf.syscall import sysno

ROOT = Path(__file__).resolve().parent.parent.parent
UNDER_SECCOMP = [sys.executable, str(ROOT / "tests/probe/under_seccomp.py")]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]


def command(*arguments: str, before: list[str] | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    if before and shutil.which(before[0]) is None:
        pytest.skip(f"{before[0]} is not installed")
    line = [*(before or []), sys.executable, "-W", "error", "-m", "pybpf", *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False, **options)  # type: ignore[call-overload,no-any-return]


def doctor(*checks: str, before: list[str] | None = None) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit status, and the findings by name."""
    done = command("doctor", "--json", *checks, before=before)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    findings = {row["name"]: row for row in found["findings"]}
    assert found["kernel"] == os.uname().release
    assert found["ok"] == (done.returncode == 0)
    assert found["ok"] == all(row["level"] in ("ok", "note") for row in findings.values())
    for row in findings.values():
        assert row["what"]
        assert row["change"] or row["level"] in ("ok", "note"), row
        assert row["evidence"], row
    return done.returncode, findings


def bad(findings: dict[str, dict[str, str]]) -> set[str]:
    return {name for name, row in findings.items() if row["level"] in ("limit", "problem")}


def test_as_root_only_what_the_kernel_lacks_is_left() -> None:
    code, findings = doctor()
    assert list(findings) == list(CHECKS)
    lacking = set()
    if not probe.has_feature("kprobes"):
        lacking.add("kprobes")
    if not probe.has_link_type("tracing"):
        lacking.add("trampolines")
    if not probe.has_feature("jit"):
        lacking.add("jit")
    modules = system.read("/sys/kernel/security/lsm")
    if modules and "bpf" not in modules.split(","):
        lacking.add("lsm")
    assert bad(findings) == lacking
    assert lacking <= OF_THE_KERNEL
    assert code == (6 if lacking else 0)


def test_the_text_says_what_and_why_and_what_to_change() -> None:
    done = command("doctor")
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok       syscall         bpf(2) reaches the kernel") for line in lines)
    if done.returncode == 0:
        assert lines[-1] == "All is well."
    else:
        assert lines[-1].endswith("limits.") or lines[-1].endswith("limit.")
        at = next(index for index, line in enumerate(lines) if line.startswith("limit"))
        assert lines[at + 1].strip().startswith("seen: ")
        assert lines[at + 2].strip().startswith("change: ")
    assert "seen: bpf(2) with too large an attr: E2BIG" in command("doctor", "--verbose", "syscall").stdout


def test_checks_can_be_chosen() -> None:
    code, findings = doctor("btf", "capabilities", "syscall")
    assert (code, list(findings)) == (0, ["syscall", "capabilities", "btf"])
    done = command("doctor", "horoscope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no check is called 'horoscope': there are syscall, seccomp" in done.stderr


def test_as_nobody() -> None:
    code, findings = doctor(before=NOBODY)
    assert code == 4
    assert {"capabilities", "load"} <= bad(findings)
    assert findings["capabilities"]["level"] == "problem"
    assert "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN" in findings["capabilities"]["what"]
    assert "run it as root" in findings["capabilities"]["change"]
    assert findings["syscall"]["level"] == "ok" or findings["unprivileged"]["level"] == "problem"
    assert findings["symbols"]["level"] == "limit" and findings["perf_events"]["level"] in ("ok", "limit")
    assert findings["memlock"]["level"] != "problem"
    if findings["unprivileged"]["level"] == "problem":
        assert "kernel.unprivileged_bpf_disabled = " in findings["unprivileged"]["evidence"]
        assert "trampolines" not in bad(findings)  # nothing is said about what could not be asked


def test_without_capabilities_in_the_bounding_set() -> None:
    code, findings = doctor(before=["setpriv", "--inh-caps=-all", "--bounding-set=-all"])
    assert code == 4
    assert "its bounding set does not allow" in findings["capabilities"]["what"]
    assert "--cap-add BPF" in findings["capabilities"]["change"]
    assert "CapBnd 0000000000000000" in findings["capabilities"]["evidence"]


def test_with_all_that_bpf_needs_and_nothing_else() -> None:
    """CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are enough to load and attach; names of symbols take CAP_SYSLOG."""
    caps = "-all,+cap_39,+cap_38,+cap_12"
    _, findings = doctor(before=["setpriv", f"--inh-caps={caps}", f"--bounding-set={caps}"])
    assert findings["capabilities"]["level"] == "ok"
    assert "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN" in findings["capabilities"]["what"]
    assert findings["load"]["level"] == findings["syscall"]["level"] == "ok"
    if int(system.sysctl("kernel.perf_event_paranoid")) > 2:  # Debian knows the value 3
        assert findings["perf_events"]["change"].startswith("sysctl kernel.perf_event_paranoid=2")
    else:
        assert findings["perf_events"]["level"] == "ok"


def test_without_perfmon_only() -> None:
    caps = "-all,+cap_39,+cap_12"
    code, findings = doctor(before=["setpriv", f"--inh-caps={caps}", f"--bounding-set={caps}"])
    assert code == 4
    assert findings["capabilities"]["level"] == "limit"
    assert findings["capabilities"]["what"].startswith("This process lacks CAP_PERFMON, which")
    assert findings["load"]["level"] == "ok"
    assert "trampolines" in bad(findings) and "CAP_PERFMON" in findings["trampolines"]["change"]


def test_in_a_user_namespace() -> None:
    before = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces cannot be made here")
    code, findings = doctor(before=before)
    assert code == 4
    assert findings["user_namespace"]["level"] == "problem"
    assert "token" in findings["user_namespace"]["change"]
    assert findings["capabilities"]["level"] == "ok"  # they are there, and do not count
    assert findings["load"]["level"] == "problem"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_under_a_filter_that_forbids_bpf(number: int) -> None:
    code, findings = doctor(before=[*UNDER_SECCOMP, str(sysno.BPF), str(number)])
    assert code == 4
    assert findings["syscall"]["level"] == "problem"
    assert "seccomp filter keeps bpf(2) from the kernel" in findings["syscall"]["what"]
    assert (
        errno.errorcode[number] in findings["syscall"]["evidence"] and "Seccomp: 2" in findings["syscall"]["evidence"]
    )
    assert "SystemCallFilter=bpf" in findings["syscall"]["change"]
    assert findings["seccomp"]["level"] == "note"
    assert findings["load"]["level"] == "problem" and "trampolines" not in bad(findings)
    assert findings["capabilities"]["level"] == "ok"


def test_under_a_filter_that_forbids_perf_events() -> None:
    code, findings = doctor(before=[*UNDER_SECCOMP, str(sysno.PERF_EVENT_OPEN), str(errno.EPERM)])
    assert code == 4
    assert findings["syscall"]["level"] == findings["load"]["level"] == "ok"
    assert findings["seccomp"]["level"] == findings["perf_events"]["level"] == "limit"
    assert "perf_event_open" in findings["perf_events"]["change"]


def test_a_filter_that_forbids_other_things_is_no_hindrance() -> None:
    nothing = 1_000_000
    _, findings = doctor("syscall", "seccomp", before=[*UNDER_SECCOMP, str(nothing), "1"])
    assert findings["syscall"]["level"] == "ok" and findings["seccomp"]["level"] == "note"


@pytest.mark.parametrize(
    ("kind", "place", "check"),
    [("bpf", "/sys/fs/bpf", "bpffs"), ("tracefs", "/sys/kernel/tracing", "tracefs"), ("cgroup2", "", "cgroup")],
)
def test_without_a_file_system(kind: str, place: str, check: str) -> None:
    unmount = 'for place in $1; do umount -l "$place" || exit 77; done; shift; exec "$@"'
    places = [found for found, _ in system.mounts(kind)] + (["/sys/kernel/debug"] if kind == "tracefs" else [])
    places = [found for found in places if os.path.ismount(found)]
    if not places:
        assert check in bad(doctor(check)[1])
        return
    before = ["unshare", "--mount", "sh", "-c", unmount, "sh", " ".join(reversed(places))]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the file system cannot be unmounted in a mount namespace of our own")
    code, findings = doctor(before=before)
    assert code == 4
    assert findings[check]["level"] == "limit"
    assert f"mount -t {kind}" in findings[check]["change"]
    assert bad(findings) - OF_THE_KERNEL == {check}


def test_features_as_text() -> None:
    done = command("features")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("features:\n  jit ")
    assert "\nmap_types:\n  hash " in done.stdout
    assert "helpers of" not in done.stdout
    done = command("probe", "map_types")
    assert done.stdout.splitlines()[:2] == ["map_types:", f"  {'hash':<32}yes"]
    assert "program_types" not in done.stdout


def test_features_as_json() -> None:
    done = command("features", "--json", "--helpers")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["map_types"]["hash"] == {"answer": "yes"}
    answers = {row["answer"] for name, rows in found.items() if name != "helpers" for row in rows.values()}
    assert answers <= {"yes", "no", "cannot tell"}
    assert all(row["evidence"] for row in found["program_types"].values() if row["answer"] != "yes")
    assert "redirect_map" in found["helpers"]["xdp"] and "probe_write_user" not in found["helpers"].get("kprobe", [])


def test_features_of_the_unprivileged() -> None:
    done = command("features", "map_types", "--json", before=NOBODY)
    assert done.returncode == 0
    if system.sysctl("kernel.unprivileged_bpf_disabled") != "0":
        row = json.loads(done.stdout)["map_types"]["ringbuf"]
        assert row["answer"] == "cannot tell" and "EPERM" in row["evidence"]


def test_a_section_that_is_not_there() -> None:
    done = command("features", "weather")
    assert done.returncode == 2
    assert "no section is called 'weather': there are features, program_types" in done.stderr
