"""Text from a trained run."""

from pathlib import Path
from typing import Any

from .errors import UserError


def sample(directory: Path, prompt: str, tokens: int, temperature: float, top_k: int | None, seed: int) -> str:
    """The prompt and what the model writes after it.

    Args:
      directory: the run, on bytes or a tokenizer.
      prompt: at least one character.
      tokens: how many to draw.
      temperature: 0 takes the likeliest token.
      top_k: draw from the k likeliest only; None from all.
      seed: equal seeds give equal text.

    Raises:
      UserError: it is no run of text, it has no model yet, or an argument is out of range.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ..archs import generate
    from .train import load_run

    run, lm = load_run(directory)
    source = run.data.build()
    if source.metric != "bits_per_byte":
        raise UserError(f"{directory} was not trained on text: there is nothing to print")
    tokenizer = _tokenizer(run.data)
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids if tokenizer else list(prompt.encode())
    if not ids:
        raise UserError("--prompt is empty: give it at least one character")
    try:
        drawn = generate(lm, jnp.asarray([ids]), tokens, key=jax.random.key(seed), temperature=temperature, top_k=top_k)
    except ValueError as error:
        raise UserError(str(error)) from error
    drawn = np.asarray(drawn[0]).tolist()
    return prompt + (tokenizer.decode(drawn) if tokenizer else bytes(drawn).decode(errors="replace"))


def _tokenizer(data: Any) -> Any:
    path = getattr(data, "tokenizer", None)
    if path is None:
        return None
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(path).expanduser()))
