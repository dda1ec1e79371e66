"""The training loop, on Hugging Face accelerate: one step function, any number of processes.

Code: `train.py`, Francis-Rings/StableAnimator @ 020e7f2.
Differences: checkpoints are atomic and a resumed run continues bit for bit; parameters without a gradient get one of
zero, so that weight decay reaches them as it does there.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..errors import InputError
from .average import Average
from .checkpoints import as_json, checkpoint_name, export, prune, publish, read_progress
from .config import check_files
from .data import DTYPES, open_data
from .logs import LOGGER, Metrics, log_to
from .order import FromPass, Order
from .runtime import leave_signals_to_the_main_process, make_accelerator, signals, starting_point
from .schedule import learning_rate
from .settings import Settings
from .systems import system_of
from .trainable import freeze


@dataclass
class Result:
    """How a run ended: its last step, the checkpoint of it, and whether a signal ended it early."""

    step: int
    checkpoint: Path
    interrupted: bool


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
        check_files(settings)
        self.settings, self.system = settings, system_of(settings)
        self.accelerator = make_accelerator(settings)
        main = self.accelerator.is_main_process
        checkpoint = starting_point(settings.output, resume)
        self.accelerator.wait_for_everyone()
        if main:
            settings.output.mkdir(parents=True, exist_ok=True)
            log_to(settings.output)
        data = open_data(settings, self.accelerator, self.system)
        self.source, self.frozen = data.source, data.frozen
        self.order = Order(
            data.sizes,
            settings.training.batch_size,
            self.accelerator.num_processes,
            settings.training.seed,
        )
        networks = self.system.build(settings)
        freeze(networks, settings.training.frozen)
        self._prepare(networks)
        self.step = 0
        if checkpoint is not None:
            self._restore(checkpoint)
        self.metrics = (
            Metrics(settings.output, self.step, tensorboard=settings.log.tensorboard) if main else None
        )
        self.stopping = False

    def run(self) -> Result:
        """Train up to the last step, or until SIGTERM or SIGINT; the last checkpoint is always written."""
        settings = self.settings
        saved = self.step if (settings.output / checkpoint_name(self.step)).is_dir() else -1
        batches = self._batches()
        with signals(self._stop):
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

    def _prepare(self, networks: nn.Module) -> None:
        settings = self.settings
        learning = [p for p in networks.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            learning,
            lr=settings.optimizer.learning_rate,
            betas=settings.optimizer.betas,
            eps=settings.optimizer.eps,
            weight_decay=settings.optimizer.weight_decay,
        )
        self.configs = self.system.configs_of(networks)
        self.networks, self.optimizer = self.accelerator.prepare(networks, optimizer)
        self.learning = [p for p in self.networks.parameters() if p.requires_grad]
        self.average = Average(self._bare(), settings.ema.decay) if settings.ema.enabled else None
        counted = sum(p.numel() for p in learning), sum(p.numel() for p in self._bare().parameters())
        LOGGER.info("%d of %d parameters learn, on %s", *counted, self.accelerator.device)

    def _bare(self) -> nn.Module:
        return cast(nn.Module, self.accelerator.unwrap_model(self.networks))

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
            **self.system.sampling(self.settings),
        }

    # steps

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """Collated samples from the present step on."""
        settings, accumulation = self.settings, self.settings.training.gradient_accumulation
        first, last = self.step * accumulation, settings.training.steps * accumulation
        passes = FromPass(self.order, self.accelerator.process_index, first, last)
        workers = 0 if settings.data.cache else settings.data.workers
        loader = DataLoader(
            self.system.samples(self.source, settings, self.order),
            batch_sampler=cast(Any, passes),
            num_workers=workers,
            worker_init_fn=leave_signals_to_the_main_process,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return iter(loader)

    def _train_step(self, batches: Iterator[dict[str, Tensor]]) -> Tensor:
        """One optimiser step; the mean loss of this process' clips."""
        settings, accelerator = self.settings, self.accelerator
        rate = learning_rate(self.step, settings.training.steps, settings.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rounded = DTYPES.get(accelerator.mixed_precision, torch.float32)
        losses = []
        for _ in range(settings.training.gradient_accumulation):
            sample = {name: t.to(accelerator.device, non_blocking=True) for name, t in next(batches).items()}
            batch = self.system.conditions_of(sample, self.frozen, rounded)
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
        if self.accelerator.distributed_type.value != "DEEPSPEED":  # whose engine keeps the gradients itself
            for parameter in self.learning:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        if self.settings.optimizer.max_grad_norm:
            largest = self.settings.optimizer.max_grad_norm
            self.accelerator.clip_grad_norm_(self.networks.parameters(), largest)

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
        if not math.isfinite(mean) and self.accelerator.mixed_precision != "fp16":  # there it skips the step
            problem = f"is {mean} at step {self.step}; the last checkpoint is of an earlier one"
            raise InputError("the loss", problem, "lower the learning rate, or set optimizer.max_grad_norm")
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
        state: Any = accelerator.get_state_dict(self.networks)
        accelerator.wait_for_everyone()  # all parts are written
        if accelerator.is_main_process:
            progress = {"step": self.step, "sampling": self._sampling(), "settings": as_json(settings)}
            pth, files = settings.checkpoints.pth, self.system.files
            export(temporary, state, self.configs, progress, self.average, pth=pth, files=files)
            publish(temporary, settings.output / name)
            prune(settings.output, settings.checkpoints.keep)
            LOGGER.info("wrote %s", settings.output / name)
        accelerator.wait_for_everyone()
        return self.step

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
                    self.system.opened,
                )
        self.accelerator.wait_for_everyone()
