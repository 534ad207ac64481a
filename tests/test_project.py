"""The project's own papers: dependencies, pins, what is committed, and the summary that CI reads."""

import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import tomllib

import pytest
import run
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import labkit
from labkit import paths
from labkit.workbench import doctor

ROOT = paths.root()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text)
    for text in [*PYPROJECT["project"]["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]
    if not text.startswith("labkit[")
]
# the package, and the word by which it is used
NAMED = {
    "jupyterlab": r"jupyterlab",
    "torch": r"import torch",
    "ipywidgets": r"import ipywidgets",
    "matplotlib": r"import matplotlib",
    "plotly": r"import plotly",
    "gymnasium": r"import gymnasium",
    "mujoco": r"InvertedPendulum|import mujoco",
    "nbval": r"--nbval-lax",
    "papermill": r"import papermill",
    "jupytext": r"import jupytext",
}


def test_the_licence_is_the_standard_text_with_our_name_in_its_appendix():
    text = (ROOT / "LICENSE").read_text()
    ours = "Copyright 2026 the labkit authors"
    assert text.count(ours) == 1
    standard = text.replace(ours, "Copyright [yyyy] [name of copyright owner]").encode()
    assert hashlib.sha256(standard).hexdigest() == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert PYPROJECT["project"]["license-files"] == ["LICENSE"]


def test_the_citation_is_of_this_version():
    """And has what CFF 1.2.0 requires, and no more than is true."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() == {"cff-version", "type", "title", "message", "version", "license", "authors"}
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == PYPROJECT["project"]["version"] == labkit.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["authors"] == PYPROJECT["project"]["authors"] == [{"name": "the labkit authors"}]


def committed() -> list[str]:
    call = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
    )
    if call.returncode:
        pytest.skip("not a git checkout, so there is no list of committed files")
    return call.stdout.splitlines()


def test_conda_users_get_what_pip_users_get():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "labkit"
    python, pip, from_pip = environment["dependencies"]
    assert pip == "pip"
    name, equals, minor = python.partition("=")  # repo2docker reads `>=3.11` as no version, and takes 3.10
    assert (name, equals) == ("python", "=")
    assert re.fullmatch(r"3\.\d+", minor)
    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(f"{minor}.99")
    assert from_pip == {"pip": ["-c constraints.txt", "-e .[all]"]}


def test_the_container_sets_itself_up_as_a_newcomer_does():
    """JSON without comments, a Python that we admit, a target that the Makefile has, an interpreter that it makes."""
    folder = ROOT / ".devcontainer"
    container = json.loads((folder / "devcontainer.json").read_text())
    image = re.search(
        r"^FROM python:(3\.\d+)-slim$", (folder / container["build"]["dockerfile"]).read_text(), re.MULTILINE
    )
    assert image
    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(f"{image[1]}.99")
    makefile = (ROOT / "Makefile").read_text()
    program, target = container["postCreateCommand"].split()
    assert program == "make"
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    interpreter = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter == f"{re.search(r'^BIN := (.+)$', makefile, re.MULTILINE)[1]}/python"  # type: ignore[index]


def test_every_requirement_is_pinned_and_admits_its_pin():
    for requirement in REQUIREMENTS:
        if requirement.name == "triton":
            continue  # comes with torch; see the next test
        pin = PINS.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement} does not admit {pin}"


def test_every_pin_admits_the_oldest_python():
    """Debian 12 has 3.11.2: a package that wants 3.11.5 cannot be installed there."""
    oldest = PYPROJECT["project"]["requires-python"].removeprefix(">=") + ".0"
    installed = {canonicalize_name(package.name): package.metadata for package in importlib.metadata.distributions()}
    wanted = {
        f"{name}=={metadata['Version']}": metadata["Requires-Python"]
        for name, metadata in installed.items()
        if name in PINS and PINS[name] == metadata["Version"].partition("+")[0]
    }
    assert not {name: python for name, python in wanted.items() if python and not SpecifierSet(python).contains(oldest)}
    if {"torch", "numpy"} - {name.partition("==")[0] for name in wanted}:
        pytest.skip("other releases than the pinned ones are installed here, as `make test-latest` does")


def test_pins_do_not_keep_the_ordinary_torch_away():
    """A list made on a machine without a GPU pins packages that the GPU build of torch wants otherwise."""
    assert not [name for name in PINS if name == "triton" or name.startswith(("nvidia", "cuda"))]
    assert "+" not in PINS["torch"]
    assert "pip" in PINS


def test_the_extra_all_is_all_of_the_extras():
    (requirement,) = EXTRAS["all"]
    assert Requirement(requirement).extras == EXTRAS.keys() - {"all"}


def test_the_named_packages_are_direct_dependencies_and_used():
    names = {canonicalize_name(Requirement(text).name) for text in PYPROJECT["project"]["dependencies"]}
    files = [*(ROOT / "labkit").rglob("*.py"), *(ROOT / "notebooks").glob("*.py"), ROOT / "tests" / "run.py"]
    everything = "\n".join(path.read_text() for path in files)
    assert set(doctor.PACKAGES) == NAMED.keys()
    for name, use in NAMED.items():
        assert name in names
        assert re.search(use, everything), f"{name} is a dependency and nothing uses it"


def test_no_file_names_an_index_or_a_place_on_this_machine():
    me = "tests/test_project.py"
    bad = re.compile(
        rf"--index-url|--extra-index-url|--find-links|file:///|{re.escape(str(ROOT))}|/home/\w+/|/Users/\w+/"
    )
    for name in committed():
        path = ROOT / name
        if name == me or not path.is_file() or path.suffix in (".png", ".jpg", ".gz", ".npz", ".safetensors"):
            continue
        match = bad.search(path.read_text(errors="replace"))
        assert not match, f"{name} holds {match.group() if match else ''}"


def test_nothing_large_is_committed():
    large = [name for name in committed() if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 1_000_000]
    assert large == []


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("12 passed in 3.40s", {"passed": 12}),
        (
            "= 1 failed, 12 passed, 2 skipped, 3 errors in 61.2s =",
            {"failed": 1, "passed": 12, "skipped": 2, "error": 3},
        ),
        ("1 error in 0.1s", {"error": 1}),
        ("no tests ran in 0.01s", {}),
    ],
)
def test_the_runner_reads_what_pytest_counts(line, counts):
    assert run.read_counts(line) == counts


def test_the_runner_adds_up_tests_and_gates():
    outcomes = [
        run.Outcome("ruff", True, 1.0),
        run.Outcome("mypy", False, 1.0),
        run.Outcome("pytest", False, 1.0, {"passed": 10, "failed": 2, "error": 1, "skipped": 4}),
        run.Outcome("nbval", True, 1.0, {"passed": 5}),
    ]
    *table, last = run.summary(outcomes).splitlines()
    assert last == "16 passed, 4 failed"
    assert ["FAILED" in line for line in table] == [False, True, True, False]


def test_the_runner_goes_on_after_a_failure_and_says_so(monkeypatch, capsys):
    python = run.sys.executable
    monkeypatch.setattr(
        run, "gates", lambda: {"bad": [python, "-c", "exit('no')"], "good": [python, "-c", "print('yes')"]}
    )
    assert run.main([]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 1 failed"
    assert run.main(["good"]) == 0
    assert run.main(["ugly"]) == 2
    assert "there are bad, good" in capsys.readouterr().err


def test_every_gate_is_a_program_that_is_installed():
    for gate, command in run.gates().items():
        assert run.Path(command[0]).exists(), gate
        if command[1:2] == ["-m"]:
            assert shutil.which(command[2], path=str(run.BIN)) or command[2] == "pytest", gate


def test_quick_tests_are_part_of_all_tests():
    commands = run.gates()
    assert set(run.CHECK) <= commands.keys()
    assert commands["quick tests"][:-1] == commands["pytest"][:-1]
    assert commands["quick tests"][-1].startswith("not slow")


@pytest.mark.parametrize(("name", "given"), [("OMP_NUM_THREADS", "2"), ("ATEN_CPU_CAPABILITY", "default")])
def test_variations_of_the_caller_reach_the_tests(monkeypatch, capsys, name, given):
    """`OMP_NUM_THREADS=2 make test` means it."""
    monkeypatch.setenv(name, given)
    run.run("a gate", [run.sys.executable, "-c", f"import os; print(os.environ['{name}'])"])
    assert capsys.readouterr().out.splitlines()[-1] == given


BREACHES = {
    "papers/new/method/__init__.py": "import labkit.workbench",
    "papers/new/experiment/__init__.py": "import labkit.papers.new.teaching",
    "papers/new/__init__.py": "import labkit.papers.qnet",
    "workbench/new.py": "import labkit.papers",
    "vision/new.py": "import labkit.viz",
}


def test_the_contracts_hold_for_a_new_room_without_its_name(tmp_path):
    """A copy of the package with a breach of each contract in it: each is named; pyproject names no room."""
    shutil.copytree(ROOT / "labkit", tmp_path / "labkit", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "labkit/papers/new/teaching").mkdir(parents=True)
    (tmp_path / "labkit/papers/new/teaching/__init__.py").touch()
    for name, line in BREACHES.items():
        (tmp_path / "labkit" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "labkit" / name).write_text(f"{line}\n")
    program = [str(run.BIN / "lint-imports"), "--no-cache"]
    call = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert call.returncode == 1, call.stderr
    for name, line in BREACHES.items():
        importer = f"labkit.{name.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}"
        assert re.search(rf"{importer} ?-> ?{line.split()[1]}\b", call.stdout), f"{importer} slipped through"
    rooms = [path.parent.name for path in (ROOT / "labkit" / "papers").glob("*/__init__.py")]
    assert not [room for room in rooms if f"papers.{room}" in (ROOT / "pyproject.toml").read_text()]


@pytest.mark.slow
def test_the_readme_s_tables_are_those_that_its_command_writes(tmp_path, monkeypatch):
    """Catches: a table that promises what the records do not say, a command that is gone, a picture of yesterday.

    `labkit readme` mends it.
    """
    from labkit.cli import main

    for name in ("README.md", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.setenv("LABKIT_RECORDS", str(ROOT / "data" / "records"))
    with pytest.raises(SystemExit, match="0"):
        main(["readme"])
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()
    pictures = [
        {path.name: path.read_bytes() for path in (root / "docs" / "gallery").iterdir()} for root in (tmp_path, ROOT)
    ]
    assert pictures[0] == pictures[1]
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(SystemExit, match="2"):
        main(["readme"])
