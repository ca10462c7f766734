"""The result of an evaluation, its form as JSON, and its files in the directory of a run."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..events import without_non_finite
from ..files import durable
from ..storage.evaluation_file import EVALUATION_FILE, GALLERY_FILE
from ..version import __version__
from .distances import DistancesWithFloor
from .likelihood import Estimate, Likelihood
from .memorisation import Memorisation

SCHEMA = 1                                      # version of the format of evaluation.json
OF_A_STUDENT = "a distilled model knows only the noise levels of its own steps"        # why some figures are missing


@dataclass(frozen=True)
class CaptionEffect:
    """How much captions matter: the noise loss (mean squared error of the predicted noise) with three kinds of caption.

    `true` is the loss with each picture's own caption, `shuffled` with another picture's, `empty` with none. A rise is
    the relative increase over `true`: (loss - true) / true. Every field whose name begins with `shuffled` is None if
    all pictures have the same caption.
    """

    true: Estimate
    shuffled: Estimate | None
    empty: Estimate
    shuffled_rise: Estimate | None
    empty_rise: Estimate
    true_at: tuple[Estimate, ...]               # at the levels of the noise-loss curve, as the next two
    shuffled_at: tuple[Estimate, ...] | None
    empty_at: tuple[Estimate, ...]

    def to_dict(self, log_snr: Sequence[float]) -> dict[str, Any]:
        """As a dictionary that JSON can hold. log_snr: of the levels of the noise-loss curve."""
        names = ("true", "shuffled", "empty", "shuffled_rise", "empty_rise")
        levels = [{"log_snr": value, "true": self.true_at[k].value, "empty": self.empty_at[k].value,
                   "shuffled": None if self.shuffled_at is None else self.shuffled_at[k].value}
                  for k, value in enumerate(log_snr)]
        return {**{name: _estimate(getattr(self, name)) for name in names}, "levels": levels}


@dataclass(frozen=True)
class Evaluation:
    """The figures that were measured for a model."""

    model_sha256: str
    step: int | None                            # of the model's weights
    seed: int                                   # of the evaluation
    held_out: int                               # number of pictures that the model was evaluated on
    held_out_by_run: bool                             # whether the model's run held these pictures out
    train: int | None                           # number of pictures that the model was trained on, if known
    likelihood: Likelihood | None               # None of a distilled model
    prompts: CaptionEffect | None                     # None without captions
    features: str | None                        # name of the features in which distances are measured
    distances: DistancesWithFloor | None        # None if too few pictures were generated or held out
    memorisation: Memorisation | None           # None if no picture was generated or the training pictures are unknown
    gallery: bytes | None                       # a PNG of the generated pictures that are nearest to training pictures

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that JSON can hold: non-finite numbers are None. It contains no path."""
        record: dict[str, Any] = without_non_finite({
            "schema": SCHEMA, "version": __version__, "model_sha256": self.model_sha256, "step": self.step,
            "seed": self.seed,
            "pictures": {"held_out": self.held_out, "train": self.train, "own": self.held_out_by_run},
            **({"not_measured": dict.fromkeys(("noise_mse", "bits_per_dim"), OF_A_STUDENT)} if self.likelihood is None
               else _likelihood(self.likelihood, self.prompts)),
            "distances": None if self.distances is None else {"features": self.features, **self.distances.to_dict()},
            "memorisation": None if self.memorisation is None else self.memorisation.to_dict()})
        return record


def _likelihood(likelihood: Likelihood, prompts: CaptionEffect | None) -> dict[str, Any]:
    return {
        "levels": [{"log_snr": log_snr, "noise_mse": loss.value, "standard_error": loss.standard_error}
                   for log_snr, loss in zip(likelihood.log_snr, likelihood.noise_mse_at, strict=True)],
        "noise_mse": _estimate(likelihood.noise_mse), "noise_mse_ref": _estimate(likelihood.noise_mse_ref),
        "bits_per_dim": {"bound": _estimate(likelihood.bound), "area": _estimate(likelihood.area)},
        "variance_gain_bpd": _estimate(likelihood.variance_gain),
        "variance_calibration": _estimate(likelihood.variance_calibration),
        "prompts": None if prompts is None else prompts.to_dict(likelihood.log_snr)}


def save_evaluation(directory: Path, evaluation: Evaluation) -> None:
    """Write an evaluation into the directory of a run, in place of an earlier one. Raises StorageError."""
    if evaluation.gallery is not None:
        durable.write(directory / GALLERY_FILE, evaluation.gallery)
    elif (directory / GALLERY_FILE).exists():
        durable.remove(directory / GALLERY_FILE)
    text = json.dumps(evaluation.to_dict(), indent=2, allow_nan=False)
    durable.write(directory / EVALUATION_FILE, f"{text}\n".encode())


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else dataclasses.asdict(estimate)
