"""The training loop: Lightning runs it, a task fills it."""

from __future__ import annotations

import csv
import logging
import math
import os
import platform
import shutil
import subprocess
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from lensdeblend import __version__
from lensdeblend.networks.weights import Card, save_weights
from lensdeblend.training.ahead import DrawnAhead
from lensdeblend.training.pictures import draw_curves
from lensdeblend.training.recipe import Length, Recipe
from lensdeblend.training.tasks import Task, task

__all__ = ["train"]

log = logging.getLogger(__name__)

_WARM_UP = 0.05
_PANELS = 6
_TRAIN, _VALIDATION, _TEST = 1, 2, 3


def train(
    recipe: Recipe, folder: str | os.PathLike, *, images: Sequence[str | os.PathLike] = (),
    pairs: str | os.PathLike | None = None, device: str = "auto", devices: int = 1, resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train what a recipe says, and write weights, card, log and pictures.

    Parameters
    ----------
    recipe : Recipe
    folder : path
        Where ``NAME.safetensors``, ``NAME.json``, ``recipe.yaml``, ``log.csv``, ``curves.png``, ``panels.png`` and
        ``checkpoints/`` go.
    images : sequence of paths
        Folders of real galaxies, for a recipe that learns from some.
    pairs : path, optional
        Folder of what `lensdeblend.simulate` made, to learn from instead of simulating.
    device : {"auto", "cpu", "cuda"}
    devices : int
        How many GPUs.
    resume : bool
        Go on from the last checkpoint in ``folder``.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        Of the safetensors file.

    Raises
    ------
    ImportError
        Without Lightning.
    ValueError
        For a folder that holds another training, and nothing to resume; for a recipe that its task refuses.
    RuntimeError
        Where a GPU runs out of memory; the message says what batch to try.
    """
    try:
        import lightning
    except ImportError as error:
        raise ImportError('training needs Lightning: pip install "lensdeblend[train]"') from error
    folder = Path(folder)
    learned = task(recipe.task)(
        recipe, images=[Path(p) for p in images], pairs=None if pairs is None else Path(pairs)
    )
    last = _checkpoint_to_resume(folder, recipe, resume)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network, options = learned.network()
        adversary = learned.adversary()
    accelerator = _accelerator(device)
    network = network.to(memory_format=torch.channels_last if accelerator == "gpu" else learned.memory_format)
    module = _module_class(lightning)(learned, network, adversary, recipe)
    learned.begin(torch.device("cuda" if accelerator == "gpu" else "cpu"), progress=progress)
    began, commit = time.monotonic(), _commit()
    steps = recipe.length.validate_every
    with warnings.catch_warnings():
        # The loader hands out step numbers only; Lightning advises on loaders of data.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*Trying to infer the `batch_size`.*")
        warnings.filterwarnings("ignore", message=".*`isinstance.treespec, LeafSpec.` is deprecated.*")
        talk = logging.getLogger("lightning.pytorch")
        level = talk.level
        talk.setLevel(logging.WARNING)
        try:
            clip = recipe.length.clip if adversary is None else None
            trainer = _trainer(lightning, recipe.length, folder, accelerator, devices, progress, clip)
            with module.drawn_ahead:
                trainer.fit(module, _numbers(steps), _numbers(1), ckpt_path=last, weights_only=False if last else None)
        except torch.cuda.OutOfMemoryError as error:
            raise RuntimeError(
                f"the GPU ran out of memory at {recipe.length.batch} images a step; try "
                f"--set length.batch={max(1, recipe.length.batch // 2)}"
            ) from error
        finally:
            talk.setLevel(level)
    if trainer.interrupted:
        raise KeyboardInterrupt
    network = module.network.eval().to(module.device)
    learned.finish(network, progress=progress)
    figures = module.figures(_TEST)
    card = Card(
        name=recipe.name, architecture=recipe.network.architecture, options=options, recipe=asdict(recipe),
        priors=learned.priors(), domain=learned.domain(), metrics=figures, seed=recipe.seed, commit=commit,
        device=_device_name(accelerator), licence=recipe.licence, data=learned.learned_from,
        length={
            "steps": trainer.global_step, "images": trainer.global_step * recipe.length.batch * trainer.world_size,
            "seconds": round(time.monotonic() - began + module.seconds_before), "precision": str(trainer.precision),
        },
    )
    path = save_weights(network, card, folder)
    with torch.no_grad():
        batch = learned.draw(_PANELS, (recipe.seed, _TEST, 0), module.device, "test")
        learned.panels(network, batch, folder / "panels.png")
    return path


def _checkpoint_to_resume(folder: Path, recipe: Recipe, resume: bool) -> Path | None:
    last, written = folder / "checkpoints" / "last.ckpt", folder / "recipe.yaml"
    if not resume:
        if last.exists():
            raise ValueError(f"{folder} holds a training already: go on with --resume, or name another folder with -o")
        folder.mkdir(parents=True, exist_ok=True)
        written.write_text(yaml.safe_dump(_plain(asdict(recipe)), sort_keys=False))
        return None
    if not last.exists():
        raise ValueError(f"there is nothing to resume in {folder}: no checkpoint was written")
    if yaml.safe_load(written.read_text()) != _plain(asdict(recipe)):
        raise ValueError(f"{folder} holds the training of another recipe ({written}); name another folder with -o")
    return last


def _module_class(lightning):
    class Module(lightning.LightningModule):
        """Lightning's view of a task."""

        def __init__(self, learned: Task, network: nn.Module, adversary: nn.Module | None, recipe: Recipe):
            super().__init__()
            self.learned, self.recipe = learned, recipe
            self.network = network
            self.adversary = adversary
            self.automatic_optimization = adversary is None
            self.drawn_ahead = DrawnAhead(self.drawn, recipe.length.steps)
            self.seconds_before = 0.0
            self._began = time.monotonic()

        def training_step(self, _, __) -> Tensor:
            # A GPU has one queue of work: nothing is won by filling it from two threads.
            batches = self.drawn if self.device.type != "cpu" else self.drawn_ahead.at
            batch = batches(self.global_step)
            if self.adversary is None:
                loss, parts = self.learned.loss(self.network, batch)
                self._require_finite(loss)
            else:
                loss, parts = self._contest(batch)
            values = {"loss": loss.detach(), **{name: part.detach() for name, part in parts.items()}}
            self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)
            self.log("loss_now", values["loss"], prog_bar=True, logger=False)
            return loss

        def drawn(self, step: int):
            """The batch of a step: it follows from that, so that a killed training goes on as if it had not been."""
            seed = (self.recipe.seed, _TRAIN, step, self.global_rank)
            with torch.autocast(self.device.type, enabled=False):
                return self.learned.draw(self.recipe.length.batch, seed, self.device, "train")

        def _contest(self, batch) -> tuple[Tensor, dict[str, Tensor]]:
            loss, parts, adverse = self.learned.contest(self.network, self.adversary, batch)
            self._require_finite(loss + adverse)
            optimizer, adverse_optimizer = self.optimizers()
            for one, its in ((optimizer, loss), (adverse_optimizer, adverse)):
                one.zero_grad()
                self.manual_backward(its)
                self.clip_gradients(one, gradient_clip_val=self.recipe.length.clip, gradient_clip_algorithm="norm")
            optimizer.step()
            # Not through Lightning, which would count it as one more step of the training.
            adverse_optimizer.optimizer.step()
            for rate in self.lr_schedulers():
                rate.step()
            return loss, {**parts, "adversary": adverse}

        def _require_finite(self, loss: Tensor) -> None:
            if not bool(torch.isfinite(loss)):
                raise RuntimeError(
                    f"the loss is not finite at step {self.global_step}: try a smaller length.learning_rate"
                )

        def validation_step(self, _, __) -> None:
            figures = {f"validation_{name}": value for name, value in self.figures(_VALIDATION).items()}
            self.log_dict(figures, batch_size=1, sync_dist=True)
            name, more_is_better = self.learned.watched
            value = figures[f"validation_{name}"]
            self.log("watched", value if more_is_better else -value, prog_bar=True, logger=False, batch_size=1)

        def figures(self, which: int) -> dict[str, float]:
            """Figures of merit of a set that is the same each time."""
            length, total, split = self.recipe.length, {}, {_VALIDATION: "validation", _TEST: "test"}[which]
            count = math.ceil(length.validation / length.batch)
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                for number in range(count):
                    batch = self.learned.draw(length.batch, (self.recipe.seed, which, number), self.device, split)
                    for name, value in self.learned.measure(self.network, batch).items():
                        total[name] = total.get(name, 0.0) + value / count
            return total

        def configure_optimizers(self):
            length = self.recipe.length
            both = [self.network] if self.adversary is None else [self.network, self.adversary]
            optimizers = [
                torch.optim.AdamW(one.parameters(), length.learning_rate, weight_decay=length.weight_decay)
                for one in both
            ]
            rates = [
                torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, length))
                for optimizer in optimizers
            ]
            return optimizers, [{"scheduler": rate, "interval": "step"} for rate in rates]

        def on_save_checkpoint(self, checkpoint) -> None:
            checkpoint["seconds"] = self.seconds_before + time.monotonic() - self._began

        def on_load_checkpoint(self, checkpoint) -> None:
            self.seconds_before = checkpoint.get("seconds", 0.0)

    return Module


