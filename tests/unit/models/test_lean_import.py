"""The short way of importing gives the very same computation."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import torch
from tiny_world import CAPTIONS, random_embeddings, tiny_policy

from bpgo.core.rollout import initial_noise, sample
from bpgo.files import repository_root
from bpgo.models.flux import FluxPolicy
from bpgo.models.lean_import import import_lean

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def fingerprint(policy: FluxPolicy) -> str:
    """Digest of velocity, gradient, decoded images and embeddings."""
    torch.set_num_threads(1)
    latents = initial_noise(policy.latent_shape, 1, "latents", [("p", k) for k in range(3)])
    prompts, sigma = random_embeddings(3), torch.tensor([0.9, 0.5, 0.1])
    velocity = policy.velocity(latents, sigma, prompts, 1.0)
    velocity.square().mean().backward()
    tensors = [velocity.detach(), *sample(policy, prompts, latents, policy.sigmas(3))]
    tensors += [parameter.grad for parameter in policy.trainable().values()]
    encoded = policy.encode_prompts(CAPTIONS)
    tensors += [encoded.tokens, encoded.pooled]
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from bpgo.models.lean_import import import_lean
import_lean()
loaded = {{"transformers", "peft", "scipy", "torch._dynamo"}} & set(sys.modules)
assert not loaded, loaded
assert not [name for name, module in sys.modules.items() if module is None]
lean = {{
    kind: vars(sys.modules[module])[kind]
    for module, kind in (
        ("diffusers.models.transformers.transformer_flux", "FluxTransformer2DModel"),
        ("diffusers.models.autoencoders.autoencoder_kl", "AutoencoderKL"),
    )
}}
import_lean()
from tiny_world import tiny_policy
from test_lean_import import fingerprint
print(fingerprint(tiny_policy(Path({folder!r}))))
import diffusers
assert all(getattr(diffusers, kind) is found for kind, found in lean.items())
"""


def test_same_numbers_in_a_fresh_process(tiny_folder: Path) -> None:
    paths = [str(repository_root()), str(FIXTURES), str(Path(__file__).parent)]
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(paths=paths, folder=str(tiny_folder))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[-1] == fingerprint(tiny_policy(tiny_folder))


def test_nothing_happens_where_diffusers_is_loaded() -> None:
    import diffusers

    before = dict(sys.modules)
    import_lean()
    assert sys.modules == before
    assert sys.modules["diffusers"] is diffusers
