"""Checkpoints of a run, by Orbax: written beside training, checked when read, the newest and the periodic ones kept."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import UserError
from .step import State
from .tree import flatten, unflatten

CHECKSUM = "checksum"
MODEL = ("params", "constants")
"""The fields of a state that make the model: an item of their own, so that they are read without the optimizer."""


class Checkpoints:
    """The checkpoints in a directory. Leaves are stored by name, so that no class has to exist to read them.

    Args:
        directory: where they are, or will be.
        keep_last: how many of the newest are kept.
        keep_every: those whose step is a multiple of this are kept too; 0: none.
        read_only: whether to leave the directory alone: a run may be writing to it.
        say: takes one line for the user.
    """

    def __init__(
        self,
        directory: Path,
        keep_last: int = 1,
        keep_every: int = 0,
        *,
        read_only: bool = False,
        say: Callable[[str], None] = print,
    ):
        # Orbax takes most of a second to import: not before a run needs it.
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

        self.directory, self.say, self.args = directory.resolve(), say, ocp.args
        kept = [policy.LatestN(keep_last), *([policy.EveryNSteps(keep_every)] if keep_every else [])]
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy(kept),
            create=not read_only,
            cleanup_tmp_directories=not read_only,
        )
        self._open: Callable[[], Any] = lambda: ocp.CheckpointManager(self.directory, options=self._options)
        self.manager = self._open()

    def save(self, step: int, state: State, *, model_only: bool = False) -> None:
        """Starts writing a state; returns once it is safe to go on, having awaited the save before."""
        self.wait()
        model, rest = _split(state)
        items = {"model": model} if model_only else {"model": model, "rest": rest}
        save = {name: self.args.StandardSave(item | {CHECKSUM: _checksum(item)}) for name, item in items.items()}
        self.manager.save(step, args=self.args.Composite(**save))

    def wait(self) -> None:
        """Waits until the last save is on disk."""
        self.manager.wait_until_finished()

    def restore(self, like: State) -> State | None:
        """The newest state that can be read, or None if there is none.

        One that cannot be read, or whose checksum is wrong, is set aside (in ``corrupt/`` beside the checkpoints) with
        a line that says so, and the one before is taken.

        Args:
            like: shapes and shardings; these may differ from those at the time of saving.
        """
        for step in sorted(self.manager.all_steps(), reverse=True):
            if not (self.directory / str(step) / "rest").exists():
                self.manager.delete(step)  # a final model, whose run was cut off before it wrote its result
                continue
            try:
                model, rest = self._read(step, dict(zip(("model", "rest"), _split(like), strict=True)))
                return unflatten(model | rest, like)
            except Exception as error:
                self._set_aside(step, str(error).split("\n")[0][:120])
        return None

    def restore_model(self, like: State) -> State:
        """The newest model: a state whose optimizer and counters are those of ``like``.

        Raises:
            UserError: there is none that can be read.
        """
        model, rest = _split(like)
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                return unflatten(self._read(step, {"model": model})[0] | rest, like)
            except Exception as error:
                self.say(f"checkpoint {step} cannot be read ({str(error).split('\n')[0][:120]}): trying the one before")
        raise UserError(f"there is no checkpoint that can be read in {self.directory}")

    def close(self) -> None:
        """Waits, and lets go of the directory."""
        self.manager.close()

    def _read(self, step: int, like: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        targets = {
            name: self.args.StandardRestore(item | {CHECKSUM: jax.eval_shape(_checksum, item)})
            for name, item in like.items()
        }
        restored = self.manager.restore(step, args=self.args.Composite(**targets))
        items = []
        for name in like:
            item = dict(restored[name])
            if not np.array_equal(item.pop(CHECKSUM), _checksum(item)):
                raise ValueError("its checksum is wrong")
            items.append(item)
        return items

    def _set_aside(self, step: int, reason: str) -> None:
        self.manager.close()
        corrupt = self.directory.parent / "corrupt" / str(step)
        shutil.rmtree(corrupt, ignore_errors=True)
        corrupt.parent.mkdir(exist_ok=True)
        (self.directory / str(step)).rename(corrupt)
        self.manager = self._open()
        before = self.manager.latest_step()
        fallback = "starting over, as there is none before it" if before is None else f"falling back to {before}"
        self.say(f"checkpoint {step} cannot be read ({reason}); set aside in {corrupt}; {fallback}")


def _split(state: State) -> tuple[dict[str, Any], dict[str, Any]]:
    """The leaves by name: those of the model, and the others."""
    flat = flatten(state)
    model = {name: leaf for name, leaf in flat.items() if name.split("/")[0] in MODEL}
    return model, {name: leaf for name, leaf in flat.items() if name not in model}


@jax.jit
def _checksum(item: dict[str, jax.Array]) -> jax.Array:
    """A sum of each leaf's bits, in the order of their names: Orbax does not notice a flipped bit."""

    def bits(leaf: jax.Array) -> jax.Array:
        if leaf.dtype == jnp.bool_:
            return leaf.sum(dtype=jnp.uint32)
        width = jnp.dtype(f"uint{8 * min(leaf.dtype.itemsize, 4)}")
        return jax.lax.bitcast_convert_type(leaf, width).astype(jnp.uint32).sum(dtype=jnp.uint32)

    return jnp.stack([bits(item[name]) for name in sorted(item)])
