"""Snapshots of a sweep are merged; one that is cut, has a flipped bit or is of other parameters is recognised."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noiseless.files.checkpoint import digest
from noiseless.files.snapshot import Snapshots
from noiseless.objective import EmpiricalRisk, Execution, cross_entropy, parameter_space
from noiseless.objective.workers import Alone, SweepStoppedError


class Counting:
    """Examples that count how many are read."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(40, 5, generator=generator)
        self.y = torch.arange(40) % 3
        self.count = 0

    def __len__(self):
        return 40

    def take(self, index):
        self.count += index.numel()
        return self.x[index], self.y[index]


class KilledError(Exception):
    """Stands for a kill: nothing is written after it."""


def _module():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def _risk(path, stop=lambda count: False, module=None, seconds=0.0):
    """A risk of 10 blocks of 4 that writes snapshots, and its examples."""
    examples = Counting()
    module = module or _module()
    space, alone = parameter_space(module), Alone(lambda: stop(examples.count))
    workers = Snapshots(alone, path, seconds, lambda: digest({"theta": space.theta}))
    workers.begin(0)
    return EmpiricalRisk(module, cross_entropy, examples, block=4, execution=Execution(workers, check=False)), examples


def _stopped(path, after, seconds=0.0):
    """Leaves the snapshots of a sweep that was stopped after `after` chunks."""
    risk, examples = _risk(path, lambda count: count >= 4 * after, seconds=seconds)
    with pytest.raises(SweepStoppedError):
        risk.evaluate()
    assert examples.count == 4 * after


def _resume(path, module=None):
    risk, examples = _risk(path, module=module)
    return risk.evaluate(), examples.count


def _same(actual, expected):
    pairs = [(getattr(actual, k), getattr(expected, k)) for k in ("gradient", "statistics", "block_square_norms")]
    return all(torch.equal(a, b) for a, b in pairs) and (actual.loss, actual.hits) == (expected.loss, expected.hits)


@pytest.fixture(scope="module")
def undisturbed():
    return EmpiricalRisk(_module(), cross_entropy, Counting(), block=4).evaluate()


@pytest.mark.parametrize("after", range(1, 10))
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_a_stopped_sweep_resumes_where_it_stopped(tmp_path, undisturbed, after, seconds):
    _stopped(tmp_path, after, seconds)
    evaluation, count = _resume(tmp_path)
    assert count == 40 - 4 * after
    assert _same(evaluation, undisturbed)


def test_a_finished_sweep_is_not_computed_again(tmp_path, undisturbed):
    _resume(tmp_path)
    evaluation, count = _resume(tmp_path)
    assert count == 0
    assert _same(evaluation, undisturbed)


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 33, 40, 100, 0.3, 0.5, 0.9, -100, -1])
def test_a_cut_snapshot_is_recognised(tmp_path, undisturbed, cut):
    _stopped(tmp_path, 7, seconds=1e9)
    (path,) = tmp_path.glob("*.partial")
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    evaluation, count = _resume(tmp_path)
    assert count == 40
    assert _same(evaluation, undisturbed)


@pytest.mark.parametrize("share", [0.0, 0.005, 0.01, 0.05, 0.2, 0.5, 0.8, 0.9999])
def test_a_flipped_bit_is_recognised(tmp_path, undisturbed, share):
    _stopped(tmp_path, 7, seconds=1e9)
    (path,) = tmp_path.glob("*.partial")
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 16
    path.write_bytes(bytes(content))
    evaluation, count = _resume(tmp_path)
    assert count == 40
    assert _same(evaluation, undisturbed)


def _killed(path, after):
    def die(count):
        if count == 4 * after:
            raise KilledError
        return False

    risk, _ = _risk(path, die)
    with pytest.raises(KilledError):
        risk.evaluate()
    return sorted(path.glob("*.partial"), key=lambda file: file.stat().st_mtime_ns)


def test_the_snapshot_before_a_damaged_one_is_used(tmp_path, undisturbed):
    older, newer = _killed(tmp_path, 5)
    newer.write_bytes(newer.read_bytes()[:-1])
    evaluation, count = _resume(tmp_path)
    assert _same(evaluation, undisturbed)
    assert count == 40 - 4 * 4  # the older one holds four blocks
    assert not older.exists()  # a new one has its content


def test_a_sweep_that_is_killed_several_times_gives_the_same_bits(tmp_path, undisturbed):
    for after in (2, 3, 1, 2):  # chunks that each launch computes
        _killed(tmp_path, after)
    evaluation, count = _resume(tmp_path)
    assert _same(evaluation, undisturbed)
    assert count == 40 - 4 * (2 + 3 + 1 + 2)


def test_a_snapshot_of_other_parameters_is_not_used(tmp_path):
    _stopped(tmp_path, 6)
    module = _module()
    with torch.no_grad():
        module[0].weight += 1
    expected = EmpiricalRisk(module, cross_entropy, Counting(), block=4).evaluate()
    evaluation, count = _resume(tmp_path, module)
    assert count == 40
    assert _same(evaluation, expected)


def test_snapshots_of_other_steps_are_removed(tmp_path):
    _stopped(tmp_path, 6)
    assert list(tmp_path.glob("step-00000000-*.partial"))
    Snapshots(Alone(), tmp_path, 0.0, str).begin(1)
    assert not list(tmp_path.glob("*.partial"))
