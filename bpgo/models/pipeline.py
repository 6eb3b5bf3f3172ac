"""What the policies share: a diffusers pipeline taken apart into transformer, codec, scheduler.

Latents, velocities and log-probabilities are float32. With `dtype: bfloat16` the transformer
computes in bfloat16, and weights that are trained are kept in float32, as DanceGRPO
(`train_grpo_flux.py`, float32 under FSDP) and Flow-GRPO (`train_flux.py`, accelerate's mixed
precision) keep them. A whole transformer then computes under autocast; one with an adapter is
stored in bfloat16, and computes what the pipeline does with the adapter loaded.
"""

from __future__ import annotations

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpgo.config.fields import Schedule, Task
from bpgo.config.model import ModelSettings
from bpgo.errors import UserError, reading
from bpgo.interfaces import Guidance, PromptEmbeddings
from bpgo.models import lora
from bpgo.models.parts import (
    EULER,
    find_pipeline,
    load_model,
    load_scheduler,
    read_index,
    without_weights,
)
from bpgo.models.rotary import use_complex_rotary
from bpgo.models.schedules import NoiseLevels, noise_levels
from bpgo.seeding import derive_seed

AUTOENCODER = "diffusers.models.autoencoders.autoencoder_kl:AutoencoderKL"


@dataclass(frozen=True)
class Modules:
    """The parts of a pipeline that train and sample: read from a folder, or made by a benchmark.

    `transformer_2` is a second expert, for low noise; `index` is what `model_index.json` says.
    """

    transformer: Any
    vae: Any
    scheduler: Any
    transformer_2: Any = None
    index: dict[str, Any] = field(default_factory=dict)


