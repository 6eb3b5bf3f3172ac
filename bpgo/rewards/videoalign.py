"""VideoAlign's VideoReward (Liu et al., arXiv 2501.13918; KlingTeam/VideoReward): three judgements.

A Qwen2-VL-2B with LoRA reads the clip and a text that asks for visual quality (VQ), motion quality
(MQ) and text alignment (TA); a linear head reads one number at each of three special tokens. Each
is standardized by the mean and standard deviation that the checkpoint's `model_config.json` holds
(published: 3.6757 and 2.2476, 1.1646 and 1.3811, 2.8105 and 2.5121); `overall` is their sum.

Frames: 2 a second (of `clip_fps`), at least 4, an even number, evenly spaced with the first and the
last; 100352 to 200704 pixels each, as published. A clip of two or three frames gives two; a single
frame is taken twice, where the published code fails.

What differs from the authors' code: the LoRA is merged into the weights; the head runs in float32.
As there, tokens are counted 0, 1, 2, ... along all three axes of Qwen2-VL's positions: their model
is trained and run so, because its forward pass never asks for the three-dimensional ones.

The text is the authors' template `detailed_special` (videoalign_prompt.txt), part of the model: MIT
licence, Kling Team. Sources: KlingAIResearch/VideoAlign, `inference.py`, `vision_process.py`,
`prompt_template.py`, `trainer.py`.

B clips, L tokens.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from bpgo.config.fields import Line, Positive, Revision
from bpgo.errors import UserError
from bpgo.rewards.shared import qwen_vl
from bpgo.rewards.shared.published import REMEMBERED, PublishedReward, Sha256
from bpgo.storage import hub
from bpgo.storage.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples
    from bpgo.rewards.shared.clip_frames import PatchGrid
    from bpgo.rewards.shared.videoalign_model import RewardModel

DIMENSIONS = ("VQ", "MQ", "TA")
TOKENS = tuple(f"<|{name}_reward|>" for name in DIMENSIONS)
LEAST_PIXELS = 128 * 28 * 28
BEFORE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
)
AFTER = "<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"

# Several outputs of one checkpoint share its model, and what it said of a clip: in one process two
# judges cost what one costs.
_models: WeakValueDictionary[tuple[Any, ...], RewardModel] = WeakValueDictionary()
_judged: dict[tuple[Any, ...], dict[bytes, Tensor]] = {}


class VideoAlignSettings(qwen_vl.PixelSettings):
    """Keys of a `videoalign` reward; `path` is the folder with `model_config.json`."""

    kind: Literal["videoalign"] = "videoalign"
    checkpoint: Line = "checkpoint-11352"  # the folder in it with model.pth
    sha256: Sha256 | None = None  # of model.pth
    base: str  # folder or repository of Qwen2-VL-2B-Instruct: its sizes and tokenizer
    base_revision: Revision | None = None  # its commit on the hub
    # Visual quality, motion quality, text alignment, or their sum.
    output: Literal["vq", "mq", "ta", "overall"] = "overall"
    fps: Positive | None = None  # frames a second that it sees; None: model_config.json's
    standardize: bool = True  # by model_config.json's means and deviations; false: raw numbers


class VideoAlign(PublishedReward):
    """One output of the published checkpoint.

    Raises:
        UserError: if a file is missing, broken, or not VideoReward's.
    """

    Settings = VideoAlignSettings

    def __init__(self, settings: VideoAlignSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.settings, self.what = settings, f"reward '{settings.title}'"
        place = f"{settings.path}/{settings.checkpoint}/model.pth"
        self.path = hub.file(place, settings.revision, self.what, settings.sha256)
        config = hub.file(f"{settings.path}/model_config.json", settings.revision, self.what)
        self.config = read_model_config(config, self.what)
        self.base = hub.folder(settings.base, settings.base_revision, self.what, qwen_vl.FILES)
        self.tokenizer = qwen_vl.read_tokenizer(self.base, self.what, TOKENS)
        state = self.path.stat()
        self.key = (self.path, state.st_mtime_ns, self.base, settings.dtype, device)
        self.judged = _judged.setdefault(self.key, {})
        self._model: RewardModel | None = None
        if not self.judged:
            self._model = self._load()

    def score(self, samples: Samples) -> Tensor:
        """As the call itself, for at most `batch_size` samples on the reward's device."""
        import torch

        clips, texts = samples.pixels, samples.texts
        levels = self.grid().levels(clips[:, self.frames(clips.shape[1])])
        names = [_name(clip, text) for clip, text in zip(levels, texts, strict=True)]
        new = [k for k, name in enumerate(names) if name not in self.judged]
        if new:
            if len(self.judged) > REMEMBERED:
                self.judged.clear()
                new = list(range(len(names)))
            found = self._judge(levels[new], [texts[k] for k in new])
            self.judged.update(zip((names[k] for k in new), found.cpu(), strict=True))
        judged = torch.stack([self.judged[name] for name in names]).to(clips.device)
        return self._output(judged)

    def frames(self, total: int) -> list[int]:
        """Which of `total` frames it sees."""
        from bpgo.rewards.shared.clip_frames import MOST_FRAMES, by_rate

        fps = self.settings.fps or self.config["fps"]
        return by_rate(total, self.settings.clip_fps, fps, MOST_FRAMES, floor=False)

    def grid(self) -> PatchGrid:
        """How frames are cut into patches."""
        from bpgo.rewards.shared.clip_frames import PatchGrid

        least = self.settings.least_pixels or LEAST_PIXELS
        return PatchGrid(14, least, self.settings.most_pixels or self.config["pixels"])

    def prompt(self, text: str, tokens: int) -> str:
        """All that the model reads, with the clip as `tokens` tokens."""
        question = template().replace("{text_prompt}", text)
        return BEFORE + qwen_vl.PAD * tokens + AFTER.replace("{question}", question)

    def _judge(self, levels: Tensor, texts: list[str]) -> Tensor:
        """Raw VQ, MQ and TA [B, 3] of clips as levels [B, F, 3, H, W]."""
        from bpgo.rewards.shared.clip_frames import MERGED, normalised
        from bpgo.rewards.shared.preprocess import CLIP_MEAN, CLIP_STD

        if self._model is None:
            self._model = self._load()
        patches, grid = self.grid().patches(normalised(levels, CLIP_MEAN, CLIP_STD))
        count = int(grid[0].prod()) // MERGED**2
        read = self.tokenizer(
            [self.prompt(text, count) for text in texts], padding=True, return_tensors="pt"
        ).to(self.device)
        marks = self.tokenizer.convert_tokens_to_ids(list(TOKENS))
        return self._model(read.input_ids, read.attention_mask, patches, grid, marks)

    def _output(self, judged: Tensor) -> Tensor:
        if self.settings.standardize:
            mean, std = (judged.new_tensor(self.config[key]) for key in ("mean", "std"))
            judged = (judged - mean) / std
        if self.settings.output == "overall":
            return judged.sum(dim=1)
        return judged[:, DIMENSIONS.index(self.settings.output.upper())]

    def _load(self) -> RewardModel:
        from bpgo.rewards.shared.videoalign_model import load_model

        model = _models.get(self.key)
        if model is None:
            place = (self.device, self.settings.dtype)
            model = load_model(self.path, self.base, self.config["scale"], place, self.what)
            if len(self.tokenizer) > model.words:
                raise UserError(
                    f"{self.what}: {self.path} knows {model.words} tokens, but the tokenizer in"
                    f" {self.base} has {len(self.tokenizer)}: it is another model's"
                )
            _models[self.key] = model
        return model


