"""Preparing a training: the plan, the tokenizer and the trainer of a run are built, or read if the run has begun."""

import dataclasses
import itertools
import json
import os
from collections.abc import Generator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .. import events
from ..checks import from_dict, to_dict
from ..config import Plan, Recipe
from ..data.channel_choice import choose_channels
from ..data.listing import Dataset
from ..data.split import Split, split_dataset
from ..errors import DataError, ModelError, StorageError, UsageError
from ..files import durable
from ..files.input_files import read_input
from ..network.channels import with_channels
from ..network.tokenizer import MAX_BYTES, load_tokenizer, train_tokenizer, truncation_warning
from ..runtime import devices
from ..runtime.distributed import World
from ..storage import checkpoint, home_directory, trained_pictures, training_states
from . import estimate, memory
from .batches import Batches
from .plan import Reasons, extend, make_plan
from .run import Run
from .session import Session, held_out_groups
from .start import Start, choose_start, load_start
from .trainer import Trainer


def open_session(
    run: Run, dataset: Dataset, device: torch.device, *, world: World, rehearsal: bool = False,
) -> Generator[events.Event, None, tuple[Session, Reasons | None, Start]]:
    """Build a session at step 0, and record the plan if it is new. → the session, the plan's reasons, and its start

    The main process decides, and broadcasts its decisions. A model named by --init is needed only until the first state
    of the run is saved, and the teacher of a student to the end. A rehearsal writes nothing. Raises DiffuseError of
    many kinds.
    """
    limit = world.broadcast_json(run.plan and run.plan.held_out_limit)
    split = split_dataset(dataset.pixel_hashes, names=dataset.names, folder=run.recipe.held_out, limit=limit)
    split = yield from _without_once_trained(split, run, dataset, world)
    start, init = Start(None, ""), None
    if world.is_main:
        start = choose_start(run, device, train_images=len(split.train))
        begun = run.plan is not None and bool(training_states.saved_states(run.directory))
        if start.name is not None and (run.recipe.evaluations is not None or not begun):
            init = load_start(run, start.name, device)
    tokenizer = _shared_tokenizer(run, dataset, split, init, world)
    if tokenizer is not None and world.is_main and (warning := truncation_warning(
            tokenizer, itertools.chain.from_iterable(dataset.captions))):
        yield events.Noticed(message=warning, level="warning")
    builder = PlanBuilder(run, dataset, split, tokenizer, init, device, world, rehearsal)
    plan, trainer = yield from resolve_plan(builder)
    if world.is_main and not rehearsal and (plan != run.plan or run.moved_from is not None):
        if run.plan is not None and plan.steps != run.plan.steps:      # the budget grew: forget the old cool-down
            training_states.rewind(run.directory, limit=run.plan.cooldown_start)
        _write_run(run, trainer, tokenizer, dataset, split)
    dataset = dataset.with_channels(plan.model.network.channels)
    session = Session(run, plan, dataset, split, tokenizer, trainer,
                      held_out_groups(plan, dataset, split, tokenizer))
    return session, builder.reasons, start


def _without_once_trained(
    split: Split, run: Run, dataset: Dataset, world: World,
) -> Generator[events.Noticed, None, Split]:
    """Take the pictures that the run was trained on in its earlier data set out of those held out, with a warning."""
    once: list[int] = world.broadcast_json(
        trained_pictures.once_trained(run.directory, dataset.pixel_hashes, split.held_out)
        if world.is_main and run.plan is not None else [])
    if once and world.is_main:
        count = "1 picture" if len(once) == 1 else f"{len(once):,} pictures"
        yield events.Noticed(level="warning", message=(
            f"{count} in {run.recipe.held_out} were trained on before, so they are not held out: "
            f"for example {dataset.names[once[0]]}"))
    return split.without(once)


