"""Uploads a saved model to the Hugging Face Hub, or to another server that speaks its protocol."""

from __future__ import annotations

from pathlib import Path

from noiseless.exchange.pretrained import FILES, check_pretrained
from noiseless.printable import printable


def push_to_hub(
    directory: Path | str,
    repository: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload a model of noiseless",
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Uploads the files that `save_pretrained` or `noiseless export` has written, in one commit.

    The repository is made if it is not there. Other files of it stay as they are. Nothing else is sent.

    Args:
        directory: of the model; its parameters are compared with their digest before the upload.
        repository: `user/name`, or a name alone for the user whose token it is.
        private: whether a new repository is private; None: the user's setting.
        revision: branch that gets the commit; None: the main one.
        message: of the commit.
        token: that may write there; None: the one of `hf auth login`, or of the environment variable HF_TOKEN.
        endpoint: address of the server; None: the Hub's, or that of the environment variable HF_ENDPOINT.

    Returns:
        The address of the commit.

    Raises:
        ValueError: if huggingface_hub is not installed, the directory holds no undamaged model, or the server refuses.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise ValueError("push_to_hub needs huggingface_hub: pip install noiseless[hub]") from None
    directory = Path(directory)
    check_pretrained(directory)
    api = HfApi(endpoint=endpoint, token=token, library_name="noiseless")
    files = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=directory / name) for name in FILES]
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(address.repo_id, files, commit_message=message, revision=revision)
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is no name of a repository on the hub: {_first_line(error)}") from None
    except Exception as error:  # of the server, or of the library for HTTP, which depends on huggingface_hub's version
        raise ValueError(
            f"{directory} was not uploaded to {repository} at {api.endpoint}: {_first_line(error)}. Check the name, the"
            " network and the token (`hf auth login`)"
        ) from error
    return str(commit.commit_url)


def _first_line(error: Exception) -> str:
    """The first line of a message, as it may be printed."""
    return printable(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__).rstrip(".")
