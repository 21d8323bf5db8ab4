"""Build trl's ``SFTTrainer`` with whichever stack is installed, so that both take the same steps.

What is the kit's own here, and why: rows arrive tokenised and in the plan's order; the loss of an update is its sum
over the answers divided by their tokens (transformers 4.36 averages the means of micro-batches instead); evaluation is
weighted by tokens, so that it does not depend on the batch size; the adapter keeps its type and its initial values.

Imports torch: import this module only where training is about to begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import SequentialSampler
from transformers import DataCollatorForSeq2Seq, PrinterCallback, TrainerCallback
from trl import SFTTrainer

from kit.data.encoding import IGNORE_INDEX
from kit.modeling.model import load_tokenizer
from kit.stacks.stack import installed_stack
from kit.train.arguments import require_micro_batch, training_arguments
from kit.train.performance import PaddingFreeCollator, compile_layers, leave_out_idle_window
from kit.train.rehearsal import largest_micro_batch, rehearse
from kit.train.state import RandomState
from kit.train.trl_rows import rows_for_trl

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.config.settings import Settings
    from kit.data.batch_order import BatchOrder
    from kit.train.rehearsal import Rehearsal
    from kit.train.state import SavedState


class _PlanTrainer(SFTTrainer):  # type: ignore[misc]
    """``SFTTrainer`` on a plan's rows, in its order, with losses weighted by tokens, that can stop and go on anywhere.

    Between two micro-batches the last finished step can be saved: weights and optimizer move only at the end of a
    step, so all that has to be kept of its end are the random generators.

    Attributes:
        step_losses: Losses of the steps nobody has read yet, by step, as tensors on the device.
        grad_norm: The gradient's norm before clipping at the last update, as a tensor.
        resumed: The checkpoint this run goes on from; None for a fresh start.
        resumes_exactly: Whether the optimizer took back what was saved, bit for bit.
        randomness: The random generators after the last finished step (and its evaluation).
        evaluation_is_due: The last finished step's evaluation was begun and not finished.
        check_stop: Called between micro-batches; raises where the run is to stop.
        save: Writes a checkpoint; called where transformers would write its own.
        on_rehearsal: Told what the largest micro-batch took, before the first step.
    """

    def __init__(self, plan: BatchOrder, platform: str, resumed: SavedState | None, **kwargs: Any) -> None:
        self.plan, self.platform, self.resumed = plan, platform, resumed
        self.step_losses: dict[int, Any] = {}
        self.grad_norm: Any = None
        self.resumes_exactly = True
        self.randomness: RandomState | None = None
        self.evaluation_is_due = False
        self.check_stop: Callable[[], None] = _never
        self.save: Callable[[], None] = _never
        self.on_rehearsal: Callable[[Rehearsal], None] | None = None
        self._to_restore = resumed
        super().__init__(**kwargs)
        clip = self.accelerator.clip_grad_norm_

        def clip_and_keep(*args: Any, **kwargs: Any) -> Any:
            self.grad_norm = clip(*args, **kwargs)  # transformers 4.36 throws it away
            return self.grad_norm

        self.accelerator.clip_grad_norm_ = clip_and_keep

    def get_train_dataloader(self) -> Any:
        loader = super().get_train_dataloader()
        require_micro_batch(self.args, int(getattr(loader, "total_batch_size", loader.batch_size)))
        return loader

    def _get_train_sampler(self, *_args: Any) -> Any:
        return SequentialSampler(self.train_dataset)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        step = self.state.global_step + 1
        if self.on_rehearsal is not None:
            tell, self.on_rehearsal = self.on_rehearsal, None
            tell(self.rehearse(args[0]))
        if step not in self.step_losses:
            self._begin_step()
        self.check_stop()
        loss = super().training_step(*args, **kwargs)
        self.step_losses[step] = self.step_losses[step] + loss if step in self.step_losses else loss
        return loss

    def rehearse(self, model: Any) -> Rehearsal:
        """Work through the largest micro-batch of what is still to be trained; ``model`` is as a step gets it."""
        size, done = self.args.per_device_train_batch_size, self.resumed.step if self.resumed else 0
        begin, _ = largest_micro_batch(
            self.plan.order[done * self.plan.batch_size :],
            self.plan.rows.lengths,
            size,
            padding_free=isinstance(self.data_collator, PaddingFreeCollator),
        )
        return rehearse(self, model, self.platform, begin, size)

    def _begin_step(self) -> None:
        """Restore the generators where a checkpoint was resumed: only here has everybody else drawn from them."""
        resumed, self._to_restore = self._to_restore, None
        if resumed is not None:
            resumed.randomness.restore(self.platform)
            if resumed.evaluation_is_due:
                self.evaluate()
                self.model.train()
        self.randomness = RandomState.capture(self.platform)

    def _save_checkpoint(self, *_args: Any, **_kwargs: Any) -> None:
        self.randomness = RandomState.capture(self.platform)
        self.save()

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Mean loss over every answer token of the validation rows, however they are batched."""
        self.randomness, self.evaluation_is_due = RandomState.capture(self.platform), True
        self.model.eval()
        total, tokens = 0.0, 0
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in self.get_eval_dataloader():
                self.check_stop()
                inputs = self._prepare_inputs(batch)
                count = int((inputs["labels"][:, 1:] != IGNORE_INDEX).sum())
                total += float(self.compute_loss(self.model, inputs)) * count
                tokens += count
        self.randomness.restore(self.platform)  # the loader drew a number: no evaluation is to change what is learnt
        metrics = {"eval_loss": total / tokens}
        self.evaluation_is_due = False
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _never() -> None:
    """Stand in for what nobody asked for."""


