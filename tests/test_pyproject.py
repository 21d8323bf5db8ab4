import ast
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from kit.cli.interpreter import PROJECT_ROOT

RUFF = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
FOR_PYTHON_3_9 = set(RUFF["per-file-target-version"])
_FOLDERS = {"kit": "scripts/", "tools": ""}


def imported(module: str) -> set[str]:
    """Every module of the kit and its tools that a module imports, at the top or inside a function, as a path."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PROJECT_ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {name for name in names if name.split(".")[0] in _FOLDERS}
    stems = {_FOLDERS[name.split(".")[0]] + name.replace(".", "/") for name in ours}
    paths = {f"{stem}{ending}" for stem in stems for ending in (".py", "/__init__.py")}
    return {path for path in paths if (PROJECT_ROOT / path).exists()}


def test_what_runs_before_anything_is_installed_is_linted_for_python_3_9() -> None:
    begun = {"tools/setup_environment.py", "scripts/check_gpu.py", "scripts/kit/__main__.py"}
    begun |= {f"scripts/kit/commands/{name}.py" for name in ("detect", "image")}
    reached = begun | {path for path in FOR_PYTHON_3_9 if path.count("/") == 1 and not path.endswith("__init__.py")}
    waiting = set(reached)
    while waiting:
        waiting = {path for module in waiting for path in imported(module)} - reached
        reached |= waiting
    packages = {f"{folder}/__init__.py" for path in reached for folder in Path(path).parents}
    reached |= {path for path in packages if (PROJECT_ROOT / path).exists()}
    assert {path for path in reached if not any(fnmatch(path, pattern) for pattern in FOR_PYTHON_3_9)} == set()
    assert {pattern for pattern in FOR_PYTHON_3_9 if not any(fnmatch(path, pattern) for path in reached)} == set()
