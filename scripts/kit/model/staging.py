"""Give transformers a base as a folder with only the files that were checked.

``from_pretrained`` reads whatever it knows by name in a folder: an adapter, a pickle that an index names, code. This
folder has links to the checked safetensors files and a config.json that leaves nothing to a library's defaults. It has
no ``generation_config.json``: the caller sets all of generation.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kit.model.base import CONFIG, INDEX
from kit.model.families import completed, in_older_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.model.base import Base
    from kit.model.reader import Reader


@contextmanager
def as_judged(base: Base, reader: Reader) -> Iterator[Path]:
    """Yield the folder of a base that ``kit.model.usability`` accepted, to load its weights from."""
    config = completed(base.config)
    with tempfile.TemporaryDirectory(prefix="kit-base-") as name:
        folder = Path(name)
        for shard, path in base.shards.items():
            (folder / shard).symlink_to(path.resolve())
        if base.index:
            shutil.copyfile(base.index, folder / INDEX)
        content = in_older_words(config) if reader.older_words else config
        (folder / CONFIG).write_text(json.dumps(content), encoding="utf-8")
        yield folder
