import ast
import tomllib
from fnmatch import fnmatch

from kit.cli.interpreter import PROJECT_ROOT

SCRIPTS = PROJECT_ROOT / "scripts"
RUFF = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
FOR_PYTHON_3_9 = set(RUFF["per-file-target-version"])


def imported(module: str) -> set[str]:
    """Every module of the kit that a module imports, at the top or inside a function, as a path."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((SCRIPTS / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    paths = {f"{name.replace('.', '/')}{ending}" for name in names for ending in (".py", "/__init__.py")}
    return {path for path in paths if path.startswith("kit") and (SCRIPTS / path).exists()}


def test_what_runs_before_anything_is_installed_is_linted_for_python_3_9() -> None:
    reached = {path.removeprefix("scripts/") for path in FOR_PYTHON_3_9 if path.count("/") == 1}
    assert {"setup_environment.py", "check_gpu.py"} <= reached
    waiting = set(reached)
    while waiting:
        waiting = {path for module in waiting for path in imported(module)} - reached
        reached |= waiting
    patterns = {path.removeprefix("scripts/") for path in FOR_PYTHON_3_9}
    reached |= {"/".join(path.split("/")[:-1]) + "/__init__.py" for path in reached if "/" in path}
    assert {path for path in reached if not any(fnmatch(path, pattern) for pattern in patterns)} == set()
    assert {pattern for pattern in patterns if not any(fnmatch(path, pattern) for path in reached)} == set()
