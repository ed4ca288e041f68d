"""docs/questions.md and its file of results: tables as in the file, numbers by hand, commands that the plan has."""

import json
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs/questions.md"


def results(benchmark):
    return json.loads(benchmark("questions").RESULTS.read_text())


def test_the_page_has_the_tables_of_the_file(benchmark):
    text = PAGE.read_text()
    for name, table in benchmark("questionpage").tables(results(benchmark)).items():
        assert f"<!-- {name} -->\n{table}\n<!-- /{name} -->" in text, "run benchmarks/questionpage.py"


def test_the_file_has_answers_to_questions_of_the_plan(benchmark):
    planned = {question.name: f"noiseless {question.command}" for question in benchmark("questionplan").QUESTIONS}
    there = results(benchmark)
    assert {name: entry["command"] for name, entry in there.items()}.items() <= planned.items()
    for name, entry in there.items():
        assert entry["seconds"] > 0, name
        if entry["kind"] == "edge":
            assert entry["reproduced"]["equal"] == entry["reproduced"]["compared"], (
                f"{name}: the run's own steps differ"
            )


def test_sharpness_at_the_edge_by_hand(benchmark):
    entry = {"steps": [0, 10, 20, 30], "sharpness": [4.0, 9.0, 11.0, 10.5], "edge": [10.0] * 4}
    numbers = benchmark("questionpage").at_edge(entry)
    assert (numbers["start"], numbers["crossed"]) == (4.0, 20)
    assert numbers["median"] == pytest.approx(1.075)  # of 1.1 and 1.05
    assert (numbers["low"], numbers["high"]) == pytest.approx((1.05, 1.1))


def test_the_loss_of_the_source_by_hand(benchmark):
    output, target = torch.tensor([[0.5, 2.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([1, 2])
    loss = benchmark("tanhnet").half_squared_error(output, target)
    assert loss.tolist() == pytest.approx([0.5 * (0.25 + 1.0), 0.0])


def test_a_question_is_asked_once_and_collected(benchmark, tmp_path, monkeypatch):
    questions, plan = benchmark("questions"), benchmark("questionplan")
    asked = plan.Question("small/sharpness", "sharpness linear", ("linear",))
    monkeypatch.setattr(questions, "RUNS", {"linear": "fb --model linear --steps 1 --warmup 0"})
    monkeypatch.setattr(questions, "QUESTIONS", [asked])
    maker = questions.Maker(tmp_path, tmp_path)
    maker.ask(asked)
    (answer,) = (tmp_path / "linear" / "analysis").glob("sharpness-*.json")
    before = answer.stat().st_mtime_ns
    maker.ask(asked)
    assert answer.stat().st_mtime_ns == before  # kept
    entry = maker.collect()["small/sharpness"]
    expected = json.loads(answer.read_text())["found"]
    assert entry["largest"] == [pytest.approx(value, rel=1e-5) for value in expected["largest"]]
    assert (entry["command"], entry["passes"]) == (
        "noiseless sharpness linear",
        pytest.approx(expected["passes"], rel=1e-5),
    )
    assert entry["seconds"] > 0


def test_a_question_that_is_refused_ends_the_work(benchmark, tmp_path, monkeypatch):
    questions, plan = benchmark("questions"), benchmark("questionplan")
    monkeypatch.setattr(questions, "RUNS", {})
    with pytest.raises(SystemExit, match="exit code 2"):
        questions.Maker(tmp_path, tmp_path).ask(plan.Question("small/edge", "edge nothing"))
    assert "nothing" in (tmp_path / "commands.log").read_text()


def test_the_rule_of_the_plan_by_hand(benchmark):
    as_planned = benchmark("questionpage").as_planned
    entry = {"steps": [0, 1, 2, 3], "sharpness": [4.0, 9.0, 10.0, 11.0], "edge": [10.0] * 4, "rises": 1}
    falling, flat = entry | {"quarters": [4.0, 3.0, 2.0, 1.0]}, entry | {"quarters": [4.0, 3.0, 3.0, 1.0]}
    assert as_planned("gd", falling)
    assert not as_planned("gd", flat)
    assert not as_planned("gd", falling | {"rises": 0})
    assert as_planned("adam", flat)
    assert not as_planned("gd", falling | {"sharpness": [4.0, 9.0, 11.9, 12.0]})
