"""FLUX.1 and models of its shape (the embedded world's policy is a tiny one)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpgo.core.interfaces import PromptEmbeddings
from bpgo.errors import UserError
from bpgo.files import repository_root
from bpgo.models.lora import add_lora, load_trained, save_trained, trainable, without_lora
from bpgo.scenes.weights import verify
from bpgo.settings import ModelSettings

COMPONENTS = ("transformer", "vae", "scheduler", "text_encoder", "text_encoder_2")


class FluxPolicy:
    """A `FluxPipeline` folder, taken apart: transformer, codec and scheduler.

    Latents are packed as the pipeline packs them: `[B, tokens, channels]`, 2 x 2 patches of the
    codec's latents (diffusers `FluxPipeline._pack_latents`).

    Raises:
        UserError: if the folder or one of its parts is missing or of another class.
    """

    def __init__(
        self, settings: ModelSettings, parameters: str = "full", device: str = "cpu"
    ) -> None:
        # Submodules, not `from diffusers import ...`: the short way imports every model there is.
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
            FlowMatchEulerDiscreteScheduler,
        )

        self.settings = settings
        self.device = torch.device(device)
        self.dtype = getattr(torch, settings.dtype)
        self.folder = _folder(settings)
        self.parameters = parameters
        self.transformer = _load(FluxTransformer2DModel, self.folder, "transformer", self.dtype)
        self.vae = _load(AutoencoderKL, self.folder, "vae", self.dtype)
        self.scheduler = _load(FlowMatchEulerDiscreteScheduler, self.folder, "scheduler")
        self.transformer.to(self.device).eval().requires_grad_(parameters == "full")
        self.vae.to(self.device).eval().requires_grad_(False)
        if parameters == "lora":
            add_lora(self.transformer, settings.lora)
        self.side = settings.resolution // self._patch
        self.latent_shape = (self.side**2, self.transformer.config.in_channels)
        self._image_ids = _grid_ids(self.side).to(self.device, self.dtype)

    def trainable(self) -> dict[str, Tensor]:
        """All weights of the transformer, or the adapter's."""
        return trainable(self.transformer)

    def reference_velocity(self) -> Callable[..., Tensor]:
        """Of a frozen copy; of the model itself with its adapter off, where it has one."""
        if self.parameters == "lora":
            return self._velocity_without_lora
        reference = copy.copy(self)
        reference.transformer = copy.deepcopy(self.transformer).requires_grad_(False)
        return reference.velocity

    def _velocity_without_lora(self, *arguments: Any) -> Tensor:
        with without_lora(self.transformer):
            return self.velocity(*arguments)

    @property
    def _patch(self) -> int:
        """Pixels per token along one side: the codec's reduction times the 2 x 2 packing."""
        return 2 ** len(self.vae.config.block_out_channels)

    def encode_prompts(self, texts: list[str]) -> PromptEmbeddings:
        """T5 tokens `[N, L, D]` and CLIP pooled `[N, D']`, as `FluxPipeline.encode_prompt` does."""
        from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()

        def token_ids(part: str, length: int | None) -> Tensor:
            tokenizer = AutoTokenizer.from_pretrained(self.folder / part)
            encoded = tokenizer(
                texts,
                padding="max_length",
                max_length=length or tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            return encoded.input_ids.to(self.device)

        with torch.no_grad():
            clip = _load(CLIPTextModel, self.folder, "text_encoder", self.dtype).to(self.device)
            pooled = clip.eval()(token_ids("tokenizer", None)).pooler_output
            del clip
            t5 = _load(T5EncoderModel, self.folder, "text_encoder_2", self.dtype).to(self.device)
            tokens = t5.eval()(token_ids("tokenizer_2", self.settings.prompt_tokens))[0]
        return PromptEmbeddings(tokens, pooled)

    def sigmas(self, steps: int) -> Tensor:
        """The pipeline's schedule: `linspace(1, 1/n, n)`, shifted as its configuration says."""
        config = self.scheduler.config
        mu = None
        if config.use_dynamic_shifting:
            tokens = self.latent_shape[0]
            slope = (config.max_shift - config.base_shift) / (
                config.max_image_seq_len - config.base_image_seq_len
            )
            mu = tokens * slope + config.base_shift - slope * config.base_image_seq_len
        base = torch.linspace(1.0, 1.0 / steps, steps).tolist()
        self.scheduler.set_timesteps(sigmas=base, mu=mu, device="cpu")
        return self.scheduler.sigmas.float()

    def velocity(
        self,
        latents: Tensor,
        sigma: Tensor,
        prompts: PromptEmbeddings,
        guidance_scale: float = 1.0,
    ) -> Tensor:
        """`[B, tokens, channels]`; guidance is embedded where the model was distilled for it."""
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = latents.new_full((len(latents),), guidance_scale, dtype=torch.float32)
        text_ids = self._image_ids.new_zeros(prompts.tokens.shape[1], 3)
        output = self.transformer(
            hidden_states=latents.to(self.dtype),
            timestep=sigma.to(self.dtype),
            guidance=guidance,
            pooled_projections=prompts.pooled,
            encoder_hidden_states=prompts.tokens,
            txt_ids=text_ids,
            img_ids=self._image_ids,
            return_dict=False,
        )
        return output[0].float()

    def decode(self, latents: Tensor) -> Tensor:
        """Unpack, undo the codec's scaling, decode; `[B, 3, H, W]` in [0, 1]."""
        batch, _, channels = latents.shape
        side = self.side
        unpacked = latents.view(batch, side, side, channels // 4, 2, 2)
        unpacked = unpacked.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, 2 * side, 2 * side)
        config = self.vae.config
        unpacked = unpacked / config.scaling_factor + config.shift_factor
        images = self.vae.decode(unpacked.to(self.dtype), return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def save(self, folder: Path) -> None:
        """`transformer/` in diffusers layout, or a LoRA that `pipe.load_lora_weights` reads."""
        save_trained(self.transformer, folder, self.parameters)

    def load_trained(self, folder: Path) -> None:
        """Read the weights that `save` wrote; `UserError` if they are missing or do not fit."""
        load_trained(self.transformer, folder, self.parameters)


MODEL = FluxPolicy


def _folder(settings: ModelSettings) -> Path:
    folder = Path(settings.path)
    folder = folder if folder.is_absolute() else repository_root() / folder
    missing = [part for part in COMPONENTS if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"model '{settings.title}': {folder} is not a FluxPipeline folder:"
            f" missing {', '.join(missing)}"
        )
    verify(folder)  # shipped weights have digests
    return folder


def _load(kind: type, folder: Path, part: str, dtype: torch.dtype | None = None):  # type: ignore[no-untyped-def]
    """One part of the pipeline; with `dtype` a model, whose weights must all be there."""
    options: dict[str, Any] = {"subfolder": part, "local_files_only": True}
    if dtype is not None:
        options |= {"torch_dtype": dtype, "output_loading_info": True}
    try:
        loaded = kind.from_pretrained(folder, **options)  # type: ignore[attr-defined]
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / part}: cannot be loaded as {kind.__name__}: {reason}") from None
    if dtype is None:
        return loaded
    model, report = loaded
    if report["missing_keys"]:  # the libraries only warn, and go on with random weights or none
        missing = sorted(report["missing_keys"])
        raise UserError(
            f"{folder / part}: cannot be loaded as {kind.__name__}: {len(missing)} tensors are"
            f" missing, such as {missing[0]}"
        )
    return model


def _grid_ids(side: int) -> Tensor:
    """Positions of the image tokens, `[side * side, 3]`: (0, row, column)."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
