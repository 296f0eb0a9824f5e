"""Names for the leaves of a training state: checkpoints, sharding and weight decay all go by them."""

from typing import Any

import jax


def names(tree: Any) -> Any:
    """The same tree with each leaf replaced by its path, such as ``params/periods/0/mixer/q/kernel``."""

    def name(path: tuple, _) -> str:
        return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")

    return jax.tree_util.tree_map_with_path(name, tree)


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves by name: a form that does not depend on the classes the tree is made of."""
    flat = dict(zip(jax.tree.leaves(names(tree)), jax.tree.leaves(tree), strict=True))
    assert len(flat) == len(jax.tree.leaves(tree)), "two leaves of one name"
    return flat


def unflatten(flat: dict[str, Any], like: Any) -> Any:
    """The tree with the structure of ``like`` whose leaves are ``flat``'s: undoes :func:`flatten`."""
    return jax.tree.map(lambda name: flat[name], names(like))
