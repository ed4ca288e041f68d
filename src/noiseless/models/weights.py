"""The pretrained weights of torchvision's and timm's models: where they are, and how they become a state of a model.

Only `fetch` downloads them, which the command `noiseless models --fetch` calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiseless import keyed
from noiseless.errors import UnknownNameError, command, reason

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""files of timm's weights on the hub, in the order in which timm looks for them"""
NO_WEIGHTS = "torchvision:NAME and timm:NAME have pretrained weights"


@dataclass(frozen=True)
class Weights:
    """Pretrained weights of one model, on this machine or not."""

    model: str
    """`torchvision:NAME` or `timm:NAME`"""
    name: str
    """what the library calls them"""
    places: tuple[str, ...]
    """where they were looked for"""
    path: Path | None
    """their file; None: it is not on this machine"""
    url: str | None
    """address of the file; None: there is none"""
    repository: str | None
    """repository on the Hugging Face hub, perhaps with @REVISION; None: there is none"""
    sha256: str | None
    """the first digits of the file's SHA-256 that the library states, or all; None: it states none"""
    mean: tuple[float, ...] | None
    """mean of the pixels by which images were normalised; None: not stated"""
    std: tuple[float, ...] | None
    """standard deviation likewise"""

    def file(self) -> Path:
        """The file.

        Returns:
            Its path.

        Raises:
            ValueError: if it is not on this machine, with where it was looked for and how to download it.
        """
        if self.path is None:
            raise ValueError(
                f"the weights {self.name} of {self.model} are not on this machine ({' and '.join(self.places)} do not"
                f" exist), and training downloads none: get them with {command('models', self.model, '--fetch')}"
                f"{'' if self.is_default else f' --weights {self.name}'}"
            )
        return self.path

    @property
    def is_default(self) -> bool:
        """Whether the library has these weights for the model unless others are named."""
        return find(self.model).name == self.name


def find(model: str, name: str | None = None) -> Weights:
    """Finds pretrained weights in the caches of torch and of the Hugging Face hub.

    Args:
        model: `torchvision:NAME` or `timm:NAME`.
        name: of the weights, as `IMAGENET1K_V2` of torchvision or the tag `a1_in1k` of timm; None: the library's
            default.

    Returns:
        The weights, on this machine or not.

    Raises:
        UnknownNameError: for a name of no such weights.
        ValueError: for a model that has none.
    """
    package, _, rest = model.partition(":")
    if package == "torchvision":
        return _of_torchvision(model, rest, name)
    if package == "timm":
        return _of_timm(model, rest, name)
    raise ValueError(f"there are no pretrained weights of {model}: {NO_WEIGHTS}; give --init a file or a run")


def _of_torchvision(model: str, short: str, name: str | None) -> Weights:
    from torchvision import models

    if short not in models.list_models(module=models):
        raise ValueError(f"torchvision has no model {short}: noiseless train --model {model} names those that are near")
    known = {entry.name: entry for entry in models.get_model_weights(short)}
    if not known:
        raise ValueError(f"torchvision has no pretrained weights of {model}: leave out --init")
    if name is not None and name not in known:
        raise UnknownNameError(f"weights of {model}", name, known)
    entry = models.get_model_weights(short).DEFAULT if name is None else known[name]
    preset: Any = entry.transforms()
    path, url = _in_torch_hub(entry.url), entry.url
    mean, std = (getattr(preset, field, None) for field in ("mean", "std"))
    return Weights(
        model, entry.name, (str(path),), path if path.is_file() else None, url, None, _stated(path.name),
        mean and tuple(mean), std and tuple(std),
    )  # fmt: skip


