"""Snapshots of a sweep: merged, and recognised where they are cut, flipped or of other parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noiseless.files.checkpoint import digest
from noiseless.files.snapshot import Snapshots
from noiseless.objective import EmpiricalRisk, Execution, cross_entropy, parameter_space
from noiseless.objective.workers import Alone, SweepStoppedError


class Counting:
    """Examples that count how many are asked for."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(40, 5, generator=generator)
        self.y = torch.arange(40) % 3
        self.taken = 0

    def __len__(self):
        return 40

    def take(self, index):
        self.taken += index.numel()
        return self.x[index], self.y[index]


class KilledError(Exception):
    """Stands for a kill: nothing is written on the way out."""


def _module():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def _risk(place, stop=lambda taken: False, module=None, seconds=0.0):
    """A risk of 10 blocks of 4 that writes snapshots, and its examples."""
    examples = Counting()
    module = module or _module()
    space, alone = parameter_space(module), Alone(lambda: stop(examples.taken))
    workers = Snapshots(alone, place, seconds, lambda: digest({"theta": space.theta}))
    workers.begin(0)
    return EmpiricalRisk(module, cross_entropy, examples, block=4, execution=Execution(workers)), examples


def _stopped(place, after, seconds=0.0):
    """Leaves what a sweep leaves that was told to stop after a number of chunks."""
    risk, examples = _risk(place, lambda taken: taken >= 4 * after, seconds=seconds)
    with pytest.raises(SweepStoppedError):
        risk.evaluate()
    assert examples.taken == 4 * after


def _go_on(place, module=None):
    risk, examples = _risk(place, module=module)
    return risk.evaluate(), examples.taken


def _same(found, expected):
    pairs = [(getattr(found, k), getattr(expected, k)) for k in ("gradient", "statistics", "block_square_norms")]
    return all(torch.equal(a, b) for a, b in pairs) and (found.loss, found.hits) == (expected.loss, expected.hits)


@pytest.fixture(scope="module")
def whole():
    return EmpiricalRisk(_module(), cross_entropy, Counting(), block=4).evaluate()


@pytest.mark.parametrize("after", range(1, 10))
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_a_stopped_sweep_goes_on_where_it_was(tmp_path, whole, after, seconds):
    _stopped(tmp_path, after, seconds)
    found, taken = _go_on(tmp_path)
    assert taken == 40 - 4 * after
    assert _same(found, whole)


def test_a_finished_sweep_is_not_computed_again(tmp_path, whole):
    _go_on(tmp_path)
    found, taken = _go_on(tmp_path)
    assert taken == 0
    assert _same(found, whole)


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 33, 40, 100, 0.3, 0.5, 0.9, -100, -1])
def test_a_cut_snapshot_is_recognised(tmp_path, whole, cut):
    _stopped(tmp_path, 7, seconds=1e9)
    (path,) = tmp_path.glob("*.partial")
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    found, taken = _go_on(tmp_path)
    assert taken == 40
    assert _same(found, whole)


@pytest.mark.parametrize("share", [0.0, 0.005, 0.01, 0.05, 0.2, 0.5, 0.8, 0.9999])
def test_a_flipped_bit_is_recognised(tmp_path, whole, share):
    _stopped(tmp_path, 7, seconds=1e9)
    (path,) = tmp_path.glob("*.partial")
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 16
    path.write_bytes(bytes(content))
    found, taken = _go_on(tmp_path)
    assert taken == 40
    assert _same(found, whole)


def _killed(place, after):
    def die(taken):
        if taken == 4 * after:
            raise KilledError
        return False

    risk, _ = _risk(place, die)
    with pytest.raises(KilledError):
        risk.evaluate()
    return sorted(place.glob("*.partial"), key=lambda path: path.stat().st_mtime_ns)


def test_the_one_before_a_damaged_one_is_used(tmp_path, whole):
    older, newer = _killed(tmp_path, 5)
    newer.write_bytes(newer.read_bytes()[:-1])
    found, taken = _go_on(tmp_path)
    assert _same(found, whole)
    assert taken == 40 - 4 * 4  # the older one holds four blocks
    assert not older.exists()  # its content is in a new one


def test_kill_upon_kill(tmp_path, whole):
    for after in (2, 3, 1, 2):  # chunks that each launch adds
        _killed(tmp_path, after)
    found, taken = _go_on(tmp_path)
    assert _same(found, whole)
    assert taken == 40 - 4 * (2 + 3 + 1 + 2)


def test_a_snapshot_of_other_parameters_does_not_count(tmp_path):
    _stopped(tmp_path, 6)
    module = _module()
    with torch.no_grad():
        module[0].weight += 1
    expected = EmpiricalRisk(module, cross_entropy, Counting(), block=4).evaluate()
    found, taken = _go_on(tmp_path, module)
    assert taken == 40
    assert _same(found, expected)


def test_snapshots_of_other_steps_are_removed(tmp_path):
    _stopped(tmp_path, 6)
    assert list(tmp_path.glob("step-00000000-*.partial"))
    Snapshots(Alone(), tmp_path, 0.0, str).begin(1)
    assert not list(tmp_path.glob("*.partial"))