class _Resume(TrainerCallback):  # type: ignore[misc]
    """Puts the state of a checkpoint back once transformers has built optimizer and schedule."""

    def __init__(self) -> None:
        """Wait for the trainer, which is built after its callbacks."""
        self.trainer: Any = None

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Restore; the dataset begins with the next step's rows already."""
        resumed = self.trainer.resumed
        if resumed is not None:
            state.global_step = resumed.step
            self.trainer.resumes_exactly = resumed.restore_training(self.trainer)


class _TokenWeightedTrainer(_PlanTrainer):
    """The same loss where the libraries have another: summed over an update's answers, divided by their tokens."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False) -> Any:
        labels = inputs.pop("labels")[:, 1:]
        outputs = model(**inputs, use_cache=False)
        summed = torch.nn.functional.cross_entropy(
            outputs.logits[:, :-1].float().flatten(0, 1), labels.flatten(), reduction="sum"
        )
        if self.model.training:
            # accelerate divides each micro-batch by the accumulation steps; undone here.
            loss = summed * self.args.gradient_accumulation_steps / self.plan.trainable_tokens[self.state.global_step]
        else:
            loss = summed / (labels != IGNORE_INDEX).sum()
        return (loss, outputs) if return_outputs else loss


def build_trainer(  # noqa: PLR0913, PLR0917 - what a trainer is built of
    model: Any,
    settings: Settings,
    plan: BatchOrder,
    platform: str,
    callbacks: list[Any],
    resumed: SavedState | None = None,
) -> _PlanTrainer:
    """Build the trainer, with the adapter's weights in ``lora.adapter_dtype``.

    ``resumed`` is the checkpoint to go on from.

    Raises:
        MicroBatchError: The trainer would take other micro-batches than the plan counts.
        ResumeError: The checkpoint's adapter is not of this run's shape.
    """
    tokenizer = load_tokenizer(settings)
    stack, training = installed_stack(), settings.training
    shared = training_arguments(settings, plan, platform)
    arguments = stack.generation.training_arguments(shared, training.torch_empty_cache_steps)
    require_micro_batch(arguments, arguments.train_batch_size)
    padded = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE_INDEX)
    collator = PaddingFreeCollator() if training.padding_free else padded
    # trl rounds the adapter of a 4-bit base to bfloat16; its initial values are put back unrounded.
    initial = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    done = resumed.step if resumed else 0
    # A finished run that is only to be saved still needs a dataset that is not empty.
    trained = rows_for_trl(plan.rows, plan.order[min(done, plan.steps - 1) * plan.batch_size :])
    evaluated = rows_for_trl(plan.eval_rows, range(len(plan.eval_rows))) if plan.eval_rows else None
    resume = _Resume()
    shared = {
        "model": model,
        "args": arguments,
        "data_collator": collator,
        "train_dataset": trained,
        "eval_dataset": evaluated,
        "callbacks": [resume, *callbacks],
        **stack.generation.trainer_options(tokenizer, training.max_seq_length),
    }
    kind = _PlanTrainer if stack.traits.weighs_by_tokens else _TokenWeightedTrainer
    trainer = kind(plan, platform, resumed, **shared)
    resume.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    dtype = getattr(torch, settings.lora.adapter_dtype)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weight.data = initial[name].to(dtype)
    leave_out_idle_window(model.config, training.max_seq_length)
    if training.torch_compile:
        compile_layers(model)
    if resumed is not None:
        resumed.restore_adapter(model)
        trainer.state.global_step = done
    return trainer
