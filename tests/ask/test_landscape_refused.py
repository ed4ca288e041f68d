"""Landscapes that cannot be computed, or that have the name of another one: refused in one line, nothing written."""

from __future__ import annotations

from jobs import wait_until
from programs import Copy
from small_runs import call, count_lines, files, refused, run, small_recipe

from noiseless.files import answers


def test_another_landscape_under_one_name_is_refused_and_the_default_names_differ(run_copy):
    arguments = ["landscape", f"{run_copy.path}@4", "--points", 3, "--no-penalised"]
    assert call(*arguments, "--name", "mine").code == 0
    before = files(run_copy.path / "analysis")
    for flags, names in (
        (["--seed", 1], ("axes.0.seed: 0 there, 1 here", "choose another --name")),
        (["--points", 4], ("axes.0.points: 3 from -1.0 to 1.0 there, 4 from -1.0 to 1.0 here",)),
        (["--batch-norm", "running"], ("batch_norm: block there, running here",)),
        (["--penalised"], ("penalty.strength: none there, 0.5 here",)),
    ):
        refused(*arguments, *flags, "--name", "mine", names=("holds another landscape", *names))
    refused("landscape", f"{run_copy.path}@3", *arguments[2:], "--name", "mine", names=("step: 4 there, 3 here",))
    assert files(run_copy.path / "analysis") == before
    for flags in ([], ["--seed", 1], ["--range", 2], ["--batch-norm", "running"], ["--normalised", "layer"]):
        assert call(*arguments, *flags).code == 0
    names = {answer.name for answer in answers.read(run_copy, "landscape")}
    assert len(names) == 6
    assert {name.rpartition("-")[0] for name in names} == {"", "step4-random-filter-3", "step4-random-layer-3"}


def test_files_that_are_no_landscape_are_refused(run_copy):
    folder = answers.folder(run_copy)
    for content in (b"[1, 2]\n", b"noise\n", b'{"asked": 3}\n{"at": [0]}\n', b"\xff\xfe\n"):
        (folder / "landscape-x.jsonl").write_bytes(content)
        refused(
            "landscape", run_copy.path, "--points", 3, "--name", "x", names=("landscape-x.jsonl", "remove the file")
        )
    refused("landscape", run_copy.path, "--name", "../x", names=("--name must be of letters", "'../x'"))


def test_a_landscape_that_another_process_fills_is_left_alone(run_copy, tmp_path):
    arguments = ["landscape", str(run_copy.path), "--points", "40x40", "--name", "x", "--no-penalised"]
    program = Copy(tmp_path, *arguments)
    path = run_copy.path / "analysis" / "landscape-x.jsonl"
    try:
        wait_until(program, lambda: count_lines(path) >= 2, program.communicate)
        refused(*arguments, names=("is being filled by another process", "--name"))
    finally:
        program.kill()
        program.communicate()


def test_axes_that_cannot_be_built_are_refused(run_copy, data, tmp_path):
    other = run(tmp_path / "linear", small_recipe(data, "fb", model="linear"))
    bare = run(tmp_path / "bare", small_recipe(data, "fb"))
    path = run_copy.path
    refused(
        "landscape",
        path,
        other.path,
        names=(f"no line leads from {path} to {other.path}", "is not of this model", "missing"),
    )
    refused("landscape", path, f"{path}@4", names=(f"no line leads from {path} to {path}@4", "equal"))
    refused("landscape", path, f"{path}@9", names=("no state of step 9", "--keep-every N"))
    refused("landscape", path, "--axes", "between", names=("one other state for each of the 1 axes, and 0 are given",))
    refused("landscape", path, f"{path}@1", "--dimensions", 2, names=("each of the 2 axes, and 1 is given",))
    refused("landscape", path, f"{path}@1", "--axes", "pca", names=("a second run is for --axes between",))
    refused(
        "landscape", f"{path}@1", "--axes", "pca", names=("at least 3 states", "has 2 up to step 1", "--keep-every")
    )
    refused("landscape", path, "--axes", "pca", "--normalised", "layer", names=("--normalised layer is for random",))
    refused("landscape", path, "--points", 1, names=("--points must be at least 2", "not 1"))
    refused("landscape", path, "--points", "3x1", names=("at least 2 along each axis", "3x1"))
    refused("landscape", path, "--points", "3x3x3", names=("21x11", "'3x3x3'"))
    refused("landscape", path, "--points", "3x4", "--dimensions", 1, names=("--points has 2 numbers for 1 axes",))
    refused("landscape", path, "--range", 0, names=("--range must be a positive, finite number, not 0.0",))
    refused("landscape", path, "--range", "nan", names=("--range must be a positive, finite number, not nan",))
    refused("landscape", path, "--seed", -1, names=("--seed must be a finite number of at least 0, not -1",))
    refused("landscape", tmp_path / "none", names=("does not exist", "noiseless train"))
    for target in (bare.checkpoints, bare.model):
        for file in target.glob("*") if target.is_dir() else [target]:
            file.unlink()
    refused("landscape", bare.path, names=("has no checkpoint yet",))
    refused("flatness", bare.path, names=("has no checkpoint yet",))
    assert not list(bare.path.glob("analysis/*"))


def test_a_checkpoint_of_another_model_is_refused(run_copy, data, tmp_path):
    other = run(tmp_path / "linear", small_recipe(data, "fb", model="linear"), keep_every=1)
    for file in other.checkpoints.glob("step-00000002.*"):
        (run_copy.checkpoints / file.name).write_bytes(file.read_bytes())
    refused("landscape", f"{run_copy.path}@2", names=("step-00000002.safetensors is not of this model", "missing"))
    refused("landscape", run_copy.path, "--axes", "pca", names=(f"{run_copy.path}@2 is not of this model", "missing"))