# ── The plan ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class PlanBuilder:
    """Builds plans, and trainers for them. Every process of a world has a builder, and they return the same plans."""

    run: Run
    dataset: Dataset
    split: Split
    tokenizer: Tokenizer | None
    init: checkpoint.Model | None               # the model of --init, in the main process alone
    device: torch.device
    world: World
    rehearsal: bool = False                     # whether nothing is trained: shapes suffice where memory does not
    reasons: Reasons | None = None              # of the newest plan, in the main process alone

    def make(self, recipe: Recipe) -> Plan:
        """A new plan for a recipe, made by the main process."""
        plan = None
        if self.world.is_main:
            plan, self.reasons = make_plan(
                recipe, self.dataset, self.split, resolution=self.run.resolution, sizes=self.run.sizes,
                fit=self.run.fit, tokenizer=self.tokenizer, init=self.init, device=self.device,
                upscaling=self.run.upscaling)
        return self.broadcast(plan)

    def broadcast(self, plan: Plan | None) -> Plan:
        """The plan of the main process. Raises DataError if this process has other pictures or captions than it."""
        shared = from_dict(Plan, self.world.broadcast_json(plan and to_dict(plan)), where="plan")
        if shared.data_id != self.dataset.content_id:
            raise DataError("the processes of this training do not see the same pictures and captions",
                            hint="Give each machine the same folder")
        return shared

    def trainer(self, plan: Plan) -> Trainer:
        """A new trainer for a plan, at step 0. Raises UsageError."""
        machine, world = self.run.machine, self.world
        sharded = bool(world.all_reduce_max(
            memory.choose_sharding(plan, machine, self.device, processes=world.size)))
        if sharded and machine.compile:
            raise UsageError("a network whose weights are divided among processes is not compiled",
                             hint="Leave --compile out")
        compiled = False if sharded else devices.choose_compile(machine, self.device, steps=plan.steps)
        if compiled is not False:               # by default torch runs what lies under a known name in /tmp
            directory = durable.make_directory(home_directory.compiled_directory())
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(directory))
        recompute = bool(world.all_reduce_max(memory.choose_recompute(
            plan, machine, self.device, processes=world.size, sharded=sharded)))
        micro_batch = memory.choose_micro_batch(
            plan, machine, self.device, processes=world.size, sharded=sharded, recompute=recompute)
        micro_batch = -world.all_reduce_max(-micro_batch)              # that of the smallest memory
        dataset = self.dataset.with_channels(plan.model.network.channels)
        batches = Batches(plan, dataset, self.split.train, self.tokenizer, self.device)
        trainer = Trainer(
            plan, batches, precision=devices.choose_precision(machine, self.device), micro_batch=micro_batch,
            compiled=compiled, world=world, sharded=sharded, recompute=recompute,
            values=not self.rehearsal or memory.fits(plan, self.device))
        if self.init is not None:
            trainer.start_from(_weights_to_start_from(self.init, plan))
        return trainer


def _weights_to_start_from(init: checkpoint.Model, plan: Plan) -> dict[str, Tensor]:
    """The weights of the model of --init; of the model whose pictures an upscaler enlarges, those that read text."""
    weights = init.network.state_dict()
    if plan.model.is_upscaler and not init.config.is_upscaler:
        return {name: weight for name, weight in weights.items() if name.startswith("text_encoder.")}
    return with_channels(weights, init.config.network, plan.model.network.channels)


def resolve_plan(builder: PlanBuilder) -> Generator[events.Event, None, tuple[Plan, Trainer]]:
    """The plan of the run, which is old, new or extended, and its trainer at step 0. Turns --time into steps."""
    run, recipe, world = builder.run, builder.run.recipe, builder.world
    begun, extended = world.broadcast_json(run.plan is not None), world.broadcast_json(run.extended)
    timed = recipe.time is not None and (extended or not begun)

    # The old plan, or a new one, whose number of steps is provisional with --time
    if begun:
        plan = builder.broadcast(run.plan and _check_data(run, run.plan, builder.dataset, builder.split))
    else:
        plan = builder.make(dataclasses.replace(recipe, time=None, images=100_000) if timed else recipe)

    # --time as a number of pictures
    if timed:
        if builder.rehearsal and not memory.fits(plan, builder.device):
            raise UsageError("the speed of a network that has no room here cannot be measured for --time",
                             hint="Give --steps or --images, or a smaller --preset")
        yield events.Noticed(message="measuring the speed to turn --time into a number of steps")
        images = estimate.images_within(recipe.time or 0, builder.trainer(plan), run.machine)
        recipe = dataclasses.replace(recipe, time=None, images=images)

    # The plan for the longer, or the measured, budget
    if extended:
        plan = builder.broadcast(extend(plan, recipe, run.name) if world.is_main else None)
    elif timed:
        plan = builder.make(recipe)
    if timed:
        plan = dataclasses.replace(plan, deadline=run.recipe.time)
    return plan, builder.trainer(plan)


