"""The files in examples/clusters/: read as their tools read them, and their command lines by the program's parser.

`make clusters` runs the Slurm script for real; the YAML files are not run. What their schemas require was read from the
CRD of trainer.kubeflow.org/v1alpha1 (Kubeflow Trainer 2.3) and sky/utils/schemas.py of SkyPilot.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from noiseless.commands.arguments import parse_config, take

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "examples" / "clusters"
TRAINJOB = yaml.safe_load((PLACE / "trainjob.yaml").read_text())
SKYPILOT = yaml.safe_load((PLACE / "skypilot.yaml").read_text())
SLURM = (PLACE / "slurm.sh").read_text()


def _parsed(arguments: list[str]) -> str:
    """The run directory of a `train` command line, which every worker of a job needs."""
    arguments = [argument for argument in arguments if argument != "--again"]
    _, arguments = take(arguments, "--copy-to")
    config = parse_config(arguments, "train", "", data="digits").config
    config.check()
    assert config.settings.run_dir
    assert config.settings.threads == 1  # so that the bits depend on no machine's cores
    return config.settings.run_dir


def _after(words: list[str], *expected: str) -> list[str]:
    """The words after a sequence of words, which is there once."""
    (place,) = [k for k in range(len(words)) if words[k : k + len(expected)] == list(expected)]
    return words[place + len(expected) :]


def test_the_trainjob_has_what_its_schema_requires():
    assert set(TRAINJOB) == {"apiVersion", "kind", "metadata", "spec"}
    assert TRAINJOB["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    assert TRAINJOB["kind"] == "TrainJob"
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", TRAINJOB["metadata"]["name"])
    spec, trainer = TRAINJOB["spec"], TRAINJOB["spec"]["trainer"]
    assert set(spec) == {"runtimeRef", "trainer", "runtimePatches"}
    assert spec["runtimeRef"] == {"name": "torch-distributed"}
    assert set(trainer) <= {"image", "command", "args", "env", "numNodes", "numProcPerNode", "resourcesPerNode"}
    assert isinstance(trainer["numNodes"], int)
    assert all(isinstance(word, str) for word in trainer["command"] + trainer["args"])
    (patch,) = spec["runtimePatches"]
    assert patch["manager"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    (volume,) = pod["volumes"]
    assert (job["name"], pod["containers"][0]["name"], mount["name"]) == ("node", "node", volume["name"])
    words = trainer["command"] + trainer["args"]
    assert _parsed(_after(words, "-m", "noiseless", "train")).startswith(mount["mountPath"] + "/")
    assert (
        int(trainer["command"][1].removeprefix("--nproc-per-node="))
        == trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"]
    )


def test_the_skypilot_task_has_what_its_schema_requires():
    assert set(SKYPILOT) <= {"name", "workdir", "num_nodes", "resources", "file_mounts", "envs", "setup", "run"}
    assert set(SKYPILOT["resources"]) <= {"infra", "accelerators", "use_spot", "disk_size", "job_recovery"}
    ((bucket, mount),) = SKYPILOT["file_mounts"].items()
    assert set(mount) <= {"name", "source", "store", "persistent", "mode"}
    assert mount["mode"] == "MOUNT"
    script = SKYPILOT["run"]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    words = shlex.split(script.replace("\\\n", " "))
    arguments = _after(words, "-m", "noiseless", "train")
    run, (copy, _) = _parsed(arguments), take(arguments, "--copy-to")
    assert copy is not None
    assert copy.startswith(f"{bucket}/")
    assert not run.startswith(bucket)
    back = f"[ ! -e {run} ] && [ -e {copy}/config.json ]; then cp -r {copy} {run};"
    assert back in script
    number = script.partition("--nproc-per-node ")[2].split()[0]
    assert SKYPILOT["resources"]["accelerators"].partition(":")[2] == number


@pytest.mark.parametrize(
    ("copied", "there", "expected"), [(True, False, "copy"), (True, True, "run"), (False, False, "")]
)
def test_the_skypilot_task_takes_the_copy_where_the_disk_is_new(copied, there, expected, tmp_path):
    script = SKYPILOT["run"].replace("~", str(tmp_path)).replace("/bucket", str(tmp_path / "bucket"))
    for exists, path in ((copied, tmp_path / "bucket" / "run"), (there, tmp_path / "run")):
        if exists:
            path.mkdir(parents=True)
            (path / "config.json").write_text("copy" if "bucket" in str(path) else "run")
    subprocess.run(["bash", "-e", "-c", script.splitlines()[0]], check=True)
    config = tmp_path / "run" / "config.json"
    assert (config.read_text() if config.exists() else "") == expected


def test_the_slurm_script_is_as_sbatch_reads_it():
    subprocess.run(["bash", "-n", PLACE / "slurm.sh"], check=True)
    assert SLURM.startswith("#!/bin/bash\n")
    before = SLURM.partition("\nMASTER_ADDR")[0]
    options = [word for line in before.splitlines() if line.startswith("#SBATCH ") for word in line.split()[1:]]
    assert {option.partition("=")[0] for option in options} == {"--ntasks", "--requeue", "--open-mode", "--signal"}
    usage = re.sub(r"\\\n#", " ", before[before.index("#   sbatch") :]).splitlines()[0]
    assert _parsed(_after(shlex.split(usage.removeprefix("#")), "slurm.sh")) == "/shared/run"
    assert 'noiseless train "$@" --again' in SLURM


@pytest.mark.parametrize("name", ["trainjob.yaml", "skypilot.yaml"])
def test_what_was_not_run_is_said(name):
    assert "NOT RUN" in (PLACE / name).read_text()
    page = (ROOT / "docs" / "clusters.md").read_text()
    assert f"`examples/clusters/{name}`" in page or f"clusters/{name})" in page
