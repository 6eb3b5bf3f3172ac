"""A configured model's size and speed, in numbers that need no weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from bpgo.config.settings import Settings
from bpgo.core.arm import BASE, Arm
from bpgo.errors import UserError
from bpgo.storage import hub
from bpgo.tools.architectures import Architecture, architecture_of
from bpgo.tools.planning.counts import (
    IMAGE_TOKENS,
    WAN,
    Transformer,
    decoder,
    latent_shape,
    transformer,
)
from bpgo.tools.planning.work import arms_of, gradient_passes

CLIP_TOKENS = 77  # of Stable Diffusion 3, beside T5's
GB = 1e9
BYTES = {"float32": 4, "bfloat16": 2}

FURTHER = "further policies"  # of the arm that keeps most
ASIDE = "trained weights set aside"  # while an average's are in their place
# Bytes of a trained parameter: float32 weight and gradient, and the optimizer's two averages.
TRAINED_BYTES = {"adamw": 16, "adamw_8bit": 10}
# Values that a block keeps for its backward pass, per token and width of the model; measured on
# FLUX.1-dev's and Stable Diffusion 3.5's architectures without weights (`saved_tensors_hooks`).
KEPT = {"full": 30, "lora": 18}
# Wan's, whose norms and residuals are float32; measured in the same way, on blocks of its shapes.
WAN_KEPT = {"full": 49, "lora": 26}
# What the codec keeps at its fullest moment: about eight times its narrowest width for each pixel.
CODEC_WIDTHS = 8
# Of Wan's codec: it decodes four frames at a time, and each of its convolutions keeps two frames.
# Estimated from its layers, not measured.
WAN_CODEC_WIDTHS = 56
TILE = 256  # pixels along one side, where the codec decodes in tiles
PROCESS = 1.0  # gigabytes: Python with its libraries
# Of a GPU's memory, what the driver, kernels and fragments leave.
USABLE = 0.92


@dataclass(frozen=True)
class Memory:
    """Gigabytes on one device while training."""

    standing: dict[str, float]  # there all the time
    passing: dict[str, float]  # one after the other: texts, images, the update
    per_sample: float  # for each sample of a batch, in the update

    @property
    def least(self) -> float:
        """With one sample in a forward pass."""
        return sum(self.standing.values()) + max(*self.passing.values(), self.per_sample)

    def with_further(self, further: float, aside: float) -> Memory:
        """The same with other further policies, and so much set aside while one computes."""
        return replace(
            self,
            standing=self.standing | {FURTHER: further},
            passing=self.passing | {ASIDE: aside},
        )

    def training(self, batch: int) -> float:
        """Of an iteration with `batch` samples in a forward pass; texts were encoded before."""
        return sum(self.standing.values()) + max(self.passing["decoding"], batch * self.per_sample)

    def batch_that_fits(self, gigabytes: float) -> int:
        """Samples in one forward pass on a device of this size; 0 if not even one."""
        if gigabytes * USABLE < self.least:
            return 0
        return int((gigabytes * USABLE - sum(self.standing.values())) / self.per_sample)


@dataclass(frozen=True)
class ModelSize:
    """The configured model at the configured resolution."""

    architecture: Architecture
    transformer: Transformer
    decoder_flops: float  # for one image or clip
    decoder_parameters: int
    lora: bool  # whether an adapter is trained, or all weights
    trained: int  # parameters
    text_tokens: int
    pixels: int  # of an image, or of all frames of a clip
    condition: int  # values that a first frame adds to a text's embeddings
    bytes: int  # of a value of the computation
    latents: int  # values of one sample's latents

    @property
    def update_flops(self) -> float:
        """Forward and backward pass of one sample."""
        return self.transformer.training_flops(self.lora)

    @property
    def policy_bytes(self) -> int:
        """Of a trained policy's file."""
        return 4 * self.trained

    @property
    def latent_bytes(self) -> int:
        """Of one sample's latents in a file."""
        return 4 * self.latents

    @property
    def embedding_bytes(self) -> int:
        """Of one text's embeddings."""
        found = self.architecture
        values = self.text_tokens * found.text_width + (found.pooled_width or 0)
        return self.bytes * int(values + self.condition)


