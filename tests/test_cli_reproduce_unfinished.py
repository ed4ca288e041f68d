"""A ladder whose runs are stopped, diverge or come from other commands: it continues, and its table has what ended."""

import csv
import signal
from dataclasses import replace
from functools import partial

from jobs import wait_until
from programs import Copy
from small_runs import call, record, run, small_recipe, start_program, words

from noiseless.files.directory import RunDirectory
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import row
from noiseless.report import table
from noiseless.study.processes import execute
from noiseless.study.reproduce import grown, plan


def test_the_plan_is_each_row_with_each_seed(tmp_path):
    jobs = plan([row("sgd"), row("fb")], 2, tmp_path)
    assert [(job.title, job.path.name) for job in jobs] == [
        (f"{name} seed {seed}", f"{name}-seed{seed}") for name in ("sgd", "fb") for seed in (0, 1)
    ]
    assert not any(job.finished for job in jobs)


def start_ladder(data, path, rows, start):
    """Starts a ladder of one run by `start` and waits for some rows; its command, program and run."""
    args = ("reproduce", "--form", "small", "--data", data, "--model", "resnet2", "--rows", "fb-longer")
    args = (*args, "--seeds", 1, "--jobs", 1, "--run-dir", path)
    program, directory = start(*args), RunDirectory(path / "fb-longer-seed0")
    wait_until(program, lambda: len(directory.rows()) >= rows, program.communicate)
    return args, program, directory


def test_an_interrupted_ladder_continues_with_the_same_command(data, tmp_path):
    args, program, directory = start_ladder(data, tmp_path / "runs", 1, partial(Copy, tmp_path))
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert program.returncode == 130, (out, err)
    assert "run the same command again" in words(out)
    assert "Traceback" not in out + err
    done = len(directory.rows())
    assert 1 <= done < directory.config().recipe.schedule.steps
    assert (directory.checkpoints / f"step-{done:08d}.json").exists()
    assert call(*args).code == 0
    assert record(directory) == record(run(tmp_path / "undisturbed", directory.config().recipe))


def test_the_processes_of_a_ladder_end_when_their_parent_is_killed_and_it_continues(data, tmp_path):
    """Nothing can stop the processes from outside: without a parent they would hold their runs and wait for ever."""
    args, program, directory = start_ladder(data, tmp_path / "runs", 3, start_program)
    program.kill()
    program.communicate(timeout=60)  # until the last process that has its pipes has ended
    done = len(directory.rows())
    assert 3 <= done < 100
    assert (directory.checkpoints / f"step-{done:08d}.json").exists()
    answer = call(*args)
    assert answer.code == 0, answer.err
    assert record(directory) == record(run(tmp_path / "undisturbed", directory.config().recipe))


def test_rows_that_differ_in_a_flag_that_the_first_does_not_set_stay_in_their_order(data, tmp_path):
    """fb-practice is fb-strong with a shuffle, which fb-strong does not set."""
    recipes = [replace(small_recipe(data, name), name=name) for name in ("fb-strong", "fb-practice")]
    jobs = plan(recipes, 1, tmp_path)
    execute(jobs, 1, lambda job, row: None, lambda job, why: None)
    assert [job.recipe.name for job in grown(jobs, recipes, tmp_path)] == ["fb-strong", "fb-practice"]
    assert [job.recipe.name for job in grown(jobs[:1], recipes, tmp_path)] == ["fb-strong", "fb-practice"]


def test_runs_that_have_not_ended_are_in_no_mean(data, tmp_path):
    good = replace(small_recipe(data, "fb"), name="good")
    wild = with_flags(good, name="wild", lr=1e30, warmup=0)
    jobs = plan([good, wild], 2, tmp_path)
    execute(jobs, 1, lambda job, row: None, lambda job, why: None)
    (jobs[1].path / "model.safetensors").unlink()  # as if it had been stopped before its end
    lines = table.lines(jobs)
    markdown, file = table.write(tmp_path, lines, "a title", "a command")
    good_line, wild_line = csv.DictReader(file.read_text().splitlines())
    assert (good_line["n"], good_line["unfinished"], wild_line["n"], wild_line["unfinished"]) == ("1", "1", "0", "2")
    assert float(good_line["train_loss_mean"]) == jobs[0].directory.rows()[-1]["train_loss"]
    assert wild_line["test_accuracy_mean"] == wild_line["steps"] == ""
    text = markdown.read_text()
    assert "| good (1 unfinished) | 3 | 3 |" in text
    assert "| wild (2 unfinished) | - | - | - | - | 0 |" in text
    assert "not part of any mean" in text


def test_a_row_that_diverges_is_reported_and_the_others_end(data, tmp_path):
    good = replace(small_recipe(data, "fb"), name="good")
    wild = with_flags(good, name="wild", lr=1e30, warmup=0)
    jobs = plan([wild, good], 1, tmp_path)
    steps, ended = [], {}
    execute(jobs, 1, lambda job, row: steps.append((job.title, row["step"])), lambda job, why: ended.update({job: why}))
    assert ended[jobs[1]] is None
    assert "not finite" in ended[jobs[0]]
    assert [step for title, step in steps if title == "good seed 0"] == [0, 1, 2]
    assert [job.finished for job in jobs] == [False, True]
