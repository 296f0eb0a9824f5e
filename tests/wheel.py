"""Builds the wheel, installs it in a clean environment and uses it from outside the checkout, as a user would.

The core must import without anything that only the trainer needs, and the command must be on the path.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CORE = """
import sys
from importlib.util import find_spec
import jax, jax.numpy as jnp
from flax import nnx

foreign = set(sys.modules)  # Flax itself brings optax, Orbax and rich: only what we add to them counts
import subquad.archs, subquad.kernels
from subquad.layers import Mamba2

y = Mamba2(64, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 64)))
assert y.shape == (1, 5, 64) and bool(jnp.isfinite(y).all())
trainer = {"optax", "orbax", "tyro", "polars", "rich", "matplotlib", "tokenizers", "tensorboardX"}
ours = {name.split(".")[0] for name in set(sys.modules) - foreign} & trainer
assert not ours and "subquad.experiments" not in sys.modules, ours
for package in ("kernels", "layers", "archs", "experiments"):
    assert "site-packages" in find_spec(f"subquad.{package}").origin, package
print("imported from the wheel:", find_spec("subquad.layers").origin.split("site-packages")[1])
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command and returns what it printed; its output is shown when it fails."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Builds, installs, imports, and asks the command for help."""
    with tempfile.TemporaryDirectory() as name:
        outside = Path(name)
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", outside, ROOT, cwd=outside)
        (wheel,) = outside.glob("subquad-*.whl")
        packages = {p.parent.relative_to(ROOT) for r in ("kernels", "layers", "archs", "experiments")
                    for p in (ROOT / r).rglob("*.py")}  # fmt: skip
        held = run(sys.executable, "-m", "zipfile", "-l", wheel, cwd=outside)
        missing = [p for p in packages if f"subquad/{p}/" not in held]
        assert not missing, f"the wheel lacks {missing}"
        venv.create(outside / "env", with_pip=True)
        python = outside / "env" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", wheel, cwd=outside)
        print(run(python, "-c", CORE, cwd=outside), end="")
        run(python, "-m", "pip", "install", "--quiet", f"{wheel}[lab]", cwd=outside)
        usage = run(python.parent / "subquad", "--help", cwd=outside)
        assert "compare" in usage, usage
        listed = run(python.parent / "subquad", "list", cwd=outside)
        assert "gated_deltanet" in listed, listed
        print("wheel: core import, packages and command work outside the checkout")


if __name__ == "__main__":
    main()
