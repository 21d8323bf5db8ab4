"""The image under test: built by tools/run_image_tests.py, which says here where it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from docker_image import DEMO, GID, UID, Image
from kit.image.engine import probe


@pytest.fixture(scope="session")
def image(tiny_base: Path) -> Image:
    tree, stack = os.environ.get("KIT_TEST_TREE"), os.environ.get("KIT_TEST_STACK")
    if not tree or not stack:
        pytest.skip("no image was built for this run: make test-image builds it and runs these")
    engine = probe(Path(tree))
    assert engine.client is not None
    image = Image(engine.client.path, engine.compose, os.environ["KIT_IMAGE"], stack, Path(tree))
    shutil.copytree(tiny_base, image.tree / "models" / "tiny", dirs_exist_ok=True)
    # As other people's files are: readable by the user inside, whoever that is.
    for path in (image.tree / "models", *(image.tree / "models").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for name in ("outputs", "measurements"):
        (image.tree / name).mkdir(exist_ok=True)
        if os.getuid() == 0:
            os.chown(image.tree / name, UID, GID)
    return image


@pytest.fixture(scope="session")
def short_run(image: Image) -> list[str]:
    """A run of a few steps; the reference stack has no 4-bit without a GPU."""
    settings = [DEMO, "model.model_name_or_path=models/tiny", "training.max_steps=3", "training.eval_steps=3"]
    settings += ["training.save_steps=3", "training.logging_steps=1", "training.per_device_train_batch_size=4"]
    return settings + (["quantization.load_in_4bit=false"] if image.stack == "reference" else [])
