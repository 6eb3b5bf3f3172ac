"""HPSv2 by its own package, in its own environment: the numbers that papers report.

Preprocessing, tokens, model and cosine are those of hpsv2 1.2.0. Only the loading is ours: its
`score` fetches 4 GB of LAION weights that it then overwrites, and reads the checkpoint again on
each call.
"""

from __future__ import annotations

import gzip
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from bpgo.config.fields import Line
from bpgo.errors import UserError
from bpgo.rewards.shared.published import PublishedReward, PublishedRewardSettings, Sha256
from bpgo.rewards.shared.tokens import CLIP_TOKENS
from bpgo.storage import hub

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples

BPE = "bpe_simple_vocab_16e6.txt.gz"


class HPSv2OfficialSettings(PublishedRewardSettings):
    """Keys of an `hpsv2_official` reward; images go one by one, as in the package."""

    kind: Literal["hpsv2_official"] = "hpsv2_official"
    sha256: Sha256 | None = None  # of the checkpoint
    dtype: Literal["float32"] = "float32"  # of the weights; on a GPU the package runs in float16
    architecture: Line = "ViT-H-14"  # as for the kind `hpsv2`

    def longest_prompt(self) -> int:
        """CLIP's longest text."""
        return CLIP_TOKENS

    def count_tokens(self, texts: list[str]) -> list[int]:
        """See `RewardSettings.count_tokens`."""
        from bpgo.rewards.shared.tokens import open_clip_tokens

        return open_clip_tokens(texts, f"reward '{self.title}'")


class HPSv2Official(PublishedReward):
    """The published checkpoint in the package hpsv2.

    Raises:
        UserError: there is no such checkpoint, or it is another model's.
        ImportError: outside its environment.
    """

    Settings = HPSv2OfficialSettings

    def __init__(self, settings: HPSv2OfficialSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.settings = settings
        what = f"reward '{settings.title}'"
        path = hub.file(settings.path, settings.revision, what, settings.sha256)
        from bpgo.rewards.shared.checkpoints import load_weights, read_state_dict

        self.model, self.preprocess, self.tokenize = official_model(settings.architecture, what)
        load_weights(self.model, read_state_dict(path, what), path, what)
        self.model = self.model.to(device).eval().requires_grad_(False)

    def score(self, samples: Samples) -> Tensor:
        """The steps of `hpsv2.img_score.score` for each image [3, H, W] in [0, 1]: [B]."""
        import torch

        from bpgo.rewards.shared.preprocess import stored_levels

        levels = stored_levels(samples.pixels).byte().permute(0, 2, 3, 1).cpu().numpy()
        return torch.stack(
            [self._one(image, text) for image, text in zip(levels, samples.texts, strict=True)]
        )

    def _one(self, levels: Any, text: str) -> Tensor:
        import torch
        from PIL import Image

        pixels = self.preprocess(Image.fromarray(levels)).unsqueeze(0).to(self.device)
        tokens = self.tokenize([text]).to(self.device)
        # Half precision on a GPU, float32 on a CPU: as `torch.cuda.amp.autocast()` there.
        cuda = torch.device(self.device).type == "cuda"
        with torch.autocast("cuda", torch.float16, enabled=cuda):
            found = self.model(pixels, tokens)
            cosines: Tensor = found["image_features"] @ found["text_features"].T
        return cosines[0, 0].float()


def official_model(architecture: str, what: str) -> tuple[Any, Any, Any]:
    """The package's model (random weights), its preprocessing of one image and its tokenizer.

    `UserError` if it knows no such architecture.
    """
    factory = _import_factory()
    name = architecture
    if architecture.endswith(".json"):
        path = hub.file(architecture, None, f"{what}: architecture")
        factory.add_model_config(path)
        name = path.stem
    if factory.get_model_config(name) is None:
        raise UserError(f"{what}: architecture: hpsv2 knows no '{name}'")
    # What `hpsv2.img_score.initialize_model` asks for, without the weights.
    model, _, preprocess = factory.create_model_and_transforms(
        name, None, precision="amp", light_augmentation=True, aug_cfg={}, output_dict=True
    )
    return model, preprocess, factory.get_tokenizer(name)


def _import_factory() -> Any:
    with _missing_parts():
        from hpsv2.src.open_clip import factory
    return factory


@contextmanager
def _missing_parts() -> Iterator[None]:
    """What hpsv2's import needs and its wheel or the system may lack.

    Its wheel lacks the BPE table, which open_clip has byte for byte; and it imports a name from
    `turtle`, which needs tkinter and is never used.
    """
    opened = gzip.open

    def open_found(filename: Any, *arguments: Any, **keys: Any) -> Any:
        path = Path(filename)
        if path.name == BPE and not path.exists():
            specification = importlib.util.find_spec("open_clip")
            if specification is not None and specification.origin is not None:
                path = Path(specification.origin).with_name(BPE)
        return opened(path, *arguments, **keys)

    turtle = ModuleType("turtle")
    turtle.forward = None  # type: ignore[attr-defined]
    kept = sys.modules.get("turtle")
    sys.modules["turtle"] = turtle
    gzip.open = open_found
    try:
        yield
    finally:
        gzip.open = opened
        sys.modules.pop("turtle")
        if kept is not None:
            sys.modules["turtle"] = kept


REWARD = HPSv2Official
