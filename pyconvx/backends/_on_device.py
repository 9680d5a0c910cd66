"""What the backends that launch the CUDA kernels on a GPU share: chips, workspaces, streams and addresses.

Nothing here has run on a GPU yet. What happens up to the launch itself (routing, plans, arguments, stream, grid, block,
shared memory) is tested with a launcher that writes down what it is asked to do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _C
from ._planned import Planned

NOT_RUN_YET = (
    "its kernels have not been run on a GPU yet, only in the emulator, so it runs what it is asked for by name; "
    "PYCONVX_BACKEND={name} or `with pyconvx.backend({name!r})` does that"
)


class OnDevice(Planned):
    """Base of ``cuda`` and ``cupy``: a plan's launches, put into torch's current stream on the tensors' device."""

    devices = frozenset({"cuda"})
    by_request = True

    def __init__(self) -> None:
        super().__init__()
        self._chips: dict[int, Any] = {}
        self.why_by_request = NOT_RUN_YET.format(name=self.name)

    # What a subclass states.

    def launch(self, step: Any, arguments: bytes, device: torch.device, stream: int) -> None:
        """Put one launch of a plan into a stream: a handle as an integer. ``device`` is current."""
        raise NotImplementedError

    # What a test without a GPU replaces.

    def properties(self, device: torch.device) -> Any:
        """Return what the driver says of a device."""
        return torch.cuda.get_device_properties(device)

    def stream(self, device: torch.device) -> int:
        """Return the handle of torch's current stream on a device."""
        return torch._C._cuda_getCurrentRawStream(device.index)

    def current(self, device: torch.device) -> Any:
        """Return a context in which the device is the current one."""
        return torch.cuda.device(device)

    # What follows from it.

    def tf32(self) -> bool:
        precision: str = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
        return precision == "tf32"

    def chip(self, device: torch.device) -> Any:
        index = 0 if device.index is None else device.index
        chip = self._chips.get(index)
        if chip is None:
            found = self.properties(device)
            chip = self._chips[index] = _C.Device(
                name=found.name,
                capability=10 * found.major + found.minor,
                sms=found.multi_processor_count,
                shared_per_block=found.shared_memory_per_block_optin,
                shared_per_sm=found.shared_memory_per_multiprocessor,
                threads_per_sm=found.max_threads_per_multi_processor,
            )
        return chip

    def run(self, plan: Any, tensors: dict[str, Tensor]) -> None:
        device = next(iter(tensors.values())).device
        # Workspaces come from torch's allocator, which gives them to nobody else in this stream before the launches
        # that use them are done, and keeps them for the next call.
        for name, nbytes in plan.workspaces.items():
            tensors[name] = torch.empty(nbytes, dtype=torch.uint8, device=device)
        addresses = {name: self.address(tensor) for name, tensor in tensors.items()}
        with self.current(device):
            stream = self.stream(device)
            for step in plan.launches:
                self.launch(step, step.arguments(**addresses), device, stream)


def no_device() -> str | None:
    """Return why torch cannot use a CUDA device in this process, None if it can."""
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) was built without CUDA"
    if not torch.cuda.is_available():
        return f"this torch has CUDA {torch.version.cuda}, but finds no device and driver that it can use"
    return None
