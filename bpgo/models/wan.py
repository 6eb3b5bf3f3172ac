"""Wan 2.1 and 2.2: text to video and image to video, one transformer or two experts."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpgo.config.fields import Task
from bpgo.errors import UserError
from bpgo.interfaces import Guidance, PromptEmbeddings
from bpgo.models import lora
from bpgo.models.guidance import guided, one_scale
from bpgo.models.parts import EULER, find_pipeline, names_part, read_config, read_index
from bpgo.models.pipeline import Modules, PipelinePolicy
from bpgo.models.text import UMT5, cleaned, encode
from bpgo.models.wan_condition import (
    Codec,
    channels_last,
    first_frame_conditions,
    image_tokens,
)
from bpgo.models.wan_experts import Experts

UNIPC = "diffusers.schedulers.scheduling_unipc_multistep:UniPCMultistepScheduler"
PIPELINES = {"t2v": "WanPipeline", "i2v": "WanImageToVideoPipeline"}
IMAGE_PARTS = ("image_encoder", "image_processor")
# Tokens of the prompt where the transformer also attends to an image: diffusers' attention
# processor counts on it.
TEXT_TOKENS = 512


class WanPolicy(PipelinePolicy):
    """A `WanPipeline` or `WanImageToVideoPipeline`; latents are the codec's, `[B, C, F', H', W']`.

    What a folder can do follows from it. Its transformer takes as many channels as the codec has
    (text to video), or also a first frame's latents and their mask (image to video). With
    `expand_timesteps` (Wan2.2-TI2V-5B) it does both: a given first frame takes the place of the
    first latents, which have noise level 0 (a timestep for each token).

    Of two experts (Wan2.2-A14B) `transformer` works at noise levels from `boundary` up and
    `transformer_2` below; both are trained, with an adapter each.

    The sampler is the Euler ODE over the noise levels, be the pipeline's scheduler UniPC or Euler.
    Timesteps are not rounded to whole numbers, as UniPC's are.
    """

    TRANSFORMER = "diffusers.models.transformers.transformer_wan:WanTransformer3DModel"
    CODEC = "diffusers.models.autoencoders.autoencoder_kl_wan:AutoencoderKLWan"
    SCHEDULERS = (UNIPC, EULER)
    SCHEDULES = ("pipeline", "static", "unipc_0_36")
    TWO_PASSES = True
    ENCODERS = ("text_encoder",)
    TASKS: ClassVar[tuple[Task, ...]] = ("t2v", "i2v")

    def find(self) -> Path:
        """As the others; `UserError` too if the folder is for the other task."""
        extras = ("transformer_2", *(IMAGE_PARTS if self.settings.task == "i2v" else ()))
        return find_pipeline(self.settings, tuple(PIPELINES.values()), self.ENCODERS, extras=extras)

    def load(self) -> Modules:
        """As the others; what does not fit is told before the weights are read."""
        index = read_index(self.folder)
        two = names_part(index, "transformer_2")
        self._check_parts(
            read_config(self.folder, "transformer", "in_channels"),
            read_config(self.folder, "vae", "z_dim"),
            index,
            two,
        )
        found = super().load()
        if self.device.type == "cpu":
            channels_last(found.vae)
        second = self.load_transformer("transformer_2") if two else None
        return Modules(found.transformer, found.vae, found.scheduler, second, index)

    def take(self, modules: Modules) -> None:
        """One transformer as the others; of two, the idle one's weights stay on the host."""
        self._check_parts(
            modules.transformer.config,
            modules.vae.config,
            modules.index,
            modules.transformer_2 is not None,
        )
        self.experts: Experts | None = None
        if modules.transformer_2 is None:
            super().take(modules)
            return
        self.boundary = self.settings.boundary or modules.index["boundary_ratio"]
        offload = self.settings.offload_expert and self.device.type != "cpu"
        offload = offload and not self.decodes_only
        place = torch.device("cpu") if offload else self.device
        self.transformer = self.prepared("transformer", modules.transformer, place)
        self.transformer_2 = self.prepared("transformer_2", modules.transformer_2, place)
        self.experts = Experts(
            self.transformer, self.transformer_2, self.boundary, self.device if offload else None
        )

    @property
    def expand(self) -> bool:
        """Whether each token has its own timestep (Wan2.2-TI2V-5B)."""
        return bool(self.index.get("expand_timesteps"))

    @property
    def codec(self) -> Codec:
        """The codec, with the scale of its latents."""
        return Codec(self.vae, self.folder / "vae")

    def codec_reduction(self) -> int:
        """Pixels per latent row."""
        return int(self.vae.config.scale_factor_spatial)

    def token_rows(self) -> int:
        """The transformer makes its own patches."""
        return int(self.config.patch_size[1])

    def shape(self) -> tuple[int, ...]:
        """Channels, frames, rows, columns."""
        return self.codec.channels, self._latent_frames, self.rows, self.columns

    @property
    def _latent_frames(self) -> int:
        frames, each = self.settings.frames, int(self.vae.config.scale_factor_temporal)
        if (frames - 1) % each:
            below = (frames - 1) // each * each + 1
            raise UserError(
                f"{self.what}: frames: {frames} does not fit: a clip has {each} k + 1 frames, such"
                f" as {below} or {below + each}"
            )
        return (frames - 1) // each + 1

    def largest_resolution(self) -> int | None:
        """Its positions are a table."""
        return int(self.config.rope_max_seq_len * self.patch * self.reduction)

    def encode_prompts(
        self, texts: list[str], first_frames: list[Path] | None = None
    ) -> PromptEmbeddings:
        """As the pipelines do: text `[N, L, D]` with zeros for padding, the negative prompt last.

        Image to video: of each first frame the codec's view (see `first_frame_conditions`), and the
        image encoder's, where there is one (Wan2.1).

        Raises:
            UserError: if first frames are missing, or one cannot be read.
        """
        settings = self.settings
        paths = self._checked(texts, first_frames)
        (tokens,) = encode(
            UMT5,
            self.folder,
            self.ENCODERS[0],
            [cleaned(text) for text in [*texts, settings.negative_prompt]],
            settings.prompt_tokens,
            lambda out: (out.last_hidden_state,),
            self.device,
            self.dtype,
            masked=True,
        )
        found = PromptEmbeddings(tokens[:-1], negative_tokens=tokens[-1:])
        if paths is None:
            return found
        condition = first_frame_conditions(self.codec, paths, settings, self.expand)
        tokens_of_images = None
        if self.config.image_dim is not None:
            tokens_of_images = image_tokens(self.folder, paths, self.device).to(self.dtype)
        return PromptEmbeddings(
            found.tokens,
            negative_tokens=found.negative_tokens,
            condition=condition if self.expand else condition.to(self.dtype),
            image_tokens=tokens_of_images,
        )

    def _checked(self, texts: list[str], first_frames: list[Path] | None) -> list[Path] | None:
        """The first frames, where the task has them."""
        if self.settings.task == "t2v":
            return None
        if not first_frames or len(first_frames) != len(texts):
            raise UserError(
                f"{self.what}: task: i2v: each prompt needs a first frame, an image file that"
                " `first_frame` names in the prompts' JSONL file"
            )
        return first_frames

    def even_sigmas(self, steps: int) -> list[float] | None:  # noqa: ARG002
        """None: the pipelines leave the schedule to their scheduler."""
        return None

    def predict(
        self, latents: Tensor, sigma: Tensor, prompts: PromptEmbeddings, guidance_scale: Guidance
    ) -> Tensor:
        """`[B, C, F', H', W']`, guided, by the expert of each sample's noise level.

        Where the first latents are given, their velocity leads straight to them: they arrive
        whatever is trained, and no ratio depends on them.
        """
        if self.experts is None:
            found = self._guided(
                self.transformer, latents, sigma, prompts, one_scale(guidance_scale)
            )
        else:
            found = self.experts.split(self._guided, latents, sigma, prompts, guidance_scale)
        if not self.expand or prompts.condition is None:
            return found
        given = prompts.condition.to(latents.dtype)
        first = (latents[:, :, :1] - given) / sigma.view(-1, 1, 1, 1, 1)
        return torch.cat([first, found[:, :, 1:].to(first.dtype)], dim=2)

    def _guided(
        self,
        transformer: Any,
        latents: Tensor,
        sigma: Tensor,
        prompts: PromptEmbeddings,
        guidance_scale: float,
    ) -> Tensor:
        predict = partial(self._predict, transformer)
        gradient = self.settings.guidance_gradient
        return guided(predict, latents, sigma, prompts, guidance_scale, gradient)

    def _predict(
        self, transformer: Any, latents: Tensor, sigma: Tensor, prompts: PromptEmbeddings
    ) -> Tensor:
        condition, timestep = prompts.condition, sigma * self.scheduler.config.num_train_timesteps
        if self.expand:
            noisy = torch.ones_like(latents[0, 0, :, :: self.patch, :: self.patch])
            if condition is not None:
                latents = torch.cat([condition.to(latents.dtype), latents[:, :, 1:]], dim=2)
                noisy[0] = 0
            timestep = timestep[:, None] * noisy.flatten()
        elif condition is not None:
            latents = torch.cat([latents, condition.to(latents.dtype)], dim=1)
        output = transformer(
            hidden_states=latents.to(self.dtype),
            timestep=timestep,
            encoder_hidden_states=prompts.tokens,
            encoder_hidden_states_image=prompts.image_tokens,
            return_dict=False,
        )
        velocity: Tensor = output[0]
        return velocity

    def unpack(self, latents: Tensor) -> Tensor:
        """They are the codec's already."""
        return latents

    def unscaled(self, latents: Tensor) -> Tensor:
        """Undo the normalisation of each channel."""
        return self.codec.unscaled(latents)

    def arranged(self, decoded: Tensor) -> Tensor:
        """Frames before channels."""
        return decoded.float().transpose(1, 2)

    def trainable(self) -> dict[str, Tensor]:
        """As the others; of two experts `transformer.*` and `transformer_2.*`."""
        return super().trainable() if self.experts is None else self.experts.trainable()

    def without_lora(self) -> AbstractContextManager[Any]:
        """Of two experts both adapters are off."""
        stack = ExitStack()
        for transformer in self.experts.both if self.experts else [self.transformer]:
            stack.enter_context(lora.without_lora(transformer))
        return stack

    def save(self, folder: Path) -> None:
        """As the others; the second expert's adapter is in `transformer_2/`.

        `pipe.load_lora_weights(folder)` and `pipe.load_lora_weights(folder / "transformer_2",
        load_into_transformer_2=True)` read them.
        """
        super().save(folder)
        if self.experts is not None:
            lora.save_lora(self.transformer_2, folder / "transformer_2", self.pipeline)

    def load_trained(self, folder: Path) -> None:
        """Read the weights that `save` wrote; `UserError` if they are missing or do not fit."""
        super().load_trained(folder)
        if self.experts is not None:
            lora.load_lora(self.transformer_2, folder / "transformer_2")

    @property
    def pipeline(self) -> str:
        """Its class in diffusers."""
        return PIPELINES[self.settings.task]

    def _check_parts(
        self, transformer: Any, vae: Any, index: dict[str, Any], two_experts: bool
    ) -> None:
        """The task, the experts and the prompt's length fit what is there."""
        task, settings = self.settings.task, self.settings
        inputs, latents = transformer["in_channels"], vae["z_dim"]
        takes_frames = inputs != latents
        if not index.get("expand_timesteps") and takes_frames != (task == "i2v"):
            able = "i2v" if takes_frames else "t2v"
            raise UserError(
                f"{self.what}: task: {task}: {self.folder} can do {able} only: its transformer has"
                f" {inputs} input channels, and its codec {latents}"
            )
        if transformer.get("image_dim") is not None and settings.prompt_tokens != TEXT_TOKENS:
            raise UserError(
                f"{self.what}: prompt_tokens: {settings.prompt_tokens}: a transformer that also"
                f" takes an image encoder's tokens needs {TEXT_TOKENS}"
            )
        if not two_experts and settings.boundary is not None:
            raise UserError(
                f"{self.what}: boundary: {settings.boundary:g}: there is one transformer, and no"
                " second expert to hand over to; leave it out"
            )
        if two_experts and (settings.boundary or index.get("boundary_ratio")) is None:
            raise UserError(
                f"{self.what}: boundary: there are two experts, and model_index.json has no"
                " boundary_ratio: give the noise level between them, above 0 and below 1"
            )
        if two_experts and self.parameters == "full":
            raise UserError(
                f"{self.what}: training.parameters: full: of two experts only adapters can be"
                " trained: set training.parameters to lora"
            )


MODEL = WanPolicy
