"""The training loop, on Hugging Face accelerate: one step function, any number of processes.

Code: `train.py`, Francis-Rings/StableAnimator @ 020e7f2.
Differences: checkpoints are atomic and a resumed run continues bit for bit; parameters without a gradient get one of
zero, so that weight decay reaches them as it does there.
"""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import InputError
from .average import Average
from .cache import fill_cache, load_cache
from .checkpoints import (
    checkpoint_name,
    checkpoint_to_resume,
    checkpoints_in,
    export_pth,
    export_safetensors,
    prune,
    publish,
    read_progress,
    write_json,
)
from .frozen import Frozen
from .logs import LOGGER, Metrics, log_to
from .networks import build_networks, configs_of
from .order import FromPass, Order
from .samples import FromFiles, Samples, Source
from .settings import Optimizer, Settings
from .step import TrainedNetworks, conditions_of
from .videos import Report, Video, find_videos

if TYPE_CHECKING:
    from accelerate import Accelerator

_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class Result:
    """How a run ended: its last step, the checkpoint of it, and whether a signal ended it early."""

    step: int
    checkpoint: Path
    interrupted: bool


def learning_rate(step: int, steps: int, optimizer: Optimizer) -> float:
    """The rate of a step, counted from 0: a linear rise, then constant, linear or half a cosine down to 0."""
    if step < optimizer.warmup_steps:
        return optimizer.learning_rate * (step + 1) / (optimizer.warmup_steps + 1)
    share = (step - optimizer.warmup_steps) / max(1, steps - optimizer.warmup_steps)
    factors = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share))}
    return optimizer.learning_rate * factors[optimizer.schedule]


def train(settings: Settings, resume: str | None = None) -> Result:
    """Train from the beginning or from a checkpoint to `training.steps`.

    Args:
        settings: see `config.read_settings`.
        resume: "latest", a checkpoint's name or its folder.

    Raises:
        InputError: data or settings that cannot be used, or no accelerate.
        WeightsError: a weight file is missing, damaged or another model.
    """
    trainer = Trainer(settings, resume)
    try:
        return trainer.run()
    finally:
        trainer.close()


