"""ImageReward by its authors' package, image-reward 1.5: a judge for those who trust no port.

The package needs older libraries than ours, so it has an environment of its own
(workflow/envs/image_reward.yaml). It scores one image at a time; `image_reward` gives the same
numbers in batches.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from bpgo.errors import reading
from bpgo.rewards.image_reward import ImageRewardFiles, published_names, vision_sizes
from bpgo.rewards.shared.published import PublishedReward

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bpgo.records import Samples

COUNTER = "blip.text_encoder.embeddings.position_ids"  # 0, 1, 2, ...: not in every checkpoint


class OfficialSettings(ImageRewardFiles):
    """Keys of an `image_reward_official` reward."""

    kind: Literal["image_reward_official"] = "image_reward_official"


class OfficialImageReward(PublishedReward):
    """The package's own model, preprocessing and score.

    Raises:
        UserError: if a file is missing, broken, or not ImageReward's.
        ImportError: outside its environment.
    """

    Settings = OfficialSettings

    def __init__(self, settings: OfficialSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.settings = settings
        path = settings.checkpoint_file()
        package = _package()
        from bpgo.rewards.shared.checkpoints import load_weights, read_state_dict

        state = read_state_dict(path, settings.what)
        sizes = vision_sizes(published_names(state), path, settings.what)
        self.model = _build(package, settings, sizes, device)
        if COUNTER in (own := self.model.state_dict()):
            state.setdefault(COUNTER, own[COUNTER])
        # The package's own `load` takes what fits and is silent about the rest.
        load_weights(self.model, state, path, settings.what)
        self.model.requires_grad_(False).eval().to(device)

    def score(self, samples: Samples) -> Tensor:
        """The package's score of each image [3, H, W] in [0, 1] and its prompt: [B]."""
        import torch
        from PIL import Image

        from bpgo.rewards.shared.preprocess import stored_levels

        levels = stored_levels(samples.pixels).byte().permute(0, 2, 3, 1).cpu().numpy()
        pairs = zip(samples.texts, map(Image.fromarray, levels), strict=True)
        return torch.tensor([self.model.score(text, image) for text, image in pairs])


def _package() -> Any:
    """The package's module of the model.

    Its `__init__` files import a trainer, data sets, and `clip`, which it does not declare; no
    score needs them. So they are left out: a third of the start-up.
    """
    found = importlib.util.find_spec("ImageReward")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'ImageReward'", name="ImageReward")
    root = found.submodule_search_locations[0]
    for name in ("ImageReward", "ImageReward.models"):
        if name not in sys.modules:
            bare = ModuleType(name)
            bare.__path__ = [str(Path(root, *name.split(".")[1:]))]
            sys.modules[name] = bare
    return importlib.import_module("ImageReward.ImageReward")


def _build(package: Any, settings: OfficialSettings, sizes: dict[str, int], device: str) -> Any:
    """The package's model with our tokenizer's files and the checkpoint's sizes.

    Its code asks the hub for the newest `bert-base-uncased`, and knows no other size than the
    released one.
    """
    blip: Any = importlib.import_module("ImageReward.models.BLIP.blip")
    pretrain: Any = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")
    vit: Any = importlib.import_module("ImageReward.models.BLIP.vit")
    transformers: Any = importlib.import_module("transformers")
    mlp, width = package.MLP, sizes["hidden_size"]
    configuration = str(settings.config_file())
    text_width = transformers.BertConfig.from_json_file(configuration).hidden_size

    def tokenizer(_: str) -> Any:
        folder = settings.tokenizer_folder()
        with reading(f"{settings.what}: the tokenizer in {folder} cannot be read"):
            return transformers.BertTokenizer.from_pretrained(folder)

    def vision(*_: Any) -> tuple[nn.Module, int]:
        tower = vit.VisionTransformer(
            img_size=sizes["image_size"],
            patch_size=sizes["patch_size"],
            embed_dim=width,
            depth=sizes["num_hidden_layers"],
            num_heads=sizes["num_attention_heads"],
        )
        return tower, width

    blip.BertTokenizer = SimpleNamespace(from_pretrained=tokenizer)
    pretrain.create_vit = vision
    package.MLP = lambda _: mlp(text_width)
    try:
        return package.ImageReward(device=device, med_config=configuration)
    finally:
        package.MLP = mlp


REWARD = OfficialImageReward