def _trainer(
    lightning, length: Length, folder: Path, accelerator: str, devices: int, progress: bool, clip: float | None
):
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    callbacks = [
        ModelCheckpoint(
            folder / "checkpoints", filename="last", enable_version_counter=False, save_on_train_epoch_end=True
        ),
        _csv_log(lightning, folder / "log.csv"),
    ]
    if progress:
        callbacks.append(_bar(lightning))
    if length.patience is not None:
        callbacks.append(EarlyStopping("watched", mode="max", patience=length.patience))
    return lightning.Trainer(
        accelerator=accelerator, devices=devices, precision=_precision(accelerator), max_steps=length.steps,
        callbacks=callbacks, logger=False, gradient_clip_val=clip, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder, barebones=False,
    )


def _csv_log(lightning, path: Path):
    class Log(lightning.Callback):
        """One line a validation."""

        def on_train_start(self, trainer, module) -> None:
            # What was logged after the checkpoint that is gone on from will be logged again.
            lines = path.read_text().splitlines(keepends=True) if path.exists() and trainer.global_step else []
            kept = lines[:1] + [line for line in lines[1:] if int(line.partition(",")[0]) <= trainer.global_step]
            path.write_text("".join(kept))

        def on_train_epoch_end(self, trainer, module) -> None:
            # On resuming, Lightning ends the epoch of the checkpoint once more, without losses.
            if not trainer.is_global_zero or "loss" not in trainer.callback_metrics:
                return
            row = {"step": trainer.global_step}
            for name, value in sorted(trainer.callback_metrics.items()):
                if name not in ("loss_now", "watched"):
                    row[name] = round(float(value), 6)
            new = not path.stat().st_size
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, row)
                if new:
                    writer.writeheader()
                writer.writerow(row)
            draw_curves(path, path.with_name("curves.png"))

    return Log()


