"""Test results as JUnit XML, the form pytest writes: completing them with what the guest told, and reading them."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from kernel_matrix.errors import MatrixError

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

#: The test that the matrix adds to each kernel's: that the guest ended well and its kernel had nothing to complain of.
GUEST_TEST = "the guest ends and its kernel logs no warning"


@dataclass(frozen=True)
class Outcome:
    """How one test went on one kernel."""

    result: str  # PASSED, FAILED or SKIPPED
    reason: str = ""


@dataclass
class KernelResults:
    """The results of one kernel."""

    kernel: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # by test: module::class::name[parameters]
    skipped_modules: dict[str, str] = field(default_factory=dict)  # module -> why it was skipped as a whole
    properties: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # of the tests themselves


def complete(junit: bytes | None, properties: dict[str, str], failure: str) -> bytes:
    """A guest's JUnit XML with properties of the run, and with one more test that fails when `failure` says why."""
    suites = ElementTree.Element("testsuites")
    if junit is not None:
        try:
            suites = ElementTree.fromstring(junit)
        except ElementTree.ParseError as error:
            failure = f"{failure}\nthe guest's results are no XML: {error}".strip()
    failure = _printable(failure)
    suite = suites.find("testsuite")
    if suite is None:
        suite = ElementTree.SubElement(suites, "testsuite", name="pytest", tests="0", failures="0")
    table = suite.find("properties")
    if table is None:
        table = ElementTree.Element("properties")
        suite.insert(0, table)
    for name, value in properties.items():
        ElementTree.SubElement(table, "property", name=name, value=value)
    case = ElementTree.SubElement(suite, "testcase", classname="guest", name=GUEST_TEST, time="0")
    suite.set("tests", str(int(suite.get("tests", "0")) + 1))
    if failure:
        ElementTree.SubElement(case, "failure", message=failure.splitlines()[0]).text = failure
        suite.set("failures", str(int(suite.get("failures", "0")) + 1))
    return b"<?xml version='1.0' encoding='utf-8'?>\n" + ElementTree.tostring(suites, encoding="unicode").encode()


def amended(earlier: bytes, later: bytes) -> bytes:
    """The later results, and the earlier ones of tests that the later run did not have. Commits and times add up.

    A test counts without its parameters: those that it had earlier and has no more are gone.

    What the earlier guest's kernel complained of stays until a run without earlier results.
    """
    before, after = (ElementTree.fromstring(junit).find("testsuite") for junit in (earlier, later))
    if before is None or after is None:
        return later
    if any(_test(case) == f"guest::{GUEST_TEST}" and len(case) for case in before.iterfind("testcase")):
        after.remove(next(case for case in after.iterfind("testcase") if _test(case) == f"guest::{GUEST_TEST}"))
    fresh = {function_of(_test(case)) for case in after.iterfind("testcase")}
    after.extend([case for case in before.iterfind("testcase") if function_of(_test(case)) not in fresh])
    after.set("tests", str(len(after.findall("testcase"))))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        after.set(name, str(len(after.findall(f"testcase/{tag}"))))
    after.set("time", str(sum(float(suite.get("time", "0")) for suite in (before, after))))
    old = {row.get("name"): row.get("value", "") for row in before.iterfind("properties/property")}
    for row in after.iterfind("properties/property"):
        name, value = row.get("name"), row.get("value", "")
        if name == "commit" and old.get(name, value) != value:
            row.set("value", f"{old[name]}, {value}")
        elif name == "seconds" and name in old:
            row.set("value", f"{float(old[name]) + float(value):.1f}")
    suites = ElementTree.Element("testsuites")
    suites.append(after)
    return b"<?xml version='1.0' encoding='utf-8'?>\n" + ElementTree.tostring(suites, encoding="unicode").encode()


def function_of(test: str) -> str:
    """The name of a test without its parameters."""
    return re.sub(r"\[.*\]$", "", test, flags=re.DOTALL)


def _printable(text: str) -> str:
    """The text without the control characters that XML cannot hold."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def read(path: Path) -> KernelResults:
    """Read one kernel's JUnit XML; the kernel is named by the file."""
    try:
        tree = ElementTree.parse(path)
    except (OSError, ElementTree.ParseError) as error:
        raise MatrixError(f"{path}: {error}") from None
    results = KernelResults(path.stem)
    for suite in tree.iter("testsuite"):
        results.seconds += float(suite.get("time", "0"))
        for row in suite.iterfind("properties/property"):
            results.properties[row.get("name", "")] = row.get("value", "")
        for case in suite.iterfind("testcase"):
            _read_case(case, results)
    return results


def _test(case: ElementTree.Element) -> str:
    """module::class::name[parameters]; the module's name alone for a module that was skipped while collecting it."""
    module, name = case.get("classname", ""), case.get("name", "")
    return f"{module}::{name}" if module else name


def _read_case(case: ElementTree.Element, results: KernelResults) -> None:
    """Enter one test. A test that passed and whose teardown failed is listed twice: the failure counts."""
    test = _test(case)
    skipped = case.find("skipped")
    broken = case.find("failure")
    if broken is None:
        broken = case.find("error")
    if broken is not None:
        outcome = Outcome(FAILED, _line(broken.get("message") or broken.text or ""))
    elif skipped is not None:
        if not case.get("classname"):  # pytest skips a whole module while collecting it
            results.skipped_modules[test] = _collection_reason(skipped)
            return
        outcome = Outcome(SKIPPED, _line(skipped.get("message") or ""))
    else:
        outcome = Outcome(PASSED)
    earlier = results.outcomes.get(test)
    if earlier is None or earlier.result != FAILED:
        results.outcomes[test] = outcome


def _collection_reason(skipped: ElementTree.Element) -> str:
    """Why a module was skipped: pytest writes the tuple (file, line, "Skipped: why") as the text."""
    try:
        _, _, why = ast.literal_eval(skipped.text or "")
        return _line(str(why).removeprefix("Skipped: "))
    except (ValueError, SyntaxError):
        return _line(skipped.text or skipped.get("message") or "")


def _line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