class Trainer:
    """A run, set up: networks, optimiser, data, and the state of a checkpoint if one is resumed."""

    def __init__(self, settings: Settings, resume: str | None = None):
        self.settings = settings
        self.accelerator = _accelerator(settings)
        main = self.accelerator.is_main_process
        checkpoint = _starting_point(settings.output, resume)
        self.accelerator.wait_for_everyone()
        if main:
            settings.output.mkdir(parents=True, exist_ok=True)
            log_to(settings.output)
        self.buckets = self._videos()
        self.order = Order(
            tuple(map(len, self.buckets)),
            settings.training.batch_size,
            self.accelerator.num_processes,
            settings.training.seed,
        )
        self.frozen: Frozen | None = None
        self.source = self._source()
        self._prepare(build_networks(settings))
        self.step = 0
        if checkpoint is not None:
            self._restore(checkpoint)
        self.metrics = (
            Metrics(settings.output, self.step, tensorboard=settings.log.tensorboard) if main else None
        )
        self.stopping = False

    def run(self) -> Result:
        """Train up to the last step, or until SIGTERM or SIGINT; the last checkpoint is always written."""
        settings, saved = self.settings, self.step if checkpoints_in(self.settings.output) else -1
        batches = self._batches()
        with _signals(self._stop):
            began, first, total = time.monotonic(), self.step, torch.zeros((), device=self.accelerator.device)
            while self.step < settings.training.steps and not self.stopping:
                total += self._train_step(batches)
                self.step += 1
                self.stopping = self._any(self.stopping)
                if self.step % settings.log.every == 0 or self.step == settings.training.steps:
                    self._log(total / (self.step - first), (time.monotonic() - began) / (self.step - first))
                    began, first, total = time.monotonic(), self.step, torch.zeros_like(total)
                if self.step % settings.checkpoints.every == 0:
                    saved = self._save()
                if settings.validation.every and self.step % settings.validation.every == 0:
                    self._validate()
            if saved != self.step:
                self._save()
        checkpoint = settings.output / checkpoint_name(self.step)
        return Result(self.step, checkpoint, self.stopping)

    def close(self) -> None:
        """Write out the metrics and leave the process group."""
        if self.metrics is not None:
            self.metrics.close()
        self.accelerator.end_training()

    # set-up

    def _videos(self) -> list[list[Video]]:
        report = Report()
        try:
            return find_videos(self.settings.data, report)
        finally:
            if self.accelerator.is_main_process:
                report.write(self.settings.output / "data_report.json")
                for line in report.lines():
                    LOGGER.info(line)

    def _source(self) -> Source:
        """The cache, filled; or the files, and the frozen networks for every step."""
        settings, accelerator = self.settings, self.accelerator
        if settings.data.cache is None:
            dtype = _DTYPES.get(accelerator.mixed_precision, torch.float32)
            self.frozen = Frozen.load(settings.networks, accelerator.device, dtype)
            return FromFiles(settings, self.buckets, self.frozen.picture_size)
        share = accelerator.process_index, accelerator.num_processes
        fill_cache(settings, self.buckets, device=accelerator.device, share=share, progress=_report_progress)
        accelerator.wait_for_everyone()
        return load_cache(settings, self.buckets)

    def _prepare(self, networks: TrainedNetworks) -> None:
        settings = self.settings
        learning = [p for p in networks.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            learning,
            lr=settings.optimizer.learning_rate,
            betas=settings.optimizer.betas,
            eps=settings.optimizer.eps,
            weight_decay=settings.optimizer.weight_decay,
        )
        self.configs = configs_of(networks)
        self.networks, self.optimizer = self.accelerator.prepare(networks, optimizer)
        self.learning = learning
        self.average = Average(self._bare(), settings.ema.decay) if settings.ema.enabled else None
        counted = sum(p.numel() for p in learning), sum(p.numel() for p in self._bare().parameters())
        LOGGER.info("%d of %d parameters learn, on %s", *counted, self.accelerator.device)

    def _bare(self) -> TrainedNetworks:
        return cast(TrainedNetworks, self.accelerator.unwrap_model(self.networks))

    def _restore(self, checkpoint: Path) -> None:
        progress = read_progress(checkpoint)
        self.accelerator.load_state(str(checkpoint / "state"))
        if self.average is not None:
            self.average.load(checkpoint / "ema.safetensors")
        self.step = int(progress["step"])
        changed = [key for key, value in self._sampling().items() if progress["sampling"].get(key) != value]
        if changed:
            LOGGER.warning(
                "samples differ from those of an uninterrupted run: changed %s", ", ".join(changed)
            )
        LOGGER.info("resumed %s at step %d", checkpoint.name, self.step)

    def _sampling(self) -> dict[str, Any]:
        """What the order of samples depends on."""
        training, data = self.settings.training, self.settings.data
        return {
            "sizes": list(self.order.sizes),
            "clips per pass": self.order.batch * self.order.processes,
            "gradient_accumulation": training.gradient_accumulation,
            "seed": training.seed,
            "num_frames": data.num_frames,
            "stride": data.stride,
        }

    # steps

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """Collated samples from the present step on."""
        settings, accumulation = self.settings, self.settings.training.gradient_accumulation
        first, last = self.step * accumulation, settings.training.steps * accumulation
        passes = FromPass(self.order, self.accelerator.process_index, first, last)
        workers = 0 if settings.data.cache else settings.data.workers
        loader = DataLoader(
            Samples(self.source, settings, self.order),
            batch_sampler=cast(Any, passes),
            num_workers=workers,
            worker_init_fn=_leave_signals_to_the_main_process,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return iter(loader)

    def _train_step(self, batches: Iterator[dict[str, Tensor]]) -> Tensor:
        """One optimiser step; the mean loss of this process' clips."""
        settings, accelerator = self.settings, self.accelerator
        rate = learning_rate(self.step, settings.training.steps, settings.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rounded = _DTYPES.get(accelerator.mixed_precision, torch.float32)
        losses = []
        for _ in range(settings.training.gradient_accumulation):
            sample = {name: t.to(accelerator.device, non_blocking=True) for name, t in next(batches).items()}
            batch = conditions_of(sample, self.frozen, rounded)
            with accelerator.accumulate(self.networks):
                loss = self.networks(batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    self._finish_gradients()
                self.optimizer.step()
                self.optimizer.zero_grad()
            losses.append(loss.detach())
        if self.average is not None and not accelerator.optimizer_step_was_skipped:
            self.average.step()
        return torch.stack(losses).mean()

    def _finish_gradients(self) -> None:
        # With one image token softmax is constant, and our blocks leave out what asks for it: no gradient is 0.
        for parameter in self.learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.settings.optimizer.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.learning, self.settings.optimizer.max_grad_norm)

    def _stop(self) -> None:
        self.stopping = True

    def _any(self, flag: bool) -> bool:
        """Whether any process says so; all agree on the answer."""
        if self.accelerator.num_processes == 1:
            return flag
        flags = torch.tensor([float(flag)], device=self.accelerator.device)
        return bool(cast(Tensor, self.accelerator.reduce(flags, "sum")).item())

    # output

    def _log(self, loss: Tensor, seconds: float) -> None:
        mean = float(cast(Tensor, self.accelerator.reduce(loss, "mean")))
        if self.metrics is None:
            return
        values = {
            "loss": mean,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds_per_step": seconds,
        }
        if self.accelerator.device.type == "cuda":
            values["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self.metrics.add(self.step, values)
        LOGGER.info("step %d  loss %.4f  %.3f s/step", self.step, mean, seconds)
        if not math.isfinite(mean):
            raise InputError("the loss", f"is {mean} at step {self.step}", "lower the learning rate, or clip")

    def _save(self) -> int:
        """Write a checkpoint; the step."""
        settings, accelerator = self.settings, self.accelerator
        name = checkpoint_name(self.step)
        temporary = settings.output / f".{name}.part"
        if accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(temporary / "state"))
        state = accelerator.get_state_dict(self.networks)
        accelerator.wait_for_everyone()  # all parts are written
        if accelerator.is_main_process:
            self._export(temporary, state)
            publish(temporary, settings.output / name)
            prune(settings.output, settings.checkpoints.keep)
            LOGGER.info("wrote %s", settings.output / name)
        accelerator.wait_for_everyone()
        return self.step

    def _export(self, folder: Path, state: dict[str, Tensor]) -> None:
        best = state
        if self.average is not None:
            best = state | self.average.state()
            self.average.save(folder / "ema.safetensors")
        export_safetensors(folder, best, self.configs, f"StableAnimator, trained to step {self.step}")
        if self.settings.checkpoints.pth:
            export_pth(folder, state, self.configs["unet"])
        settings = _plain(asdict(self.settings))
        write_json(
            folder / "progress.json", {"step": self.step, "sampling": self._sampling(), "settings": settings}
        )

    def _validate(self) -> None:
        if self.accelerator.is_main_process:
            from .validation import validate

            with self.accelerator.autocast():
                validate(
                    self._bare(),
                    self.average,
                    self.settings,
                    self.step,
                    self.metrics,
                    self.accelerator.device,
                )
        self.accelerator.wait_for_everyone()


def _accelerator(settings: Settings) -> Accelerator:
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


def _starting_point(output: Path, resume: str | None) -> Path | None:
    if resume is not None:
        return checkpoint_to_resume(output, resume)
    if checkpoints_in(output):
        remedy = "go on with --resume, or name another output folder"
        raise InputError("output", f"{output} holds checkpoints of a run already", remedy)
    return None


def _report_progress(done: int, count: int) -> None:
    if done == count or done % max(1, count // 20) == 0:
        LOGGER.info("cached %d of %d clip folders", done, count)


def _leave_signals_to_the_main_process(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _signals(stop: Any) -> Iterator[None]:
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


def _plain(value: Any) -> Any:
    """Settings as JSON can hold them."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