def model_size(settings: Settings) -> ModelSize:
    """The size of a configuration's model.

    Raises:
        UserError: if neither its folder nor a published architecture tells it.
    """
    model = settings.model
    place = hub.present(model.path, model.revision)
    found = architecture_of(model, place)
    try:
        if found is not None:
            return size_of(settings, found)
    except (KeyError, TypeError, ValueError, RuntimeError):  # another pipeline, or what it refuses
        pass
    raise UserError(
        f"model '{model.title}': {model.path} is not on this machine whole, and its architecture is"
        " not among those this program knows: its cost cannot be told"
    )


def size_of(settings: Settings, found: Architecture) -> ModelSize:
    """The size of an architecture at a configuration's resolution, text length and adapter."""
    model = settings.model
    latents = latent_shape(found.vae, model.resolution, model.columns, model.frames)
    text = text_tokens(settings, found)
    layers = transformer(found, latents, text)
    operations, parameters = decoder(found, latents)
    lora = settings.training.parameters == "lora"
    adapter = layers.lora_parameters(model.lora.rank, model.lora.targets)
    return ModelSize(
        architecture=found,
        transformer=layers,
        decoder_flops=operations,
        decoder_parameters=parameters,
        lora=lora,
        trained=found.experts * (adapter if lora else layers.parameters),
        text_tokens=text,
        pixels=model.resolution * model.columns * model.frames,
        condition=_condition(settings, found),
        bytes=BYTES[model.dtype],
        latents=prod(latents) * int(found.vae.get("latent_channels") or found.vae.get("z_dim", 16)),
    )


def text_tokens(settings: Settings, found: Architecture) -> int:
    """Tokens of a prompt as the transformer gets them."""
    clip = CLIP_TOKENS if found.pipeline == "StableDiffusion3Pipeline" else 0
    return settings.model.prompt_tokens + clip


def sample_size(settings: Settings) -> str:
    """Of a sample, in words."""
    model = settings.model
    frames = f"{model.frames} frames of " if model.makes == "video" else ""
    return f"{frames}{model.columns} x {model.resolution} pixels"


def _condition(settings: Settings, found: Architecture) -> int:
    """Values of what a first frame becomes; 0 where there is none."""
    model, vae = settings.model, found.vae
    if model.task != "i2v":
        return 0
    frames, rows, columns = latent_shape(vae, model.resolution, model.columns, model.frames)
    if found.index.get("expand_timesteps"):  # the first latents alone
        return int(vae["z_dim"] * rows * columns)
    channels = vae["scale_factor_temporal"] + vae["z_dim"]
    beside = channels * frames * rows * columns
    return int(beside + IMAGE_TOKENS * (found.transformer.get("image_dim") or 0))


def memory(settings: Settings, size: ModelSize) -> Memory:
    """Memory of a training run, the rewards that it scores with included."""
    training, layers = settings.training, size.transformer
    weights = size.bytes * layers.parameters
    trained = (TRAINED_BYTES[training.optimizer] + 4 * (training.ema_decay > 0)) * size.trained
    if not size.lora:  # autocast keeps a copy of the weights in its own type
        weights = 0 if size.bytes == 4 else weights
    weights *= _experts_on_device(settings, size)
    table = WAN_KEPT if size.architecture.pipeline in WAN else KEPT
    blocks, kept = layers.blocks, table["lora" if size.lora else "full"]
    values = layers.tokens * layers.width
    if getattr(
        settings.model, "gradient_checkpointing", False
    ):  # each block's input, and one block in full
        activations = size.bytes * values * (blocks + kept)
    else:
        activations = size.bytes * values * blocks * kept
    rewards = settings.settings_of(
        [
            name
            for experiment in settings.experiments.values()
            for name in (experiment.training_reward, *experiment.diagnostics)
        ]
    )
    arms = arms_of(settings)
    further = [sum(further_bytes(settings, size, arm).values()) for arm in arms]
    aside = 4 * size.trained if any(arm.averages() for arm in arms) else 0
    shards = _shards(settings)
    standing = {
        "transformer": weights / shards,
        "trained weights, gradients, optimizer": trained / shards,
        FURTHER: max(further, default=0) / shards,
        "image decoder": BYTES[settings.model.vae_dtype] * size.decoder_parameters,
        "rewards": GB * sum(reward.gigabytes for reward in rewards.values()),
    }
    passing = {
        "text encoder": size.bytes * size.architecture.text_parameters,
        "image encoder": 4 * size.architecture.image_parameters,
        "decoding": _decoding_bytes(settings, size),
        ASIDE: aside / shards,
    }
    return Memory(
        {name: value / GB for name, value in standing.items()},
        {name: value / GB for name, value in passing.items()},
        gradient_passes(settings) * activations / GB,
    )


