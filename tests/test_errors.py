"""The wording of errors, and their way from one process to another."""

import errno
import os
import pickle
import re

import pytest

from noiseless.errors import UnknownNameError, message


def test_an_unknown_name_survives_the_way_between_processes():
    error = UnknownNameError("model", "resnet9", iter(["resnet8", "vgg"]))
    assert str(error) == "unknown model 'resnet9'; did you mean resnet8? known: resnet8, vgg"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, r"No space left on device: {path} \([\d,]+\.\d MB free\)\. .*make room"),
        (errno.EACCES, r"Permission denied: {path}\. .*change its permissions"),
        (errno.ENOENT, r"No such file or directory: {path}\. Check the path"),
    ],
)
def test_errors_of_the_system_name_path_and_remedy(number, told, tmp_path):
    path = tmp_path / "none" / "file"
    assert re.fullmatch(told.format(path=path) + ".*", message(OSError(number, os.strerror(number), str(path))))


def test_other_errors_say_what_they_say():
    assert message(ValueError("what and why")) == "what and why"
    assert message(OSError("no number")) == "no number"
