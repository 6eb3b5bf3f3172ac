"""The policy that is trained: where its files are, and how it computes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bpgo.config.fields import (
    Count,
    Few,
    Number,
    Pixels,
    Positive,
    Schedule,
    Strict,
    Task,
    Title,
    each_once,
)
from bpgo.config.published import Published


class LoraSettings(Strict):
    """Low-rank adapters (peft)."""

    rank: Few = 32  # of each adapter
    alpha: Positive = 64.0  # an adapter is scaled by alpha / rank
    # Ends of the names of the layers that get one.
    targets: Annotated[list[str], Field(min_length=1), AfterValidator(each_once)] = Field(
        default=["to_q", "to_k", "to_v", "to_out.0"]
    )


class ModelSettings(Published):
    """The policy: a diffusers pipeline folder or hub repository."""

    kind: str  # key of bpgo.registry.MODELS
    title: Title  # its name in tables and figures
    path: str  # a folder, relative to the clone's root or absolute, or owner/name on the hub
    # Its forward passes compute in; see bpgo.models.pipeline.
    dtype: Literal["float32", "bfloat16"] = "float32"
    vae_dtype: Literal["float32", "bfloat16"] = "float32"  # the codec computes in
    task: Task = "t2i"  # text to image, text to video, image to video
    resolution: Pixels  # height of a sample in pixels
    width: Pixels | None = None  # of a sample in pixels; None: as the height
    frames: Few = 1  # of a clip; 1: images
    frames_per_second: Annotated[Number, Field(gt=0, le=1000)] = 16.0  # of a clip's file
    # Noise levels of training (see bpgo.models.schedules).
    schedule: Schedule = "pipeline"
    flow_shift: Positive | None = None  # shift of these levels; None: the pipeline's own
    evaluation_schedule: Schedule | None = None  # noise levels of judging; None: as in training
    evaluation_flow_shift: Positive | None = None  # likewise
    # Which of guidance's two forward passes the update differentiates, where there are two.
    guidance_gradient: Literal["both", "conditional"] = "both"
    # Noise level at which the first of two experts hands over; None: the pipeline's own.
    boundary: Annotated[Number, Field(gt=0, lt=1)] | None = None
    prompt_tokens: Few  # length to which prompts are padded
    negative_prompt: str = ""  # of classifier-free guidance, where the model has it (Wan)
    gradient_checkpointing: bool = False  # less memory, about a third more time in the update
    # How many are decoded at a time: one image of 1024 x 1024, four of 512 x 512.
    decode_pixels: Count = 2**20
    tile_vae: bool = False  # decode in overlapping tiles: less memory, faint seams
    offload_expert: bool = True  # of two experts the idle one waits on the host (on a GPU)
    lora: LoraSettings = LoraSettings()  # adapters, where training.parameters is `lora`
    # Digest of the embedded world's weights; `resolve` says it.
    content: str | None = None
    source: str = ""  # where it comes from

    @property
    def makes(self) -> Literal["image", "video"]:
        """What its samples are."""
        return "image" if self.task == "t2i" else "video"

    @property
    def columns(self) -> int:
        """The width of its samples in pixels."""
        return self.width or self.resolution
