"""The wording of errors, and their way from one process to another."""

import errno
import os
import pickle
import re

import pytest

from noiseless.errors import UnknownNameError, message


def test_an_unknown_name_error_can_be_pickled():
    error = UnknownNameError("model", "resnet9", iter(["resnet8", "vgg"]))
    assert str(error) == "unknown model 'resnet9'; did you mean resnet8? known: resnet8, vgg"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, r"No space left on device: {path} \([\d,]+\.\d MB free\)\. .*make room"),
        (errno.EACCES, r"Permission denied: {path}\. .*change its permissions"),
        (errno.ENOENT, r"No such file or directory: {path}\. Check the path"),
    ],
)
def test_errors_of_the_system_name_path_and_remedy(number, expected, tmp_path):
    path = tmp_path / "none" / "file"
    assert re.fullmatch(expected.format(path=path) + ".*", message(OSError(number, os.strerror(number), str(path))))


def test_the_message_of_other_errors_is_not_changed():
    assert message(ValueError("what and why")) == "what and why"
    assert message(OSError("no number")) == "no number"