class PipelinePolicy(ABC):
    """A policy from a pipeline folder; a model's file states the class variables and methods below.

    Args:
        settings: which pipeline, and how it computes.
        parameters: what is trained, `full` or `lora`.
        device: of the transformer and the codec.
        modules: instead of those in the folder `settings.path`, which then need not exist.
        seed: the run's; an adapter's first weights follow from it.
        decodes_only: of the transformer nothing but the configuration is read; all that a policy
            then can do is to `decode`.

    Raises:
        UserError: if the pipeline or a part is missing, gated, partial or of another class, or the
            resolution does not fit it.
    """

    PIPELINE: ClassVar[str]  # its class in diffusers
    TRANSFORMER: ClassVar[str]  # module:class
    CODEC: ClassVar[str] = AUTOENCODER
    SCHEDULERS: ClassVar[tuple[str, ...]] = (EULER,)
    SCHEDULES: ClassVar[tuple[Schedule, ...]] = ("pipeline", "static")
    TWO_PASSES: ClassVar[bool] = False  # whether guidance is a forward pass of its own
    ENCODERS: ClassVar[tuple[str, ...]]
    OPTIONAL_ENCODER: ClassVar[str | None] = None
    TASKS: ClassVar[tuple[Task, ...]] = ("t2i",)
    channel_dimension: ClassVar[int] = 1  # of a batch of latents
    boundary: float | None = None  # noise level between two experts, where there are two

    def __init__(
        self,
        settings: ModelSettings,
        parameters: str = "full",
        device: str = "cpu",
        modules: Modules | None = None,
        seed: int = 0,
        decodes_only: bool = False,
    ) -> None:
        self.settings, self.parameters, self.seed = settings, parameters, seed
        self.decodes_only = decodes_only
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        self._check_task()
        self._check_guidance()
        if modules is None:
            self.folder = self.find()
            modules = self.load()
        else:
            self.folder = Path(settings.path)
            self.levels = self.noise_levels(modules.scheduler)
        self.scheduler = modules.scheduler
        self.index = modules.index
        self.vae = modules.vae.to(self.device).eval().requires_grad_(False)
        if settings.tile_vae:
            self.vae.enable_tiling()
        self.take(modules)
        self.config = self.transformer.config
        self.patch = self.token_rows()
        self.reduction = self.codec_reduction()
        if self.reduction < 1:
            raise UserError(f"{self.folder / 'vae'}: makes {self.reduction} pixels of a row")
        self.rows = settings.resolution // self.reduction
        self.columns = settings.columns // self.reduction
        self._check_size()
        self.latent_shape = self.shape()

    @property
    def pipeline(self) -> str:
        """Its class in diffusers."""
        return self.PIPELINE

    @property
    def what(self) -> str:
        """How messages name it."""
        return f"model '{self.settings.title}'"

    def find(self) -> Path:
        """The pipeline's folder; `UserError` if a part is missing."""
        return find_pipeline(self.settings, (self.PIPELINE,), self.ENCODERS, self.OPTIONAL_ENCODER)

    def load(self) -> Modules:
        """What the folder holds, on the host; what does not fit is told before weights are read."""
        scheduler = load_scheduler(self.folder, self.SCHEDULERS)
        self.levels = self.noise_levels(scheduler)
        return Modules(
            self.load_transformer("transformer"),
            load_model(self.CODEC, self.folder, "vae", getattr(torch, self.settings.vae_dtype)),
            scheduler,
            index=read_index(self.folder),
        )

    def noise_levels(self, scheduler: Any) -> dict[bool, NoiseLevels]:
        """Of training (False) and of judging (True)."""
        return {
            judging: noise_levels(self.settings, scheduler, self.SCHEDULES, self.what, judging)
            for judging in (False, True)
        }

    def load_transformer(self, part: str) -> Any:
        """One transformer; weights that are all trained are float32."""
        if self.decodes_only:
            return without_weights(self.TRANSFORMER, self.folder, part)
        dtype = torch.float32 if self.parameters == "full" else self.dtype
        return load_model(self.TRANSFORMER, self.folder, part, dtype)

    def take(self, modules: Modules) -> None:
        """Put what is trained on the device."""
        self.transformer = self.prepared("transformer", modules.transformer, self.device)

    def prepared(self, part: str, transformer: Any, place: torch.device) -> Any:
        """A transformer, ready to be trained, with its adapter if it gets one.

        The adapter is drawn by the run's seed and `part`, which transformer it is: all arms of a
        seed start from the same one. Two experts get different draws, as where one generator draws
        one after the other; equal ones would tie their adapters together for no reason.
        """
        if self.decodes_only:
            return transformer
        transformer = transformer.to(place).eval()
        transformer.requires_grad_(self.parameters == "full")
        if self.parameters == "lora":
            lora.add_lora(transformer, self.settings.lora, derive_seed(self.seed, "lora", part))
        if self.settings.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        if problem := use_complex_rotary(transformer, self.dtype):
            print(
                f"{self.what}: rotary embedding as one complex product is not used: {problem}",
                file=sys.stderr,
                flush=True,
            )
        return transformer

    def codec_reduction(self) -> int:
        """Pixels per latent row: each block of the codec but the last halves the image."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @abstractmethod
    def token_rows(self) -> int:
        """Latent rows along one side of a token of the transformer."""

    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one sample's latents."""

    @abstractmethod
    def encode_prompts(
        self, texts: list[str], first_frames: list[Path] | None = None
    ) -> PromptEmbeddings:
        """Embeddings `[N, ...]` on the host, as the pipeline's own `encode_prompt`."""

    @abstractmethod
    def predict(
        self, latents: Tensor, sigma: Tensor, prompts: PromptEmbeddings, guidance_scale: Guidance
    ) -> Tensor:
        """The velocity at `latents` `[B, ...]` and `sigma` `[B]`, in any dtype."""

    @abstractmethod
    def even_sigmas(self, steps: int) -> list[float] | None:
        """The noise levels that the pipeline hands its scheduler; None: the scheduler's own."""

    @abstractmethod
    def unpack(self, latents: Tensor) -> Tensor:
        """Latents of the policy to those of the codec, `[B, C, rows, rows]`."""

    def largest_resolution(self) -> int | None:
        """Pixels along one side; None: no limit."""
        return None

    def trainable(self) -> dict[str, Tensor]:
        """All weights of the transformer, or the adapter's."""
        return lora.trainable(self.transformer)

    def reference_velocity(self) -> Callable[..., Tensor]:
        """Of a frozen copy; of the model itself with its adapter off, where it has one."""
        if self.parameters == "lora":
            return self._velocity_without_lora
        reference = copy.copy(self)
        reference.transformer = copy.deepcopy(self.transformer).requires_grad_(False)
        return reference.velocity

    def _velocity_without_lora(self, *arguments: Any) -> Tensor:
        with self.without_lora():
            return self.velocity(*arguments)

    def without_lora(self) -> AbstractContextManager[Any]:
        """Inside, the adapter is off."""
        return lora.without_lora(self.transformer)

    def velocity(
        self,
        latents: Tensor,
        sigma: Tensor,
        prompts: PromptEmbeddings,
        guidance_scale: Guidance = 1.0,
    ) -> Tensor:
        """The velocity at `latents` `[B, ...]` and `sigma` `[B]`, float32, same shape."""
        with self._precision():
            return self.predict(latents, sigma, prompts, guidance_scale).float()

    def _precision(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32 or self.parameters == "lora":
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def sigmas(self, steps: int, evaluation: bool = False) -> Tensor:
        """The schedule `[T+1]` of training, or of judging (see `bpgo.models.schedules`)."""
        tokens = (self.rows // self.patch) ** 2
        with reading(f"{self.folder / 'scheduler'}: cannot be used"):
            return self.levels[evaluation].sigmas(steps, tokens, self.even_sigmas(steps))

    def decode(self, latents: Tensor) -> Tensor:
        """Undo the codec's scaling and decode; images `[B, 3, H, W]` or clips, in [0, 1].

        At most `decode_pixels` at a time: the codec takes more memory than the transformer.
        """
        settings = self.settings
        latents = self.unscaled(self.unpack(latents)).to(self.vae.dtype)
        pixels = settings.frames * settings.resolution * settings.columns
        size = max(1, settings.decode_pixels // pixels)
        with reading(f"{self.folder / 'vae'}: cannot be used"):
            parts = [
                self.arranged(self.vae.decode(latents[start : start + size], return_dict=False)[0])
                for start in range(0, len(latents), size)
            ]
        return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)

    def unscaled(self, latents: Tensor) -> Tensor:
        """Latents as the codec makes them, from those that the transformer sees."""
        config = self.vae.config
        found: Tensor = latents / config.scaling_factor + config.shift_factor
        return found

    def arranged(self, decoded: Tensor) -> Tensor:
        """What the codec gives, float32, with its axes in our order."""
        return decoded.float()

    def save(self, folder: Path) -> None:
        """`transformer/` in diffusers layout, or a LoRA that `pipe.load_lora_weights` reads."""
        if self.parameters == "lora":
            lora.save_lora(self.transformer, folder, self.pipeline)
        else:
            lora.save_full(self.transformer, folder)

    def load_trained(self, folder: Path) -> None:
        """Read the weights that `save` wrote; `UserError` if they are missing or do not fit."""
        if self.parameters == "lora":
            lora.load_lora(self.transformer, folder)
        else:
            lora.load_full(self.transformer, folder)

    def _check_task(self) -> None:
        if self.settings.task not in self.TASKS:
            raise UserError(
                f"{self.what}: task: {self.settings.task}: a model of kind '{self.settings.kind}'"
                f" can do {' or '.join(self.TASKS)}"
            )

    def _check_guidance(self) -> None:
        chosen = self.settings.guidance_gradient
        if chosen != "both" and not self.TWO_PASSES:
            raise UserError(
                f"{self.what}: guidance_gradient: {chosen}: guidance of a model of kind"
                f" '{self.settings.kind}' is no forward pass of its own: leave it out"
            )

    def _check_size(self) -> None:
        """Height and width fit the tokens, and images are square."""
        settings, pixels = self.settings, self.reduction * self.patch
        largest = self.largest_resolution()
        for key, wanted in (("resolution", settings.resolution), ("width", settings.columns)):
            problem = ""
            if wanted % pixels:
                problem = f"is not a multiple of {pixels}, the pixels along one side of a token"
            if largest is not None and wanted > largest:
                problem = f"is more than {largest}, the largest that the model has positions for"
            if problem:
                raise UserError(f"{self.what}: {key}: {wanted} {problem}")
        if settings.makes == "image" and settings.columns != settings.resolution:
            raise UserError(
                f"{self.what}: width: {settings.columns}: images are square here; leave it out, or"
                f" set it to the resolution, {settings.resolution}"
            )
