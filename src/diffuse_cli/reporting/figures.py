"""The figures of an evaluation as the pages show them: what each is called, how to read it, which values are better."""

from dataclasses import dataclass

LOG_SNR = "A high log-SNR means nearly the clean picture, a low one nearly pure noise."


@dataclass(frozen=True)
class Figure:
    """One figure of evaluation.json."""

    key: str                                    # its place in the file, "outer.inner"
    label: str
    meaning: str
    better: int = 0                             # 1: higher is better, -1: lower; 0: neither
    error: str = ""                             # the place of its standard error, if that does not lie beside its value


FIGURES = (
    Figure("noise_mse", "noise loss", "Error of the predicted noise on held-out pictures, over the run's schedule. "
           "Lower is better; it never reaches 0.", -1),
    Figure("noise_mse_ref", "noise loss, reference", "The same over one fixed schedule, so that any two runs at this "
           "resolution can be compared. Lower is better.", -1),
    Figure("bits_per_dim.bound", "bits/dim, bound", "Upper bound of the bits for each value of a held-out picture. "
           "Lower is better; 8 is no model at all.", -1),
    Figure("bits_per_dim.area", "bits/dim, area", "The same from the area under the noise-loss curve. The two should "
           "agree within their errors.", -1),
    Figure("variance_gain_bpd", "gain of the learned variance", "Bits/dim saved against the best fixed variance. Above "
           "0 is good.", 1),
    Figure("variance_calibration", "calibration of the variance", "The actual error over the one that the model "
           "expected. 1 is right; above 1 the model is too sure."),
    Figure("prompts.true", "noise loss, true captions", "Each held-out picture with its own caption.", -1),
    Figure("prompts.shuffled", "noise loss, shuffled captions", "Each with the caption of another picture."),
    Figure("prompts.empty", "noise loss, no caption", ""),
    Figure("prompts.shuffled_rise", "rise when shuffled",
           "How much the loss rises with the captions of other pictures. "
           "Well above 0: the model follows prompts.", 1),
    Figure("prompts.empty_rise", "rise without captions", "How much the loss rises without any caption.", 1),
)
DISTANCES = (                                   # of generated from real pictures
    Figure("distances.drawn.kernel", "kernel distance", "Of generated pictures from real ones, in features. Lower is "
           "better.", -1, error="distances.drawn.kernel_standard_error"),
    Figure("distances.drawn.frechet", "Fréchet distance", "The same, between fitted normal distributions.", -1),
    Figure("distances.drawn.precision", "precision", "Share of generated pictures that look real.", 1),
    Figure("distances.drawn.recall", "recall", "Share of the variety of real pictures that is covered.", 1),
)