def _bar(lightning):
    from tqdm import tqdm

    class Bar(lightning.Callback):
        """Progress on stderr: Lightning's own bars write to stdout, which belongs to results."""

        def on_train_start(self, trainer, module) -> None:
            self.bar = tqdm(
                total=trainer.max_steps, initial=trainer.global_step, unit="step", disable=not trainer.is_global_zero
            )

        def on_train_batch_end(self, trainer, module, outputs, batch, number) -> None:
            self.bar.update()
            metrics = trainer.progress_bar_metrics
            self.bar.set_postfix({name: f"{float(value):.4g}" for name, value in metrics.items()}, refresh=False)

        def on_train_end(self, trainer, module) -> None:
            self.bar.close()

        def on_exception(self, trainer, module, exception) -> None:
            self.bar.close()

    return Bar()


def _numbers(count: int):
    return torch.utils.data.DataLoader(range(count), batch_size=1)


def _rate(step: int, length: Length) -> float:
    if length.schedule == "constant":
        return 1.0
    steps = length.steps
    warm = max(1, int(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def _accelerator(device: str) -> str:
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda'; got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch sees no GPU here")
    return "gpu" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"


def _precision(accelerator: str) -> str:
    """bfloat16 where the hardware computes in it: elsewhere it is many times slower than float32."""
    if accelerator == "gpu":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def _device_name(accelerator: str) -> str:
    if accelerator == "gpu":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def _commit() -> str:
    """Of the source this runs from; the version where it is installed from a package."""
    if shutil.which("git"):
        here = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
        if here.returncode == 0:
            return here.stdout.strip()
    return f"version {__version__}"


def _plain(content):
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    return [_plain(value) for value in content] if isinstance(content, (list, tuple)) else content
