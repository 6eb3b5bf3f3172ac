"""HPSv2 and HPSv2.1, human preference scores (Wu et al., arXiv 2306.09341; tgxs002/HPSv2).

Both are an open_clip ViT-H-14 with other weights. The reward is what `hpsv2.score` returns: the
cosine of image and prompt, about 0.2 to 0.35. On a GPU that package rounds it to half precision (in
steps of 0.00024 from 0.25 on); `dtype: float16` here does the same to the forward passes, but not
to the cosine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bpgo.config.fields import Line
from bpgo.errors import UserError
from bpgo.rewards.shared.published import CosineReward, PublishedRewardSettings, Sha256
from bpgo.rewards.shared.tokens import CLIP_TOKENS
from bpgo.storage import hub

if TYPE_CHECKING:
    from torch import Tensor


class HPSv2Settings(PublishedRewardSettings):
    """Keys of an `hpsv2` reward; `path` is the file `HPS_v2.1_compressed.pt` or its like."""

    kind: Literal["hpsv2"] = "hpsv2"
    sha256: Sha256 | None = None  # of the checkpoint
    architecture: Line = "ViT-H-14"  # open_clip's name of it, or a JSON file like open_clip's
    # How images get smaller: filtered, as hpsv2 does with torchvision 0.17 or newer, or not, as it
    # did before.
    antialias: bool = True

    def longest_prompt(self) -> int:
        """CLIP's longest text."""
        return CLIP_TOKENS

    def count_tokens(self, texts: list[str]) -> list[int]:
        """See `RewardSettings.count_tokens`."""
        from bpgo.rewards.shared.tokens import open_clip_tokens

        return open_clip_tokens(texts, f"reward '{self.title}'")


class HPSv2(CosineReward):
    """The published checkpoint in open_clip.

    Raises:
        UserError: there is no such checkpoint, or it is another model's.
    """

    Settings = HPSv2Settings

    def __init__(self, settings: HPSv2Settings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.settings = settings
        what = f"reward '{settings.title}'"
        path = hub.file(settings.path, settings.revision, what, settings.sha256)
        from bpgo.rewards.shared.checkpoints import load_weights, read_state_dict

        configuration = open_clip_configuration(settings.architecture, what)
        self.model, self.tokenize = empty_open_clip(configuration)
        load_weights(self.model, read_state_dict(path, what), path, what)
        self.model = self.model.float().to(device).eval().requires_grad_(False)

    def embed_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to embeddings [B, D]."""
        from bpgo.rewards.shared.preprocess import padded_pixels

        size = self.model.visual.image_size[0]
        embeddings: Tensor = self.model.encode_image(
            padded_pixels(images, size, self.settings.antialias)
        )
        return embeddings

    def embed_text(self, text: str) -> Tensor:
        """One text, cut after 77 tokens, to its embedding [1, D]."""
        embedding: Tensor = self.model.encode_text(self.tokenize([text]).to(self.device))
        return embedding


def open_clip_configuration(architecture: str, what: str) -> dict[str, Any]:
    """An architecture by open_clip's name for it, or from a JSON file of the same form.

    Raises:
        UserError: open_clip knows no such name, or the file is no configuration.
    """
    import open_clip

    if not architecture.endswith(".json"):
        found: dict[str, Any] | None = open_clip.get_model_config(architecture)
        if found is None:
            raise UserError(f"{what}: architecture: open_clip knows no '{architecture}'")
        return found
    from bpgo.storage.files import read_json

    path = hub.file(architecture, None, f"{what}: architecture")
    try:
        configuration: dict[str, Any] = read_json(path)
        complete = {"embed_dim", "vision_cfg", "text_cfg"} <= configuration.keys()
    except (ValueError, AttributeError):
        complete = False
    if not complete:
        raise UserError(f"{what}: architecture: {path} is not a configuration of open_clip")
    return configuration


def empty_open_clip(configuration: dict[str, Any]) -> tuple[Any, Any]:
    """An open_clip model that waits for its weights (on the meta device), and its tokenizer."""
    from accelerate import init_empty_weights
    from open_clip import CLIP, SimpleTokenizer

    with init_empty_weights():
        model = CLIP(**configuration)
    length = configuration["text_cfg"].get("context_length", 77)
    return model, SimpleTokenizer(context_length=length)


REWARD = HPSv2
