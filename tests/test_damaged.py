"""Damaged files: whatever reads them ends with a documented exit code and one sentence, or with what was undamaged."""

import itertools
import random

import damaged
import damages
import pytest
from damaged_subjects import SUBJECTS
from forgeries import FORGERIES
from programs import Copy


def _campaign(folder, count, seed):
    program = Copy(folder, count, seed, program="damaged")
    out, err = program.communicate()
    return out.splitlines(), program.returncode, err


def test_every_kind_of_file_meets_every_damage():
    cases = list(itertools.islice(damaged.cases(27), 2000))
    met = {(case.subject.name, case.pattern, case.damage) for case in cases}
    for subject in SUBJECTS:
        for pattern, kinds in subject.files.items():
            form, _, seal = kinds.partition(" ")
            for damage in damages.ANY | damages.FORMS[form] | FORGERIES.get(seal, {}):
                assert (subject.name, pattern, damage) in met
        tried = {case.reader for case in cases if case.subject is subject}
        assert tried == {*subject.commands, *subject.calls}


@pytest.mark.parametrize("text", ['{"a": [1, {"b": null}], "c": "x"}', "[1, 2]", "3"])
def test_the_text_of_a_value_is_replaced_anywhere(tmp_path, text):
    path, texts = tmp_path / "file.json", set()
    for seed in range(60):
        path.write_text(text)
        damages.FORMS["json"]["another value"](random.Random(seed), path)
        texts.add(path.read_text())
    assert text not in texts
    assert len(texts) > 15


def test_a_few_damaged_files_are_met_as_they_should_be(tmp_path):
    lines, code, err = _campaign(tmp_path, 25, 1)
    assert lines[-1:] == ["25 passed, 0 failed"], (lines, err[-2000:])
    assert code == 0


@pytest.mark.soak
def test_two_thousand_damaged_files_are_met_as_they_should_be(tmp_path):
    lines, code, err = _campaign(tmp_path, 2000, 27)
    print("\n".join(lines))
    assert lines[-1:] == ["2000 passed, 0 failed"], err[-2000:]
    assert code == 0