def _name(levels: Tensor, text: str) -> bytes:
    """What a clip and its text are remembered by."""
    import torch

    found = hashlib.sha256(repr((tuple(levels.shape), text)).encode())
    found.update(levels.to(torch.uint8).cpu().numpy().tobytes())
    return found.digest()


@cache
def template() -> str:
    """The authors' question, with `{text_prompt}` where the prompt goes."""
    return Path(__file__).with_name("videoalign_prompt.txt").read_text(encoding="utf-8")


def read_model_config(path: Path, what: str) -> dict[str, Any]:
    """From `model_config.json`: frames a second, pixels, LoRA scale, means and deviations.

    Raises:
        UserError: if the file is broken, or describes a model that is read in another way.
    """
    try:
        values = read_json(path)
        data, lora, inference = (
            values[f"{name}_config"] for name in ("data", "peft_lora", "inference")
        )
        kinds = (data["prompt_template_type"], values["model_config"]["reward_token"])
        rank = float(lora["lora_r"])
        found = {
            "fps": float(data["fps"]),
            "pixels": int(data["max_frame_pixels"]),
            "scale": float(lora["lora_alpha"]) / (rank**0.5 if lora.get("use_rslora") else rank),
            "mean": [float(inference[f"{name}_mean"]) for name in DIMENSIONS],
            "std": [float(inference[f"{name}_std"]) for name in DIMENSIONS],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{what}: {path} cannot be read as VideoReward's configuration: {reason}"
        ) from None
    if kinds != ("detailed_special", "special") or data.get("sample_type", "uniform") != "uniform":
        raise UserError(
            f"{what}: {path}: only the prompt template 'detailed_special', the reward token"
            f" 'special' and the sample type 'uniform' are known, not {kinds}"
        )
    return found


REWARD = VideoAlign
