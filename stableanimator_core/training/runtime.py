"""What a run has to do with the machine it runs on: accelerate, signals, and where it starts from."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError
from .checkpoints import checkpoint_to_resume, checkpoints_in
from .logs import LOGGER
from .settings import Settings

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(settings: Settings) -> Accelerator:
    """accelerate's face of this process, as the settings and `accelerate launch` say.

    Raises:
        InputError: accelerate is not installed, or a setting does not work with the kind of parallelism.
    """
    try:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError as error:
        remedy = "install it: pip install 'accelerate>=1.0' (or: pip install -e '.[train]')"
        raise InputError(
            "training", "needs Hugging Face accelerate, which is not installed", remedy
        ) from error
    training = settings.training
    if training.threads:
        torch.set_num_threads(training.threads)
    if training.tf32:
        torch.backends.cuda.matmul.allow_tf32 = True
    accelerator = Accelerator(
        cpu=training.device == "cpu",
        mixed_precision=training.mixed_precision or None,
        gradient_accumulation_steps=training.gradient_accumulation,
        # With one image token some projections take no part in the result, see Trainer._finish_gradients.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    _check_kind(accelerator, settings)
    return accelerator


def _check_kind(accelerator: Accelerator, settings: Settings) -> None:
    """DeepSpeed's and FSDP's parameters lie in parts: what reads them whole is refused."""
    kind = accelerator.distributed_type.value
    plugin: Any = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is not None:  # it asks for the batch size of a data loader, which is ours
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = settings.training.batch_size
    for key, used in (("ema.enabled", settings.ema.enabled), ("validation.every", settings.validation.every)):
        if kind in ("DEEPSPEED", "FSDP") and used:
            raise InputError(key, f"is {used}, which does not work with {kind}", "switch it off")


def starting_point(output: Path, resume: str | None) -> Path | None:
    """The checkpoint to go on from; None for a new run.

    Raises:
        InputError: a new run where there is one already, no such checkpoint, or one that others come after.
    """
    if resume is not None:
        checkpoint = checkpoint_to_resume(output, resume)
        _check_last(output, checkpoint)
        return checkpoint
    if checkpoints_in(output):
        remedy = "go on with --resume, or name another output folder"
        raise InputError("output", f"{output} holds checkpoints of a run already", remedy)
    return None


def _check_last(output: Path, checkpoint: Path) -> None:
    found = checkpoints_in(output)
    if checkpoint in found and checkpoint != found[-1]:
        problem = f"{checkpoint.name} is not the last of {output}; {found[-1].name} comes after it"
        raise InputError("--resume", problem, "remove the later ones, or name another output folder")


def leave_signals_to_the_main_process(_worker: int) -> None:
    """For the processes that read pictures: Ctrl-C reaches them too, and must not end them before the last step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `stop` once; a second SIGINT ends the program at once."""
    before = {}

    def handle(number: int, _frame: Any) -> None:
        LOGGER.info("%s: finishing this step, writing a checkpoint", signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, handle)
    except ValueError:  # not the main thread: signals are somebody else's
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
