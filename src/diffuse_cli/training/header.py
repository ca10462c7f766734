"""The header of a training: its data and the choices of its plan, as lines that a user reads before the first step."""

from ..data.bucket_choice import describe_sizes
from ..model_config import CHANNELS
from ..runtime import devices
from .estimate import Facts
from .plan import Reasons
from .session import Session
from .start import Start


def header(session: Session, reasons: Reasons | None, start: Start) -> Facts:
    """A label and a text for each line; of a new plan with reasons."""
    run, plan, dataset, trainer = session.run, session.plan, session.dataset, session.trainer
    device = trainer.batches.device
    used = f"{len(dataset.names):,} used ({plan.train_images:,} to train on, {plan.validation_images:,} held out)"
    facts = [("pictures", f"{used}, {len(dataset.skipped):,} skipped" if dataset.skipped else used),
             ("captions", run.found.caption_summary)]
    if run.found.caption_examples:
        facts.append(("for example", ", ".join(f"“{example[:100]}”" for example in run.found.caption_examples)))

    def why(choice: str) -> str:
        return f" — {getattr(reasons, choice)}" if reasons is not None else ""

    size = trainer.parameters / 1e6
    network = plan.model.network
    facts += [
        ("resolution", f"{run.resolution} px — {run.why_resolution}"),
        ("fit", f"{plan.fit} — {run.why_fit}"),
        *([("shapes", describe_sizes(dataset))] if network.buckets else []),
        ("colours", f"{CHANNELS[network.channels]}{why('channels')}"),
        ("network", f"{plan.preset}, {size:.1f} million parameters{why('preset')}"),
        ("starts from", f"{start.name or 'a new network'} — {start.why}"),
        *([("at first", f"{plan.half_side_steps:,} steps with pictures at half their side — so a new network "
            "learns more in the same time")] if plan.half_side_steps else []),
        ("diffusion", f"{plan.model.schedule} schedule, {plan.model.prediction} prediction, "
                      f"{'learned' if plan.model.learned_variance else 'fixed'} variance"),
        ("batch", f"{plan.batch_size:,} pictures{why('batch')}"),
        ("budget", f"{plan.steps:,} steps{why('budget')}"),
        ("learning rate", f"{plan.lr:g}, {plan.optimizer}"),
        ("machine", ", ".join(filter(None, (
            devices.describe_device(device), trainer.precision, f"{trainer.micro_batch} at once",
            "activations computed twice, because it has no room to keep them" if trainer.network.unet.recompute else "",
            f"weights divided among {trainer.world.size} processes" if trainer.state.sharded else "",
            devices.describe_arithmetic(device, deterministic=run.machine.deterministic))))),
        ("seed", str(plan.seed)),
    ]
    return tuple(facts)
