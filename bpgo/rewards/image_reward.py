"""ImageReward (Xu et al. 2023, arXiv 2304.05977), on transformers' own BLIP classes.

A ViT reads the image; BERT reads the prompt and attends to the image in every layer; an MLP turns
the prompt's first token into one number. The released checkpoint has the layout of Salesforce's
BLIP; `published_names` maps it. Scores are those of the package image-reward 1.5
(tests/fixtures/rewards/image_reward.json); the package itself is `image_reward_official`.

B images, L = 35 tokens.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bpgo.config.fields import Revision
from bpgo.errors import UserError, reading
from bpgo.rewards.shared.published import PublishedReward, PublishedRewardSettings, Sha256
from bpgo.storage import hub
from bpgo.storage.files import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bpgo.records import Samples

IMAGE_SIZE = 224
PROMPT_TOKENS = 35
HEAD_WIDTH = 64  # of the vision tower: 1024 numbers in 16 heads
# Rewards are standardised by their mean and standard deviation on the authors' test set.
REWARD_MEAN = 0.16717362830052426
REWARD_STD = 1.0333394966054072
TEXT_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
)

# BLIP's projections take no part; the positions are 0, 1, 2, ...
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
# Released names -> ours.
RENAMED = (
    ("blip.visual_encoder.cls_token", "vision.embeddings.class_embedding"),
    ("blip.visual_encoder.pos_embed", "vision.embeddings.position_embedding"),
    ("blip.visual_encoder.patch_embed.proj", "vision.embeddings.patch_embedding"),
    ("blip.visual_encoder.norm.", "vision.post_layernorm."),
    ("blip.visual_encoder.blocks.", "vision.encoder.layers."),
    ("blip.text_encoder.", "text."),
    ("mlp.layers.", "mlp."),
)
RENAMED_IN_BLOCKS = (
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
)


class ImageRewardFiles(PublishedRewardSettings):
    """The published files, read by this port and by the official package; `path`: the checkpoint.

    Each is a local path or a place on the hub (see `bpgo.storage.hub`).
    """

    sha256: Sha256 | None = None  # of the checkpoint
    config: str  # med_config.json: the text tower's sizes
    tokenizer: str  # folder with BERT's vocab.txt
    tokenizer_revision: Revision | None = None  # commit of the tokenizer's repository on the hub

    @property
    def what(self) -> str:
        """How messages name it."""
        return f"reward '{self.title}'"

    def checkpoint_file(self) -> Path:
        """Where the checkpoint lies; `UserError` if it cannot be had."""
        return hub.file(self.path, self.revision, self.what, self.sha256)

    def config_file(self) -> Path:
        """Where the text tower's configuration lies; likewise."""
        return hub.file(self.config, self.revision, f"{self.what}: config")

    def tokenizer_folder(self) -> Path:
        """Where `vocab.txt` lies; likewise."""
        what = f"{self.what}: tokenizer"
        folder = hub.folder(self.tokenizer, self.tokenizer_revision, what, ["vocab.txt"])
        if not (folder / "vocab.txt").is_file():
            raise UserError(f"{what}: there is no vocab.txt in {folder}")
        return folder

    def longest_prompt(self) -> int:
        """What the published code reads of a prompt."""
        return PROMPT_TOKENS

    def count_tokens(self, texts: list[str]) -> list[int]:
        """See `RewardSettings.count_tokens`."""
        from bpgo.rewards.shared.tokens import transformers_tokens

        place = (self.tokenizer, self.tokenizer_revision)
        return transformers_tokens(*place, self.what, texts, "BertTokenizer")


class ImageRewardSettings(ImageRewardFiles):
    """Keys of an `image_reward` reward."""

    kind: Literal["image_reward"] = "image_reward"


