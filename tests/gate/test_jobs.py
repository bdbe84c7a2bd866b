"""The ready-made job files: valid for their servers' schemas, and their commands run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from driving import ROOT, cli, refused  # isort: skip
from needs import needs_systemd  # isort: skip

JOBS = ROOT / "replay/gate/jobs"
SCHEMAS = {"github.yml": ["--builtin-schema", "vendor.github-workflows"],
           "gitlab.yml": ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with a gate.toml, a small trace and accepted figures."""
    assert cli("synth", "-o", tmp_path / "small.arrow", "--seconds", 1).code == 0
    (tmp_path / "gate.toml").write_text(
        '[[check]]\ntrace = "small.arrow"\nallocators = ["pool"]\n')
    assert cli("gate", "accept", "--config", tmp_path / "gate.toml").code == 0
    (tmp_path / "benchmarks").mkdir()
    assert run("replay warm loop:nop --export replay-code.zip", tmp_path).returncode == 0
    (tmp_path / "benchmarks/test_small.py").write_text(
        "def test_sum(benchmark):\n    benchmark.extra_info['size'] = '9 numbers'\n"
        "    benchmark(sum, range(9))\n")
    return tmp_path


def run(command: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """As the server would, with `replay` found where it is installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, text=True,
                          capture_output=True, check=False, env={**{k: v for k, v in os.environ.items()
                                  if not k.startswith("PYTEST_")}, "PATH": path, **env})


@pytest.mark.parametrize("name", SCHEMAS)
def test_files_fit_their_servers_schemas(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", "check_jsonschema", *SCHEMAS[name],
                           str(JOBS / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_github_job_runs(project: Path) -> None:
    data = YAML(typ="safe").load(JOBS / "github.yml")
    steps = [s for s in data["jobs"]["gate"]["steps"] if "run" in s and s["name"] != "Install"]
    assert [s["name"] for s in steps] == ["Compiled code", "Gate", "Summary"]
    assert "replay-code.zip" in [s["with"]["path"] for s in data["jobs"]["gate"]["steps"]
                                 if s.get("uses", "").startswith("actions/cache")]
    summary = project / "summary.md"
    for step in steps:
        done = run(step["run"], project, GITHUB_STEP_SUMMARY=str(summary))
        assert done.returncode == 0, done.stderr
    assert summary.read_text().startswith("**Gate passed")
    [upload] = [s["with"]["path"] for s in data["jobs"]["gate"]["steps"]
                if s.get("uses", "").startswith("actions/upload")]
    assert (project / upload / "gate.xml").is_file()


@pytest.mark.parametrize("code", ["none", "damaged"])
def test_without_code_that_fits_a_job_makes_it_anew(code: str, project: Path) -> None:
    """As the jobs do, of a part alone: to compile all takes minutes."""
    packed = project / "replay-code.zip"
    whole = packed.read_bytes()
    packed.unlink()
    if code == "damaged":
        packed.write_bytes(whole[:-9])
    [command] = {s["run"] for job in YAML(typ="safe").load(JOBS / "github.yml")["jobs"].values()
                 for s in job["steps"] if s.get("name") == "Compiled code"}
    done = run(command.replace("--export", "loop:nop --export"), project)
    assert done.returncode == 0
    assert done.stderr.startswith("replay: replay-code.zip: ")
    assert packed.read_bytes() == whole


def kept(project: Path) -> None:
    """The drift lane's history and outputs are there, and say that nothing can be said yet."""
    assert list((project / "reports/history").glob("day=*/part-*.parquet"))
    assert {p.name for p in (project / "reports/drift").iterdir()} == {
        f"drift.{form}" for form in ("html", "json", "md", "txt", "xml")}
    assert "1 of 1 series have fewer than 30 nights" in (
        project / "reports/drift/drift.md").read_text()


def test_the_github_drift_job_runs(project: Path) -> None:
    data = YAML(typ="safe").load(JOBS / "github.yml")
    steps = [s for s in data["jobs"]["drift"]["steps"] if "run" in s and s["name"] != "Install"]
    assert [s["name"] for s in steps] == ["Compiled code", "Bench", "History", "Drift", "Drift summary"]
    for step in steps:
        done = run(step["run"], project, GITHUB_STEP_SUMMARY=str(project / "summary.md"))
        assert done.returncode == 0, done.stdout + done.stderr
    assert (project / "summary.md").read_text().startswith("**Drift: no series of 1")
    kept(project)


def test_the_gitlab_drift_job_runs(project: Path) -> None:
    job = YAML(typ="safe").load(JOBS / "gitlab.yml")["replay-drift"]
    for command in [*job["before_script"][1:], *job["script"]]:
        done = run(command, project)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (project / job["artifacts"]["reports"]["junit"]).is_file()
    kept(project)


def test_the_systemd_drift_unit_runs(project: Path) -> None:
    lines = (JOBS / "replay-drift.service").read_text().splitlines()
    for start in [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]:
        done = run(start.replace("%h/replay/.venv/bin/", ""), project)
        assert done.returncode == 0, done.stdout + done.stderr
    kept(project)


def test_the_gitlab_job_runs(project: Path) -> None:
    job = YAML(typ="safe").load(JOBS / "gitlab.yml")["replay-gate"]
    assert job["cache"]["paths"] == ["replay-code.zip"]
    for command in [*job["before_script"][1:], *job["script"]]:
        assert run(command, project).returncode == 0
    assert (project / job["artifacts"]["reports"]["junit"]).is_file()


def test_the_systemd_unit_runs(project: Path) -> None:
    lines = (JOBS / "replay-gate.service").read_text().splitlines()
    [start] = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]
    done = run(start.replace("%h/replay/.venv/bin/replay", "replay"), project)
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stdout


@needs_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = tmp_path / "replay/.venv/bin/replay"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(sys.executable))
    (program.parent / "python").symlink_to(Path(sys.executable))
    units = sorted(path.name for path in JOBS.glob("replay-*"))
    for name in units:
        shutil.copy(JOBS / name, tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", *(str(tmp_path / name) for name in units)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "replay-" not in done.stderr


def test_files_are_printed_or_written(tmp_path: Path) -> None:
    assert cli("gate", "job", "github").out == (JOBS / "github.yml").read_text()
    assert cli("gate", "job", "systemd", "-o", tmp_path / "units").code == 0
    assert sorted(p.name for p in (tmp_path / "units").iterdir()) == [
        "replay-drift.service", "replay-drift.timer", "replay-gate.service",
        "replay-gate.timer"]
    refused("gate", "job", "jenkins", naming=("jenkins",))
