"""The short way of importing gives the very same computation."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_world import tiny_policy

from bpgo.config import resolve as config
from bpgo.core.rollout import initial_noise, sample
from bpgo.interfaces import Policy
from bpgo.run.lean_import import MODULES, import_lean
from bpgo.steps import loading
from bpgo.storage.files import repository_root

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
TEXTS = ["a small red circle", "a blue square", "a shape"]


def policy_of(kind: str, folder: str) -> Policy:
    """A tiny FLUX in `folder`, or the shipped Wan."""
    if kind == "flux":
        return tiny_policy(Path(folder))
    settings = config.load(repository_root() / "config" / "scenes_t2v.yaml")
    return loading.load_policy(settings, "cpu", 1)


def fingerprint(policy: Policy) -> str:
    """Digest of embeddings, velocity, gradient and decoded samples."""
    torch.set_num_threads(1)
    latents = initial_noise(policy.latent_shape, 1, "latents", [("p", k) for k in range(3)])
    prompts, sigma = policy.encode_prompts(TEXTS), torch.tensor([0.9, 0.5, 0.1])
    velocity = policy.velocity(latents, sigma, prompts, 1.0)
    velocity.square().mean().backward()
    tensors = [velocity.detach(), *sample(policy, prompts, latents, policy.sigmas(3))]
    gradients = [parameter.grad for parameter in policy.trainable().values()]
    assert any(found is not None for found in gradients)
    tensors += [
        found for found in (*gradients, prompts.tokens, prompts.pooled) if found is not None
    ]
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
from bpgo.run.lean_import import import_lean
import_lean({kind!r})
loaded = {{"transformers", "peft", "scipy", "torch._dynamo"}} & set(sys.modules)
assert not loaded, loaded
assert not [name for name, module in sys.modules.items() if module is None]
lean = {{
    kind: found
    for name, module in list(sys.modules.items())
    for kind, found in vars(module).items()
    if kind in {classes!r} and found.__module__ == name
}}
assert len(lean) == len({classes!r}), lean
import_lean({kind!r})
from test_lean_import import fingerprint, policy_of
print(fingerprint(policy_of({kind!r}, {folder!r})))
import diffusers
assert all(getattr(diffusers, kind) is found for kind, found in lean.items())
"""


@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        ("flux", ["FluxTransformer2DModel", "AutoencoderKL"]),
        ("wan", ["WanTransformer3DModel", "AutoencoderKLWan", "UniPCMultistepScheduler"]),
    ],
)
def test_same_numbers_in_a_fresh_process(tiny_folder: Path, kind: str, classes: list[str]) -> None:
    paths = [str(repository_root()), str(FIXTURES), str(Path(__file__).parent)]
    script = SCRIPT.format(paths=paths, kind=kind, classes=classes, folder=str(tiny_folder))
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[-1] == fingerprint(policy_of(kind, str(tiny_folder)))


@pytest.mark.parametrize("kind", MODULES)
def test_nothing_happens_where_diffusers_is_loaded(kind: str) -> None:
    import diffusers

    before = dict(sys.modules)
    import_lean(kind)
    assert sys.modules == before
    assert sys.modules["diffusers"] is diffusers
