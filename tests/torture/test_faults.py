"""What goes wrong around a run: a full disk, a failing one, a folder that vanishes, a loss that is no number.

Each time the run ends with a sentence, what was saved before is whole, and the resumed run ends as one nobody touched.
"""

from __future__ import annotations

import errno
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from fake_wandb import serving
from kit.run_directory import checkpoints, disk_space
from kit.run_directory.receipt import read_receipt
from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torture.kills import Torture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> Torture:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    from torture.kills import Torture

    four_bit = "cpu" in installed_stack().traits.four_bit_platforms
    return Torture(tmp_path_factory.mktemp("faults"), steps=7, save_steps=3, seed=1, four_bit=four_bit)


def _at_save(number: int, fault: Callable[[Path], None]) -> Callable[[], None]:
    """Arrange for ``fault`` to strike, with the half-written folder, during a run's save of that number."""

    def arrange() -> None:
        write, seen = checkpoints.write, 0

        def faulty(parent: Path, step: int, fill: Callable[[Path], None], facts: dict[str, Any]) -> object:
            nonlocal seen
            seen += 1

            def fill_and_fail(folder: Path) -> None:
                fill(folder)
                if seen == number:
                    fault(folder)

            return write(parent, step, fill_and_fail, facts)

        checkpoints.write = faulty  # type: ignore[assignment]

    return arrange


def _raise(number: int) -> Callable[[Path], None]:
    def fault(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(folder))

    return fault


def _said(torture: Torture) -> str:
    return (torture.folder / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "the disk failed to read or write"),
    ],
)
def test_a_save_that_fails_costs_nothing_that_was_saved(torture: Torture, number: int, told: str) -> None:
    name = errno.errorcode[number]
    assert torture.attempt(name, in_child=_at_save(2, _raise(number))) == 1
    receipt = read_receipt(torture.folder / name)
    assert receipt is not None
    assert receipt["state"] == "failed"
    found, damaged = checkpoints.newest(torture.folder / name / "checkpoints")
    assert found is not None
    assert (found.step, damaged) == (3, [])
    assert told in _said(torture)
    assert "step 3 is saved" in _said(torture)
    assert "Traceback" not in _said(torture)
    assert torture.attempt(name) == 0
    assert torture.is_as_expected(name)


def test_a_disk_that_fills_up_is_noticed_before_the_save_begins(torture: Torture) -> None:
    def fill_up() -> None:
        free = iter([10**12, 10**3])
        disk_space.disk_free_bytes = lambda _folder: next(free)

    assert torture.attempt("filling", in_child=fill_up) == 1
    assert [path.name for path in (torture.folder / "filling/checkpoints").iterdir()] == ["checkpoint-3"]
    assert torture.attempt("filling") == 0
    assert torture.is_as_expected("filling")