class ImageReward(PublishedReward):
    """ImageReward's standardised score.

    Raises:
        UserError: if a file is missing, broken, or not ImageReward's.
    """

    Settings = ImageRewardSettings

    def __init__(self, settings: ImageRewardSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.settings = settings
        path, folder = settings.checkpoint_file(), settings.tokenizer_folder()
        text = text_sizes(settings)
        from transformers import BertTokenizer

        from bpgo.rewards.shared.checkpoints import load_weights, read_state_dict

        state = published_names(read_state_dict(path, settings.what))
        self.model = build(vision_sizes(state, path, settings.what), text)
        load_weights(self.model, state, path, settings.what)
        self.model.float().to(device).eval().requires_grad_(False)
        with reading(f"{settings.what}: the tokenizer in {folder} cannot be read"):
            self.tokenizer = BertTokenizer.from_pretrained(folder)
        # BLIP's two own tokens: a prompt that spells one means it.
        self.tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        self.tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})

    def score(self, samples: Samples) -> Tensor:
        """As the call itself, for at most `batch_size` samples on the reward's device."""
        from bpgo.rewards.shared.preprocess import clip_pixels

        ids, mask = self._tokens(samples.texts)
        pixels = clip_pixels(samples.pixels, IMAGE_SIZE, crop_rounds=True)
        with self.autocast():
            seen = self.model["vision"](pixels).last_hidden_state
            read = self.model["text"](ids, attention_mask=mask, encoder_hidden_states=seen)
        rewards: Tensor = self.model["mlp"](read.last_hidden_state[:, 0].float()).squeeze(1)
        return (rewards - REWARD_MEAN) / REWARD_STD

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask, both [B, L]."""
        found = self.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=PROMPT_TOKENS,
            return_tensors="pt",
        )
        return found.input_ids.to(self.device), found.attention_mask.to(self.device)


def published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a released checkpoint by our modules' names, without the unused ones."""
    return {_renamed(name): value for name, value in state.items() if not name.startswith(UNUSED)}


def _renamed(name: str) -> str:
    for theirs, ours in RENAMED:
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    if name.startswith("vision.encoder."):
        for theirs, ours in RENAMED_IN_BLOCKS:
            name = name.replace(theirs, ours)
    return name


def vision_sizes(state: dict[str, Tensor], path: Path, what: str) -> dict[str, int]:
    """The ViT's sizes, read off its tensors; the release states them only in code.

    Raises:
        UserError: if a tensor is missing, so that this is another checkpoint.
    """
    try:
        width, _, patch, _ = state["vision.embeddings.patch_embedding.weight"].shape
        intermediate, _ = state["vision.encoder.layers.0.mlp.fc1.weight"].shape
    except (KeyError, ValueError) as error:
        raise UserError(f"{what}: {path} is not its checkpoint: no such tensor: {error}") from None
    layers = [re.match(r"vision\.encoder\.layers\.(\d+)\.", name) for name in state]
    return {
        "hidden_size": width,
        "intermediate_size": intermediate,
        "num_hidden_layers": 1 + max(int(found[1]) for found in layers if found),
        "num_attention_heads": width // HEAD_WIDTH,
        "image_size": IMAGE_SIZE,
        "patch_size": patch,
    }


def text_sizes(settings: ImageRewardFiles) -> dict[str, Any]:
    """The text tower's sizes, from the released `med_config.json`.

    Raises:
        UserError: if the file is broken or lacks one.
    """
    path = settings.config_file()
    try:
        values = read_json(path)
        return {key: values[key] for key in TEXT_SIZES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{settings.what}: {path} cannot be read as a BERT configuration: {reason}"
        ) from None


def build(vision: dict[str, int], text: dict[str, Any]) -> nn.ModuleDict:
    """The three parts, without weights."""
    from torch import nn
    from transformers.models.blip.configuration_blip import BlipTextConfig, BlipVisionConfig
    from transformers.models.blip.modeling_blip import BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    # timm's ViT normalises with 1e-6; BLIP's classes would take 1e-5.
    vision_config = BlipVisionConfig(**vision, hidden_act="gelu", layer_norm_eps=1e-6)
    text_config = BlipTextConfig(
        **text, encoder_hidden_size=vision["hidden_size"], bos_token_id=None
    )
    # The dropouts do nothing here but count in the layers' names.
    mlp = nn.Sequential(
        nn.Linear(text["hidden_size"], 1024),
        nn.Dropout(),
        nn.Linear(1024, 128),
        nn.Dropout(),
        nn.Linear(128, 64),
        nn.Dropout(),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )
    return nn.ModuleDict(
        {
            "vision": BlipVisionModel(vision_config),
            "text": BlipTextModel(text_config, add_pooling_layer=False),
            "mlp": mlp,
        }
    )


REWARD = ImageReward
