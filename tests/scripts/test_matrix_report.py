"""The kernel matrix: results as JUnit XML, and the table that joins them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from kernel_matrix import report, results
from kernel_matrix.errors import MatrixError
from kernel_matrix.main import main
from kernel_matrix.results import FAILED, GUEST_TEST, PASSED, SKIPPED, KernelResults, Outcome

pytest_plugins = ["pytester"]

TESTS = """
import pytest

def test_passes(): pass

@pytest.mark.parametrize("n", [1, 2, 3])
def test_parameters(n):
    if n == 3:
        pytest.skip("no three here")

def test_fails():
    assert 1 == 2, "one is not two"

@pytest.fixture
def leaky():
    yield
    raise RuntimeError("left open")

def test_teardown(leaky): pass
"""

SKIPPED_MODULE = """
import pytest
pytest.skip("no kprobes", allow_module_level=True)
def test_within(): pass
"""


@pytest.fixture
def junit(pytester: pytest.Pytester) -> bytes:
    """What pytest really writes."""
    pytester.makepyfile(test_one=TESTS, test_two=SKIPPED_MODULE)
    pytester.runpytest_subprocess("--junitxml=out.xml", "-p", "no:cacheprovider")
    return (pytester.path / "out.xml").read_bytes()


def test_read_what_pytest_writes(junit: bytes, tmp_path: Path) -> None:
    results.write(tmp_path / "6.12.xml", junit)
    read = results.read(tmp_path / "6.12.xml")
    assert read.kernel == "6.12"
    assert {test: outcome.result for test, outcome in read.outcomes.items()} == {
        "test_one::test_passes": PASSED,
        "test_one::test_parameters[1]": PASSED,
        "test_one::test_parameters[2]": PASSED,
        "test_one::test_parameters[3]": SKIPPED,
        "test_one::test_fails": FAILED,
        "test_one::test_teardown": FAILED,
    }
    assert read.outcomes["test_one::test_parameters[3]"].reason == "no three here"
    assert "one is not two" in read.outcomes["test_one::test_fails"].reason
    assert "left open" in read.outcomes["test_one::test_teardown"].reason
    assert read.skipped_modules == {"test_two": "no kprobes"}
    assert read.seconds > 0


def test_complete_adds_the_guests_own_test(junit: bytes, tmp_path: Path) -> None:
    for name, failure in (("good", ""), ("bad", "the kernel complained:\n\x1b[1mWARNING: x")):
        results.write(
            tmp_path / f"{name}.xml", results.complete(junit, {"release": "6.12.1", "seconds": "9.5"}, failure)
        )
    good, bad = (results.read(tmp_path / f"{name}.xml") for name in ("good", "bad"))
    assert good.outcomes[f"guest::{GUEST_TEST}"] == Outcome(PASSED)
    assert bad.outcomes[f"guest::{GUEST_TEST}"] == Outcome(FAILED, "the kernel complained:")
    assert good.properties == {"release": "6.12.1", "seconds": "9.5"}
    assert len(good.outcomes) == 7
    (suite,) = ElementTree.parse(tmp_path / "bad.xml").iter("testsuite")
    (before,) = ElementTree.fromstring(junit).iter("testsuite")
    for count in ("tests", "failures"):
        assert int(suite.get(count, "")) == int(before.get(count, "")) + 1
    assert len(suite.findall("properties")) == 1


def test_complete_without_results(tmp_path: Path) -> None:
    results.write(tmp_path / "5.10.xml", results.complete(None, {}, "the guest hung"))
    assert results.read(tmp_path / "5.10.xml").outcomes == {f"guest::{GUEST_TEST}": Outcome(FAILED, "the guest hung")}


def test_complete_results_that_were_cut_off(tmp_path: Path) -> None:
    results.write(tmp_path / "5.10.xml", results.complete(b"<testsuites><testsuite", {}, ""))
    (outcome,) = results.read(tmp_path / "5.10.xml").outcomes.values()
    assert outcome.result == FAILED
    assert outcome.reason.startswith("the guest's results are no XML")


def test_results_that_are_no_xml(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text("<testsuites>")
    with pytest.raises(MatrixError, match=r"x\.xml"):
        results.read(tmp_path / "x.xml")


def kernel(name: str, modules: dict[str, str] | None = None, **outcomes: Outcome) -> KernelResults:
    return KernelResults(name, {f"m::{test}": outcome for test, outcome in outcomes.items()}, modules or {})


GOOD, BAD, NO_KPROBES = Outcome(PASSED), Outcome(FAILED, "boom"), Outcome(SKIPPED, "no kprobes")


def test_columns_are_in_the_order_of_the_kernels() -> None:
    table = report.join([kernel(name, a=GOOD) for name in ("newest", "6.12-s390x", "5.10", "host", "6.1")])
    assert [column.kernel for column in table.kernels] == ["host", "5.10", "6.1", "newest", "6.12-s390x"]


def test_a_test_skipped_on_one_kernel_is_good() -> None:
    table = report.join([kernel("host", a=NO_KPROBES), kernel("6.12", a=GOOD)])
    assert table.is_good
    assert "every test ran on some kernel" in report.text(table)


def test_a_test_skipped_wherever_it_was_met_is_bad() -> None:
    table = report.join([kernel("host", a=NO_KPROBES, b=GOOD), kernel("6.12", a=NO_KPROBES), kernel("6.1", b=GOOD)])
    assert table.skipped_everywhere == ["m::a"]
    assert not table.is_good
    assert "ran on no kernel: m::a" in report.text(table)


def test_a_failure_is_bad() -> None:
    table = report.join([kernel("5.10", a=BAD), kernel("6.12", a=GOOD)])
    assert table.failed == [("m::a", "5.10", "boom")]
    assert not table.is_good
    assert "failed on 5.10: m::a: boom" in report.text(table)


def test_a_module_skipped_as_a_whole_counts_for_each_of_its_tests() -> None:
    within_class = KernelResults("6.12", {"m.TestA::a": GOOD, "m::b": GOOD, "m2::c": GOOD})
    table = report.join([kernel("5.10", {"m": "no bpf links"}), within_class])
    assert table.rows["m.TestA::a"]["5.10"] == table.rows["m::b"]["5.10"] == Outcome(SKIPPED, "no bpf links")
    assert "5.10" not in table.rows["m2::c"]
    assert table.is_good


def test_a_module_skipped_on_every_kernel_is_bad() -> None:
    table = report.join([kernel(name, {"m": "no kprobes"}) for name in ("5.10", "6.12")])
    assert table.skipped_everywhere == ["m"]


def test_cells() -> None:
    notes = report.Footnotes()
    assert report.cell(None, notes) == "absent"
    assert report.cell([GOOD], notes) == "pass"
    assert report.cell([NO_KPROBES], notes) == "skip [1]"
    assert report.cell([GOOD, GOOD], notes) == "2 pass"
    assert report.cell([GOOD, NO_KPROBES, BAD, GOOD], notes) == "1 FAIL, 2 pass, 1 skip [1] [2]"
    assert notes.lines() == ["[1] no kprobes", "[2] boom"]


def test_markdown() -> None:
    column = KernelResults("6.12", {"t.m::a[x|y]": GOOD, "t.m::a[z]": NO_KPROBES, "t.m.TestB::b": GOOD})
    column.properties.update(release="6.12.1", commit="abc123", seconds="12.3")
    page = report.markdown(report.join([column]), "2026-11-23")
    assert "Made on 2026-11-23" in page
    assert "commit abc123." in page
    assert "| 6.12 | 6.12.1 | 2 | 0 | 1 | 0 s | 12 s |" in page
    assert "| `t/m.py` | 2 pass, 1 skip |" in page
    assert "* `t/m.py`\n  * 6.12: `a`: no kprobes\n" in page
    assert "ran on no kernel: t.m::a" in page


def test_markdown_joins_what_was_skipped_for_one_reason() -> None:
    many = {f"t.m::{name}": NO_KPROBES for name in "abcdef"}
    columns = [KernelResults(name, dict(many)) for name in ("5.10", "6.12")]
    columns.append(KernelResults("6.1", {**dict.fromkeys(many, GOOD), "t.n::a": GOOD}))
    page = report.markdown(report.join(columns), "2026-11-23")
    assert "  * 5.10, 6.12: `a`, `b`, `c`, `d` and 2 more: no kprobes\n" in page
    assert "| `t/n.py` |  | pass |  |" in page


def test_amended_results(junit: bytes) -> None:
    """Tests of the later run replace those of the earlier one; the others stay."""
    earlier = results.complete(junit, {"commit": "abc", "seconds": "10.0"}, "")
    case = '<testcase classname="test_one" name="test_fails" time="0.5"/>'
    later = f'<testsuites><testsuite tests="1" time="0.5">{case}</testsuite></testsuites>'.encode()
    later = results.complete(later, {"commit": "def", "seconds": "2.5"}, "")
    joined = read_back(results.amended(earlier, later))
    assert joined.outcomes["test_one::test_fails"] == Outcome(PASSED)
    assert {name: outcome for name, outcome in joined.outcomes.items() if "fails" not in name} == {
        name: outcome for name, outcome in read_back(earlier).outcomes.items() if "fails" not in name
    }
    assert joined.skipped_modules == {"test_two": "no kprobes"}
    assert joined.properties == {"commit": "abc, def", "seconds": "12.5"}
    assert joined.seconds == pytest.approx(read_back(earlier).seconds + 0.5)


def test_parameters_that_a_test_has_no_more_are_gone() -> None:
    def run(*names: str) -> bytes:
        cases = "".join(f'<testcase classname="t" name="{name}" time="1"/>' for name in names)
        return results.complete(f"<testsuites><testsuite>{cases}</testsuite></testsuites>".encode(), {}, "")

    joined = read_back(results.amended(run("a[1]", "a[2]", "b[1]", "ab[1]"), run("a[2]", "a[[3]]")))
    names = {name for name in joined.outcomes if not name.startswith("guest::")}
    assert names == {"t::a[2]", "t::a[[3]]", "t::b[1]", "t::ab[1]"}


def test_a_complaint_of_the_kernel_outlasts_an_amendment(junit: bytes) -> None:
    earlier = results.complete(junit, {}, "the kernel complained")
    joined = read_back(results.amended(earlier, results.complete(junit, {}, "")))
    assert joined.outcomes[f"guest::{GUEST_TEST}"] == Outcome(FAILED, "the kernel complained")


def read_back(junit: bytes) -> KernelResults:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "6.12.xml")
        path.write_bytes(junit)
        return results.read(path)


@pytest.mark.parametrize(("outcome", "status"), [(GOOD, "0"), (BAD, "1"), (NO_KPROBES, "1")])
def test_report_command(outcome: Outcome, status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = ElementTree.Element("testsuite")
    case = ElementTree.SubElement(suite, "testcase", classname="m", name="a")
    if outcome.result != PASSED:
        ElementTree.SubElement(case, "failure" if outcome is BAD else "skipped", message=outcome.reason)
    (tmp_path / "5.10.xml").write_bytes(ElementTree.tostring(suite))
    page = tmp_path / "docs/kernels.md"
    assert main(["report", "--results", str(tmp_path), "--markdown", str(page)]) == int(status)
    assert "m::a" in capsys.readouterr().out
    assert "| `m` |" in page.read_text()


def test_results_without_tests_are_bad() -> None:
    table = report.join([kernel("5.10")])
    assert not table.is_good
    assert "No test was met." in report.text(table)


def test_a_brief_report_shows_no_test_that_is_good() -> None:
    table = report.join([kernel("5.10", a=GOOD, b=BAD), kernel("6.12", a=GOOD, b=GOOD)])
    text = report.text(table, brief=True)
    assert "m::a" not in text
    assert "failed on 5.10: m::b: boom" in text


def test_report_without_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--results", str(tmp_path)]) == 2
    assert "run the suite first" in capsys.readouterr().err
