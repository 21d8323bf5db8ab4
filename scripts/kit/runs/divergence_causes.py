"""What most likely explains that two runs part, of all that is recorded of them; where nothing does, that is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.files.numbers import listed
from kit.runs.loss_curves import LOSS, size_of, steps
from kit.runs.surroundings import can_change_bits
from kit.train.resume import MAY_DIFFER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.run_folder.history import Run
    from kit.runs.comparison import Difference
    from kit.runs.loss_curves import Course

SAME, OTHER, UNKNOWN = "the same", "another", "not recorded"
# What acts through the updates alone: the first step's loss is taken before any.
_ACTS_LATER = frozenset(
    {
        "training.learning_rate",
        "training.lr_scheduler_type",
        "training.max_grad_norm",
        "training.max_steps",
        "training.num_train_epochs",
        "training.optim",
        "training.warmup_ratio",
        "training.weight_decay",
    }
)
_ACTS_ON_EVALUATIONS = frozenset({"training.per_device_eval_batch_size"})
# float32 keeps 6e-8 of a number, and some roundings add up within one loss.
ROUNDING = 1e-5
_MOST_NAMED = 4


def explain(  # noqa: PLR0911 - a sentence each
    runs: Sequence[Run], differences: Sequence[Difference], traces: Mapping[str, Course], start: str, end: str
) -> str:
    """Say what most likely explains what differs; of what is not recorded nothing is said."""
    course = traces[LOSS]
    if not course.trace.compared:
        return "There is no step that both runs have, so nothing can be said about where they part."
    gap = next((found for name in traces if (found := traces[name].trace.first_gap)), None)
    if gap is None:
        adapters = {SAME: ", and so are their adapters", OTHER: ", and yet their adapters differ: make verify"}
        besides = _list([found.name for found in differences])
        although = f", although these differ: {besides}" if differences else ""
        equal = f"The runs are equal to the last bit over the {steps(course.trace.compared)} they share"
        return f"{equal}{adapters.get(end, '')}{although}."
    if start == OTHER:
        shape = [found.name for found in differences if found.name.startswith(("lora.", "training.seed", "base model"))]
        return f"They began with other adapters: {_list(shape) or 'nothing recorded says why'}."
    first = course.trace.first_gap
    if first is None:
        apart = _list([name for name, other in traces.items() if other.trace.gaps])
        by_data = [found.name for found in differences if found.name.startswith("val ")]
        by_config = [found.name for found in differences if found.name in _ACTS_ON_EVALUATIONS]
        explained = f": {_list(by_data + by_config)}" if by_data or by_config else ""
        return f"The training losses are equal to the last bit; what is not: {apart}{explained}."
    lead = f"They part at step {first.step:,}, by {size_of(first)}"
    if suspects := _suspects(differences, at_start=course.equal_before == 0):
        return f"{lead}; of what differs, this can explain it: {_list(suspects)}."
    if any(len(listed(run.receipt.get("sessions"))) > 1 for run in runs):
        return f"{lead}; nothing that is recorded differs, but one was stopped and resumed: make verify on its folder."
    if {str(run.receipt.get("platform")) for run in runs} == {"cpu"}:
        return f"{lead}, and nothing recorded explains it; on a CPU no more than another number of threads should."
    if first.relative <= ROUNDING:
        return f"{lead}; nothing recorded explains it but rounding: a GPU may add up in another order each time."
    return (
        f"{lead}, and nothing recorded explains it; it is more than rounding, so train one of them again and compare."
    )


def _suspects(differences: Sequence[Difference], *, at_start: bool) -> list[str]:
    """Return what could have moved the training losses, the likeliest first.

    Args:
        differences: All there are.
        at_start: The very first loss differs, so that what acts through the updates is not it.
    """
    found: list[tuple[int, str]] = []
    for difference in differences:
        group, name = difference.group, difference.name
        if group == "config" and name not in MAY_DIFFER and name not in _ACTS_ON_EVALUATIONS:
            if not (at_start and name in _ACTS_LATER):
                found.append((0 if at_start or name in _ACTS_LATER else 1, name))
        elif (group == "data" and name in {"rows as encoded", "order of the rows"}) or name.startswith("base model "):
            found.append((0 if at_start else 1, f"the {name}"))
        elif group == "code":
            found.append((2, "the kit's revision" if name == "git_revision" else "uncommitted changes of the kit"))
        elif group == "stack" and (name in {"stack", "attention"} or can_change_bits(name)):
            found.append((2, f"{name} {difference.first} and {difference.second}"))
        elif group == "image" and name in {"id", "source_sha256"}:
            found.append((2, "the image"))
        elif group == "machine" and name != "cpu_count":
            found.append((3, f"{name}: {difference.first} and {difference.second}"))
    return list(dict.fromkeys(name for _, name in sorted(found, key=lambda item: item[0])))


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown + (f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")
