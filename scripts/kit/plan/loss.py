"""What the loss keeps and needs: all logits at once, or a tile of them at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.plan.step import MicroBatch, TrainingStep
    from kit.plan.workload import Workload

_FLOAT32 = 4
# trl 1.16, trl/kernels/chunked_logprob.py and trl/trainer/utils.py: the tile of logits that exists at a time.
_TILE_TOKENS, _TILE_VOCABULARY = 4_096, 32_768
_WITHOUT_TRITON = 29  # bytes a logit of the tile


def scored_tokens(job: TrainingStep, work: MicroBatch | Workload) -> int:
    """Tokens that meet the head of a loss in tiles: trl scores only labelled ones where Triton is."""
    return work.loss_tokens if job.device == "cuda" else work.predicted_tokens


def saved_by_loss(job: TrainingStep) -> int:
    """Return what the loss keeps for the backward pass, in bytes."""
    shape, batch = job.shape, job.batch
    shifted = batch.predicted_tokens
    if not job.stack.loss_in_tiles:
        # log_softmax keeps its float32 result, and the labels are kept.
        weight = shape.vocab_size * shape.hidden_size * job.compute_size
        cast = weight if job.is_mixed and job.base_size != job.compute_size else 0
        return shifted * (shape.vocab_size * _FLOAT32 + 8) + 4 + cast
    scored = scored_tokens(job, job.batch)
    hidden = scored * shape.hidden_size * job.base_size
    # Targets, the normaliser and the entropy of each, and the mask twice.
    return hidden + scored * (8 + 2 * _FLOAT32) + 2 * shifted + 8


def loss_work_bytes(job: TrainingStep) -> int:
    """Return what computing the loss needs above what it keeps, in bytes.

    Whole: besides the kept log-probabilities two float32 tensors of all logits, forward and backward alike.
    In tiles: a tile of logits in the compute type and the hidden states' gradient in float32 and its own type. Without
    Triton (CPU, MPS) a tile is worked on in float32: seven tensors of it and a mask, 29 bytes a logit.
    """
    shape = job.shape
    if not job.stack.loss_in_tiles:
        return 2 * job.batch.predicted_tokens * shape.vocab_size * _FLOAT32
    scored = scored_tokens(job, job.batch)
    tile_tokens = min(scored, _TILE_TOKENS)
    tile = tile_tokens * _TILE_VOCABULARY * job.compute_size
    gradient = scored * shape.hidden_size * _FLOAT32
    if job.device == "cuda":
        return tile + gradient + (scored * shape.hidden_size * job.base_size if job.base_size < _FLOAT32 else 0)
    return tile + gradient + _WITHOUT_TRITON * tile_tokens * min(shape.vocab_size, _TILE_VOCABULARY)
