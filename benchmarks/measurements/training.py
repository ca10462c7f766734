"""Training throughput, in pictures per CPU second, and memory, for the same network or for as many parameters.

diffusers trains the same network as diffuse-cli. denoising-diffusion-pytorch and k-diffusion train networks of their
own, made as large. A step of diffuse-cli includes drawing its pictures, captions and noise, and training its text
encoder; the peers get pictures and text features that lie ready in memory. The default optimiser of diffuse-cli is
Muon, whose steps cost more, but of which it needs fewer; the rows "AdamW" use the optimiser of the peers.
"""

from typing import Any

from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import comparison

BASELINE = "diffusers example"
CASES = (                                       # preset, resolution in pixels, batch size, conditional
    ("micro", 32, 32, True), ("micro", 64, 16, True), ("micro", 32, 32, False), ("nano", 32, 16, True))
QUICK = CASES[:3]


def sides(preset: str, resolution: int, batch: int, conditional: bool) -> dict[str, Side]:
    """The contenders of a case; two of the peers have no captions."""
    from benchmarks.contenders.ours import shape  # imports torch: only to measure
    from diffuse_cli.checks import from_dict
    from diffuse_cli.model_config import NetworkConfig
    from diffuse_cli.network.network import parameter_count

    network = shape(preset, resolution, conditional=conditional)
    common = {"preset": preset, "resolution": resolution, "batch": batch, "conditional": conditional}
    contenders = {
        "diffuse-cli": Side("ours:training", common),
        "diffuse-cli, AdamW": Side("ours:training", {**common, "optimizer": "adamw"}),
        "diffuse-cli, fp32": Side("ours:training", {**common, "precision": "fp32"}),
        BASELINE: Side("diffusers_example:training", {"shape": network, "batch": batch}, peer=True),
        f"{BASELINE}, bf16": Side("diffusers_example:training", {
            "shape": network, "batch": batch, "mixed_precision": "bf16"}, peer=True)}
    if not conditional:
        size = {"resolution": resolution, "batch": batch,
                "parameters": parameter_count(from_dict(NetworkConfig, network))}
        contenders["denoising-diffusion-pytorch"] = Side("lucidrains:training", size, peer=True)
        contenders["k-diffusion"] = Side("k_diffusion_example:training", size, peer=True)
    return contenders


def measure(settings: Settings, report: dict[str, Any]) -> None:
    report["unit"], report["baseline"], report["cases"] = "pictures", BASELINE, []
    for preset, resolution, batch, conditional in QUICK if settings.quick else CASES:
        title = f"{resolution} px, batches of {batch}, `{preset}`, {'captions' if conditional else 'no captions'}"
        print(title, flush=True)
        report["cases"].append({"title": title, "sides": interleave(
            sides(preset, resolution, batch, conditional), settings)})


def render(report: dict[str, Any]) -> list[str]:
    return comparison(report, rate="pictures per CPU second")