def _check_data(run: Run, plan: Plan, dataset: Dataset, split: Split) -> Plan:
    """The plan of a begun run, if the pictures and captions are still those of its beginning.

    Others raise DataError, or with --accept-changes are recorded in the plan, unless they have colours that would be
    lost.
    """
    if dataset.content_id == plan.data_id:
        return plan
    if not run.machine.accept_changes:
        reason, hint = f"changed since the run {run.name!r} was begun", "or --fresh to start anew"
        if run.moved_from is not None:
            reason = f"are not those of {run.moved_from} that the run {run.name!r} is trained on"
            hint = "or another --name"
        raise DataError(f"the pictures or captions in {run.found.folder} {reason}",
                        hint=f"Pass --accept-changes to train on them, {hint}")
    if plan.model.network.channels < choose_channels(dataset)[0]:
        raise DataError(f"the run {run.name!r} draws grey pictures, and those in {run.found.folder} have colours now",
                        hint="Start anew with --fresh")
    return dataclasses.replace(plan, data_id=dataset.content_id, train_images=len(split.train),
                               validation_images=len(split.held_out))


# ── The tokenizer ───────────────────────────────────────────────────────────────────────────────────────────────────


def _shared_tokenizer(
    run: Run, dataset: Dataset, split: Split, init: checkpoint.Model | None, world: World,
) -> Tokenizer | None:
    """The tokenizer of the main process, which reads that of a begun run or makes a new one; None without captions."""
    tokenizer = None
    if world.is_main:
        tokenizer = _new_tokenizer(run, dataset, split, init) if run.plan is None else _read_tokenizer(run)
    if world.size == 1:
        return tokenizer
    text = world.broadcast_json(tokenizer and tokenizer.to_str())
    return None if text is None else load_tokenizer(text)


def _new_tokenizer(
    run: Run, dataset: Dataset, split: Split, init: checkpoint.Model | None,
) -> Tokenizer | None:
    """The tokenizer of --init, otherwise one trained on the captions of the training pictures; None without captions.

    Raises ModelError if the model of --init has captions and the data have none, or the other way round.
    """
    if init is not None:
        if init.config.conditional != run.found.conditional:
            raise ModelError(f"--init {run.recipe.init} {'needs' if init.config.conditional else 'knows no'} captions",
                             hint="Choose another model or --captions")
        return init.tokenizer
    if not run.found.conditional:
        return None
    return train_tokenizer(
        caption for position in split.train.tolist() for caption in dataset.captions[position])


def _read_tokenizer(run: Run) -> Tokenizer | None:
    """The tokenizer of a begun run; None for an unconditional model. Raises ModelError if its file is missing."""
    assert run.plan is not None
    if not run.plan.model.conditional:
        return None
    try:
        return load_tokenizer(read_input(run.directory / "tokenizer.json", limit=MAX_BYTES).decode(errors="replace"))
    except OSError as error:
        raise ModelError(f"the run {run.name!r} has lost its tokenizer.json", hint="Start anew with --fresh") from error


# ── The run's files ─────────────────────────────────────────────────────────────────────────────────────────────────


def _write_run(run: Run, trainer: Trainer, tokenizer: Tokenizer | None, dataset: Dataset, split: Split) -> None:
    """Write the first files of a run durably: the tokenizer, lists of pictures, and last the plan.

    A run without a plan does not count as a run, so a crash before the end leaves nothing that could be resumed. Raises
    StorageError, also if the disk has no room for the whole training.
    """
    need, free = estimate.disk_bytes(trainer), durable.free_bytes(run.directory)
    if free < need:
        raise StorageError(f"training needs about {need / 2**20:.0f} MB in {run.directory}, {free / 2**20:.0f} MB free",
                           hint="Make room, or move everything with DIFFUSE_HOME")
    if tokenizer is not None:
        durable.write(run.directory / "tokenizer.json", tokenizer.to_str().encode())
    if dataset.skipped:
        lines = [json.dumps({"name": name, "reason": reason}) for name, reason in dataset.skipped]
        durable.write(run.directory / "skipped.jsonl", ("\n".join(lines) + "\n").encode())
    if run.recipe.held_out is not None:
        trained_pictures.record(run.directory, dataset.pixel_hashes, split.train, anew=run.plan is None)
    durable.make_directory(run.directory / "previews")
    run.write_plan(trainer.plan)