def further_bytes(settings: Settings, size: ModelSize, arm: Arm) -> dict[str, int]:
    """Bytes of the policies that a run of this arm keeps beside the trained one, by name.

    Moving averages of the trained weights, and the base policy, which an adapter has in itself.
    They are spread over the GPUs of a run where its weights are.
    """
    found = dict.fromkeys(arm.averages(), 4 * size.trained)
    if BASE in arm.others() and not size.lora:
        found[BASE] = 4 * size.transformer.parameters * _experts_on_device(settings, size)
    return found


def arms_that_do_not_fit(
    settings: Settings, size: ModelSize, gigabytes: float
) -> dict[str, tuple[dict[str, float], float]]:
    """Arms whose further policies are what a device of this size has no room for.

    By key: each policy's gigabytes on one device, and what training needs with them. Empty where
    training does not fit without them either.
    """
    needed, room, shards = memory(settings, size), gigabytes * USABLE, _shards(settings)
    if needed.with_further(0, 0).least > room:
        return {}
    found = {}
    for name, arm in zip(settings.arms, arms_of(settings), strict=True):
        kept = {k: v / shards / GB for k, v in further_bytes(settings, size, arm).items()}
        aside = 4 * size.trained / shards / GB if arm.averages() else 0
        least = needed.with_further(sum(kept.values()), aside).least
        if least > room:
            found[name] = kept, least
    return found


def host_gigabytes(settings: Settings, size: ModelSize) -> float:
    """Memory of the host for one job: Python, the weights while they load, the text embeddings."""
    texts = max(settings.prompts.train, settings.evaluation.prompts)
    weights = (size.bytes if size.lora else 4) * size.transformer.parameters
    weights *= size.architecture.experts
    return PROCESS + (weights + texts * size.embedding_bytes) / GB


def _shards(settings: Settings) -> int:
    """GPUs that share the weights of a run."""
    return settings.machine.gpus if settings.sharded and settings.machine.gpus else 1


def _decoding_bytes(settings: Settings, size: ModelSize) -> int:
    """Of the codec, for the images that are decoded at a time."""
    model, batch = settings.model, settings.rollout.batch_size
    images = max(1, model.decode_pixels // size.pixels)
    if isinstance(batch, int):
        images = min(images, batch)
    vae = size.architecture.vae
    if size.architecture.pipeline in WAN:
        return images * _clip_bytes(settings, size)
    width = int(vae["block_out_channels"][0])
    return BYTES[model.vae_dtype] * CODEC_WIDTHS * width * images * size.pixels


def _experts_on_device(settings: Settings, size: ModelSize) -> int:
    """Experts whose weights the device holds at a time.

    Both where none waits on the host, or where the samples of an update sit at different steps.
    """
    mixed = any(arm.mixes_steps for arm in arms_of(settings))
    one = settings.model.offload_expert and not mixed
    return 1 if one else size.architecture.experts


def _clip_bytes(settings: Settings, size: ModelSize) -> int:
    """Of Wan's codec while it decodes a clip, which it gathers frame by frame (two copies)."""
    model, vae = settings.model, size.architecture.vae
    sides = (model.resolution, model.columns)
    rows, columns = (min(side, TILE) if model.tile_vae else side for side in sides)
    patch = vae.get("patch_size") or 1  # it works on patches of so many pixels along each side
    width = (vae.get("decoder_base_dim") or vae["base_dim"]) / patch**2
    working = WAN_CODEC_WIDTHS * width * rows * columns
    return int(BYTES[model.vae_dtype] * (working + 2 * 3 * size.pixels))