@pytest.fixture
def small_disk(torture: Torture) -> Iterator[Path]:
    """A disk of its own under the run ``small``, with room for one checkpoint and a half."""
    size = sum(path.stat().st_size for path in (torture.folder / "peace/checkpoints/checkpoint-6").iterdir())
    place = torture.folder / "small"
    place.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size * 3 // 2}"]
    mounted = subprocess.run(["mount", *options, "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.decode(errors='replace').strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk is a tmpfs")
def test_a_disk_that_is_really_full_is_survived(torture: Torture, small_disk: Path) -> None:
    def look_away() -> None:
        disk_space.require = lambda _folder, _needed: None

    assert torture.attempt("small", in_child=look_away) == 1
    found, damaged = checkpoints.newest(small_disk / "checkpoints")
    assert found is not None
    assert (found.step, damaged) == (3, [])
    assert "the disk is full" in _said(torture)
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    assert torture.attempt("small") == 0
    assert torture.is_as_expected("small")


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk is a tmpfs")
def test_a_read_only_disk_is_one_sentence(torture: Torture, small_disk: Path) -> None:
    before = len(_said(torture))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert torture.attempt("small") == 1
    said = _said(torture)[before:]
    assert "the file system is read-only" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1000]), "is not a complete safetensors file"),
        (lambda file: file.write_bytes(b"\xff" * 1000), "is not a complete safetensors file"),
        (lambda file: file.unlink(), "has no model.safetensors"),
    ],
    ids=["cut off", "garbage", "gone"],
)
def test_a_base_that_breaks_after_the_checks_is_one_sentence(
    torture: Torture, tmp_path: Path, how: Callable[[Path], object], told: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(torture.folder / "base", base)
    how(base / "model.safetensors")
    before, name = len(_said(torture)), tmp_path.name
    assert torture.attempt(name, changes={"model.model_name_or_path": str(base)}) == 1
    said = _said(torture)[before:]
    assert f"error  {base}" in said
    assert told in said
    assert "Traceback" not in said
    assert "bug" not in said
    assert (torture.folder / name / "error.txt").exists()


def test_a_folder_that_vanishes_is_one_sentence(torture: Torture) -> None:
    before = len(_said(torture))
    assert torture.attempt("vanished", in_child=_at_save(2, lambda folder: shutil.rmtree(folder.parents[1]))) == 1
    said = _said(torture)[before:]
    assert "no such file or directory" in said
    assert "Traceback" not in said
    assert not (torture.folder / "vanished").exists()


def _spoil(step: int, value: float) -> Callable[[], None]:
    def arrange() -> None:
        from kit.train import trainer

        kind = trainer._PlanTrainer
        compute = kind.training_step

        def spoilt(self: Any, *args: Any, **kwargs: Any) -> Any:
            loss = compute(self, *args, **kwargs)
            if self.state.global_step + 1 >= step:
                for weight in self.model.parameters():
                    if weight.grad is not None:
                        weight.grad.mul_(value)
                self.step_losses[self.state.global_step + 1] *= value
            return loss

        kind.training_step = spoilt

    return arrange


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_rows(torture: Torture) -> None:
    assert torture.attempt("nan", in_child=_spoil(5, float("nan"))) == 1
    receipt = read_receipt(torture.folder / "nan")
    assert receipt is not None
    (bad,) = receipt["bad_losses"]
    assert (receipt["state"], bad["kind"], bad["step"]) == ("failed", "not_finite", 5)
    places = torture.job.plan.order[16:20]
    rows = torture.job.plan.rows
    assert bad["rows"] == [f"{torture.job.files[0].path}:{rows[index].line}" for index in places]
    found, _ = checkpoints.newest(torture.folder / "nan/checkpoints")
    assert found is not None
    assert found.step == 3
    assert '"loss": null' in (torture.folder / "nan/metrics.jsonl").read_text(encoding="utf-8")
    assert torture.attempt("nan") == 0
    assert torture.is_as_expected("nan")


def test_with_warn_the_run_goes_on_and_no_spoilt_adapter_replaces_a_good_one(torture: Torture) -> None:
    before = len(_said(torture))
    changes = {"training.on_bad_loss": "warn"}
    assert torture.attempt("warned", in_child=_spoil(5, float("nan")), changes=changes) == 1
    found, damaged = checkpoints.newest(torture.folder / "warned/checkpoints")
    assert found is not None
    assert (found.step, damaged) == (3, [])
    assert not (torture.folder / "warned/adapter").exists()
    said = _said(torture)[before:]
    assert said.count("the loss is nan at step") == 1
    assert "the loss is nan at step 5" in said
    assert "step 6 not saved" in said


def test_a_loss_stuck_at_zero_ends_the_run(torture: Torture) -> None:
    assert torture.attempt("zero", in_child=_spoil(3, 0.0)) == 1
    receipt = read_receipt(torture.folder / "zero")
    assert receipt is not None
    assert [(bad["kind"], bad["step"]) for bad in receipt["bad_losses"]] == [("zero", 5)]


def _hang_at(step: int, until: Callable[[], bool]) -> Callable[[], None]:
    """Arrange for a micro-batch of a step not to end until something is true, under a watch that does not wait long."""

    def arrange() -> None:
        from kit.supervise import stall
        from kit.train import trainer

        stall.GRACE_S = 0.5
        kind = trainer._PlanTrainer
        compute = kind.training_step

        def hang(self: Any, *args: Any, **kwargs: Any) -> Any:
            while self.state.global_step + 1 == step and not until():
                time.sleep(0.05)
            return compute(self, *args, **kwargs)

        kind.training_step = hang

    return arrange


def test_a_step_that_stalls_ends_the_run_and_says_where_it_stood(torture: Torture) -> None:
    before = len(_said(torture))
    folder = torture.folder / "stalled"
    changes = {"training.stall_timeout": 2}
    assert torture.attempt("stalled", in_child=_hang_at(5, lambda: False), changes=changes) == 1
    receipt = read_receipt(folder)
    assert receipt is not None
    assert (receipt["state"], receipt["sessions"][-1]["state"]) == ("failed", "failed")
    (found,) = receipt["stalls"]
    rows = [torture.job.plan.rows[index].line for index in torture.job.plan.order[16:20]]
    assert (found["what"], found["went_on"]) == ("step 5", False)
    assert found["rows"] == [f"{torture.job.files[0].path}:{line}" for line in rows]
    main, *_ = (folder / "stalled.txt").read_text(encoding="utf-8").split("\nthread ")[1:]
    assert main.startswith("MainThread")
    assert "time.sleep(0.05)" in main
    said = _said(torture)[before:]
    assert "step 5 stalled: no progress for" in said
    assert "training.stall_timeout" in said
    assert "step 3 is saved" in said
    saved, damaged = checkpoints.newest(folder / "checkpoints")
    assert saved is not None
    assert (saved.step, damaged) == (3, [])
    assert torture.attempt("stalled") == 0
    (folder / "stalled.txt").unlink()
    assert torture.is_as_expected("stalled")


def test_with_warn_a_step_that_comes_back_changes_nothing(torture: Torture) -> None:
    before = len(_said(torture))
    note = torture.folder / "waited/stalled.txt"
    changes = {"training.stall_timeout": 2, "training.on_stall": "warn"}
    assert torture.attempt("waited", in_child=_hang_at(5, note.exists), changes=changes) == 0
    receipt = read_receipt(torture.folder / "waited")
    assert receipt is not None
    assert [(found["what"], found["went_on"]) for found in receipt["stalls"]] == [("step 5", True)]
    assert "step 5 finished after" in _said(torture)[before:]
    note.unlink()
    assert torture.is_as_expected("waited")


@pytest.mark.parametrize("how", ["hangs", "fails", "nothing"])
def test_a_wandb_out_of_reach_changes_nothing(torture: Torture, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    name, before = f"wandb-{how}", len(_said(torture))
    changes = {"training.report_to": "wandb", "wandb.project": "p", "wandb.mode": "online"}

    def arrange() -> None:
        from kit.track import wandb_tracker as curves

        curves.BEGIN_S = 2.0

    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with serving(how) as (address, _):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert torture.attempt(name, in_child=arrange, changes=changes) == 0
    receipt = read_receipt(torture.folder / name)
    assert receipt is not None
    facts = receipt["wandb"]
    assert (facts["mode"], facts["sync"]) == ("offline", f"wandb sync {facts['folder']}")
    assert list((torture.folder / name).glob("wandb/offline-run-*/*.wandb"))
    said = _said(torture)[before:]
    assert "Traceback" not in said
    assert facts["sync"] in said.splitlines()[-1]
    shutil.rmtree(torture.folder / name / "wandb")
    assert torture.is_as_expected(name)


def test_a_run_on_a_base_from_the_hub_never_asks_the_network(torture: Torture) -> None:
    """As after a network that died between the checks and the load, and with nothing that says so."""
    cache = torture.folder / "hub"
    repository = cache / "models--owner--small"
    shutil.copytree(torture.folder / "base", repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("a" * 40, encoding="utf-8")
    asked = torture.folder / "asked.txt"

    def no_network() -> None:
        import huggingface_hub.constants
        import transformers.utils.hub

        for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            os.environ.pop(variable, None)
        huggingface_hub.constants.HF_HUB_OFFLINE = False
        huggingface_hub.constants.HF_HUB_CACHE = str(cache)
        transformers.utils.hub.TRANSFORMERS_CACHE = str(cache)  # of transformers 4.36

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in {"socket.connect", "socket.getaddrinfo"}:
                with asked.open("a", encoding="utf-8") as file:
                    file.write(f"{event} {arguments}\n")
                raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

        sys.addaudithook(hook)

    changes = {"model.model_name_or_path": "owner/small"}
    assert torture.attempt("from-hub", in_child=no_network, changes=changes) == 0, _said(torture)[-2000:]
    assert not asked.exists(), asked.read_text(encoding="utf-8")
    assert torture.is_as_expected("from-hub")


@pytest.mark.parametrize("jump_s", [-10 * 86_400.0, 10 * 86_400.0])
def test_a_clock_that_jumps_in_mid_run_changes_nothing(torture: Torture, jump_s: float) -> None:
    name = f"jump{jump_s:+.0f}"

    def arrange() -> None:
        """Set the clock in the first save: for Python, and for the file system, which stamps by another clock."""
        from kit.run_directory import receipt

        now, offset = time.time, [0.0]
        time.time = lambda: now() + offset[0]
        receipt._now = lambda: datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
        write = checkpoints.write

        def jump(parent: Path, *args: Any) -> object:
            written = write(parent, *args)
            offset[0] = jump_s
            for path in (written.folder, *written.folder.iterdir()):
                os.utime(path, (time.time(), time.time()))
            return written

        checkpoints.write = jump  # type: ignore[assignment]

    changes = {"training.stall_timeout": 60}
    assert torture.attempt(name, in_child=arrange, changes=changes) == 0
    receipt = read_receipt(torture.folder / name)
    assert receipt is not None
    assert 0 < receipt["seconds"] < 3600
    steps = [json.loads(line) for line in (torture.folder / name / "metrics.jsonl").read_text("utf-8").splitlines()]
    seconds = [line["seconds"] for line in steps if "seconds" in line]
    assert seconds == sorted(seconds)
    assert seconds[-1] < 3600
    assert "stalls" not in receipt
    assert torture.is_as_expected(name)


def test_the_newest_checkpoint_is_the_one_of_the_latest_step_whatever_its_date(torture: Torture) -> None:
    parent = torture.folder / "dates/checkpoints"
    shutil.copytree(torture.folder / "peace/checkpoints", parent)
    for age, (_, folder) in enumerate(checkpoints.folders(parent)):
        for path in (folder, *folder.iterdir()):
            os.utime(path, (age * 86_400.0, age * 86_400.0))
    found, _ = checkpoints.newest(parent)
    assert found is not None
    assert found.step == 7


def _burst(*_: object) -> None:
    """Send what a batch system, a launcher and a lost connection send, in any mix."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(os.getpid(), number)


def _around(place: str, name: str) -> Callable[[], None]:
    """Arrange for bursts of signals before and after each call of something."""

    def arrange() -> None:
        owner = pkgutil.resolve_name(place)
        call = getattr(owner, name)

        def struck(*args: Any, **kwargs: Any) -> Any:
            _burst()
            try:
                return call(*args, **kwargs)
            finally:
                _burst()

        setattr(owner, name, struck)

    return arrange


@pytest.mark.parametrize(
    ("moment", "arrange", "code", "newest"),
    [
        ("loading", _around("kit.modeling.model", "load_base_model"), 143, 0),
        ("save", _at_save(2, _burst), 143, 6),
        ("evaluation", _around("kit.train.trainer:_PlanTrainer", "evaluate"), 143, 4),
        ("adapter", _around("kit.train.saving", "save_run"), 0, 7),
        ("receipt", _around("kit.run_directory.receipt:Receipt", "finish"), 0, 7),
    ],
)
def test_signals_that_are_repeated_end_in_one_clean_save_at_every_moment(
    torture: Torture, moment: str, arrange: Callable[[], None], code: int, newest: int
) -> None:
    """A second one ended the process at once: no checkpoint, and a receipt that said that the run trains."""
    name = f"repeated-{moment}"
    assert torture.attempt(name, in_child=arrange) == code
    receipt = read_receipt(torture.folder / name)
    assert receipt is not None
    assert receipt["state"] == ("interrupted" if code else "finished")
    found, damaged = checkpoints.newest(torture.folder / name / "checkpoints")
    assert (found.step if found else 0, damaged) == (newest, [])
    assert torture.attempt(name) == 0
    assert torture.is_as_expected(name)
