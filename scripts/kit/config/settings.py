"""The configuration as typed, frozen data: what everything past the loader works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from kit.config import keys  # noqa: TC001 - the annotations are read


@dataclass(frozen=True)
class Settings:
    """One run's whole configuration, validated and complete."""

    model: keys.ModelSettings
    quantization: keys.QuantizationSettings
    lora: keys.LoraSettings
    data: keys.DataSettings
    training: keys.TrainingSettings
    wandb: keys.WandbSettings

    @classmethod
    def from_mapping(cls, values: Mapping[str, Mapping[str, Any]]) -> Settings:
        """Build from a mapping that the schema has completed: every key present, every value of its type."""
        sections = get_type_hints(cls)
        return cls(**{name: _section(section, values[name]) for name, section in sections.items()})

    def as_mapping(self) -> dict[str, Any]:
        """Return plain nested dictionaries, for JSON and for the receipt."""
        return asdict(self)

    def value(self, path: str) -> Any:
        """Return the value of a dotted path."""
        section, name = path.split(".")
        return getattr(getattr(self, section), name)

    def with_changes(self, changes: Mapping[str, Any]) -> Settings:
        """Return a configuration with some values replaced, by dotted path."""
        sections: dict[str, dict[str, Any]] = {}
        for path, value in changes.items():
            section, name = path.split(".")
            sections.setdefault(section, {})[name] = value
        return replace(self, **{name: replace(getattr(self, name), **body) for name, body in sections.items()})

    @property
    def run_directory(self) -> Path:
        """Where the run writes: ``training.output_dir``, or ``outputs/<run_name>``."""
        return Path(self.training.output_dir or Path("outputs") / self.training.run_name).expanduser()

    @property
    def effective_batch_size(self) -> int:
        """Rows per optimizer step on one device: micro-batch times accumulation."""
        return self.training.per_device_train_batch_size * self.training.gradient_accumulation_steps

    @property
    def mixed_precision(self) -> str | None:
        """The type that training's autocast computes in; None without it."""
        return "bfloat16" if self.training.bf16 else "float16" if self.training.fp16 else None


def _section(section: type[Any], values: Mapping[str, Any]) -> Any:
    """Build one section; what is left to the kit is false until it is decided: nobody finds a word in a switch."""
    typed = {}
    for declared in fields(section):
        value = values[declared.name]
        decided = value is True if declared.metadata["meta"]["or_auto"] else value
        typed[declared.name] = tuple(decided) if isinstance(decided, list) else decided
    return section(**typed)
