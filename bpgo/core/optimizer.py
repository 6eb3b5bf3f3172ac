"""AdamW without waiting for a compiler that is not used."""

from __future__ import annotations

from inspect import unwrap

import torch


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` to the bit.

    torch wraps these methods to keep its compiler out, and for that imports the compiler: two
    seconds of every process. Nothing is compiled here, so they are called without the wrapping.
    """

    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