def _of_timm(model: str, short: str, name: str | None) -> Weights:
    try:
        import timm
        from huggingface_hub import constants, try_to_load_from_cache
    except ImportError:
        raise ValueError("timm: models need the package timm: pip install noiseless[timm]") from None
    base = short.partition(".")[0]
    known = [tagged.partition(".")[2] for tagged in timm.list_pretrained(f"{base}.*")]
    if name is not None and name not in known:
        raise UnknownNameError(f"weights of {model}", name, known)
    config = timm.get_pretrained_cfg(f"{base}.{name}" if name else short)
    url = config.url if config and isinstance(config.url, str) and not config.url.endswith(".npz") else None
    if config is None or not config.tag or not (config.hf_hub_id or url):
        raise ValueError(f"timm has no pretrained weights of {model}: leave out --init")
    places: list[str] = []
    found: Path | None = None
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        places.append(str(Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"))
        for file in (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES:
            cached = try_to_load_from_cache(repository, file, revision=revision or None)
            found = found or (Path(cached) if isinstance(cached, str) else None)
    sha256 = None
    if found is not None and re.fullmatch("[0-9a-f]{64}", (blob := found.resolve().name)):
        sha256 = blob  # the cache names large files by their digest, as the hub states it
    if url:
        path = _in_torch_hub(url)
        places.append(str(path))
        if found is None and path.is_file():
            found, sha256 = path, _stated(path.name)
    return Weights(
        model, config.tag, tuple(places), found, url, config.hf_hub_id, sha256,
        config.mean, config.std,
    )  # fmt: skip


def fetch(model: str, name: str | None = None) -> Weights:
    """Downloads pretrained weights into the cache of their library, unless they are there.

    Args:
        model: `torchvision:NAME` or `timm:NAME`.
        name: of the weights; None: the library's default.

    Returns:
        The weights, on this machine.

    Raises:
        ValueError: if they cannot be downloaded, with what to put where.
    """
    weights = find(model, name)
    if weights.path is not None:
        return weights
    try:
        if weights.repository is not None:
            _from_hub(weights.repository)
        else:
            assert weights.url is not None
            path = _in_torch_hub(weights.url)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(path), _stated(path.name), progress=False)
    except Exception as error:  # of two libraries and the network
        source = f"https://huggingface.co/{weights.repository}" if weights.repository else weights.url
        raise ValueError(
            f"the weights {weights.name} of {model} could not be downloaded from {source} ({reason(error)}): download"
            f" them elsewhere, and give the file to --init"
        ) from None
    return find(model, name)


def _from_hub(repository: str) -> None:
    """Downloads weights from the Hugging Face hub into its cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = repository.partition("@")
    first, second = HUB_FILES
    try:
        hf_hub_download(name, first, revision=revision or None)
    except EntryNotFoundError:
        hf_hub_download(name, second, revision=revision or None)


def converted(
    weights: Weights, state: Mapping[str, Tensor], module: nn.Module, channels: int, options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """A state with the names of a model, from the content of a file of weights.

    For images of one channel, the first convolution gets the sum of its weights over the three colours, as if the grey
    image were in each of them.

    Args:
        weights: whose file it is.
        state: tensors by the file's names.
        module: the model, which is not changed.
        channels: of the images.
        options: further arguments of the model.

    Returns:
        Tensors by state name; the last layer is of the weights' classes.

    Raises:
        ValueError: if the library cannot load them.
    """
    if weights.model.startswith("timm:"):
        return _by_timm(weights, dict(state), channels, options)
    # DenseNet's files have names from before torchvision's first release: denselayer1.norm.1.weight
    renamed = {re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", key): tensor for key, tensor in state.items()}
    first = next((key for key, layer in module.named_modules() if isinstance(layer, nn.Conv2d)), "")
    kernel = renamed.get(f"{first}.weight")
    if channels == 1 and kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 3:
        renamed[f"{first}.weight"] = kernel.sum(1, keepdim=True)
    return renamed


def _by_timm(
    weights: Weights, state: dict[str, Tensor], channels: int, options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The state that timm makes of a file: it renames, resizes and converts what an architecture needs."""
    import timm

    name = f"{weights.model.partition(':')[2].partition('.')[0]}.{weights.name}"
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    with keyed.torch_generators(0, "pretrained", 0, 0, torch.device("cpu")):  # its values are all replaced
        try:
            model = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay={"state_dict": state},
                exportable=True, in_chans=channels, num_classes=config.num_classes, **options,
            )  # fmt: skip
        except Exception as error:
            raise ValueError(
                f"timm cannot load the weights {weights.name} of {weights.model}: {reason(error)}"
            ) from None
    return dict(model.state_dict())


def normalisation(weights: Weights, mean: Sequence[float], std: Sequence[float]) -> str | None:
    """A message if the weights are from images that were normalised otherwise than a run's.

    Args:
        weights: whose images they were.
        mean: of the run's pixels, by channel.
        std: of the run's pixels, by channel.

    Returns:
        The message, or None.
    """
    if weights.mean is None or weights.std is None:
        return None
    pairs = zip((*weights.mean, *weights.std), (*mean, *std), strict=False)
    if len(mean) != len(weights.mean) or all(abs(there - here) < 1e-3 for there, here in pairs):
        return None
    there = (" ".join(f"{value:g}" for value in values) for values in (weights.mean, weights.std))
    return "they are of images normalised by --mean {} --std {}, and these are by their own".format(*there)


def _in_torch_hub(url: str) -> Path:
    """Where torch's hub keeps the file of an address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _stated(file: str) -> str | None:
    """The first digits of the SHA-256 that a file's name states, as in `resnet18-f37072fd.pth`."""
    match = re.search(r"-([a-f0-9]{8,})\.", file)
    return match[1] if match else None
