"""The commands, with their options. Each imports what it needs when it runs, so that ``--help`` is quick."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from .errors import UserError, nearest

if TYPE_CHECKING:
    from .config import RunConfig

Words = tuple[str, ...]
# What help shows instead of {None}|INT and (default: None), and of STR.
Whole = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
Number = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
Word = Annotated[str | None, arg(metavar="STR", help_behavior_hint="")]
Folder = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")]
File = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
Target = Annotated[str, arg(metavar="FILE.py:NAME", help_behavior_hint="")]
Wholes = Annotated[tuple[int, ...], arg(metavar="INT ...", help_behavior_hint="")]
Numbers = Annotated[tuple[float, ...], arg(metavar="FLOAT ...", help_behavior_hint="")]
Shapes = Annotated[tuple[str, ...], arg(metavar="T,H,K,V ...", help_behavior_hint="")]
Settings = Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="")]


@dataclass(frozen=True)
class Train:
    """Train one model: a run of your own (my.py:run), or a preset on some data. The same command continues it."""

    target: Positional[Annotated[str | None, arg(metavar="[FILE.py:NAME]", help_behavior_hint="")]] = None
    """FILE.py:NAME, a RunConfig or a function that returns one."""
    arch: str = "transformer"
    """An architecture (see `subquad list`), with +conv, -conv or +FIELD=VALUE for its mixers; or FILE.py:NAME."""
    size: str = "tiny"
    """The architecture's size."""
    data: Words = ("text",)
    """text, stdlib, mqar, parity, modular, selective_copying, or files and folders of .txt, .jsonl or .parquet."""
    length: Whole = None
    """Tokens of a training row."""
    steps: Whole = None
    batch: Whole = None
    """Sequences per step."""
    lr: Number = None
    """The peak learning rate."""
    seed: Whole = None
    set: Settings = ()
    """Any other setting as KEY=VALUE: optim.clip=0.5 model.pattern.0.head_dim=32."""
    out: Folder = None
    """The run's directory; by default runs/ and a name made from the settings."""
    tensorboard: bool = False
    """Also write for TensorBoard."""

    def __call__(self) -> int:
        """Runs the command."""
        from .metrics import TensorBoard
        from .sweep import point
        from .train import train

        run = self.run()
        name = self.target.rpartition(":")[2] if self.target else f"{self.arch.rpartition(':')[2]}-{self.data[0]}"
        directory = self.out or point(Path(name).name, run, Path("runs")).directory
        sinks = (TensorBoard(directory),) if self.tensorboard else ()
        result = train(run, directory, sinks=sinks)
        figures = result.validation | {f"test {name}": value for name, value in result.test.items()}
        report("  ".join(f"{name} {value:.4f}" for name, value in figures.items() if value is not None))
        report(str(directory))
        return 1 if result.diverged else 0

    def run(self) -> "RunConfig":
        """The configuration that the arguments describe."""
        from .config import RunConfig
        from .overrides import override
        from .targets import value

        if self.target:
            run = value(self.target)
            if not isinstance(run, RunConfig):
                raise UserError(f"{self.target} is not a RunConfig but {type(run).__name__}")
        else:
            run = default_run(self.arch, self.size, self.data)
        settings = {"steps": self.steps, "batch": self.batch, "seed": self.seed}
        settings |= {"optim.lr": self.lr, "data.length": self.length}
        given = [f"{name}={value}" for name, value in settings.items() if value is not None]
        for assignment in (*given, *self.set):
            run = override(run, assignment)
        return run


@dataclass(frozen=True)
class Compare:
    """Compare architectures fairly, with a table and a page of plots. The same command continues it."""

    preset: str = "default"
    """default (recall and text, six minutes on two cores), smoke (for CI), parity, modular, mqar_one_layer,
    selective_copying."""
    archs: Word = None
    """By comma: NAMEs of `subquad list`, NAME+FIELD=VALUE, NAME+conv, FILE.py:NAME. All match the first's size."""
    task: Word = None
    """The preset's tasks to run, by comma: mqar, text; or a file or folder of text."""
    dim: Wholes = ()
    """Model widths; three or more plot quality against state."""
    depth: Whole = None
    heads: Whole = None
    mlp: Whole = None
    """Channel-mixer width of the first architecture."""
    steps: Whole = None
    batch: Whole = None
    lrs: Numbers = ()
    """The learning rates to try, ascending, each at most 2.5 times the one before."""
    seeds: Whole = None
    """Fresh seeds; five or more may name a winner."""
    selection_seeds: Whole = None
    """Seeds that choose the learning rate."""
    embed_std: Number = None
    """Standard deviation of the initial embedding."""
    out: Folder = None
    """The comparison's directory; runs/compare-PRESET by default."""
    workers: Whole = None
    """Processes; by default one a core, or one on an accelerator."""

    def __call__(self) -> int:
        """Runs the command."""
        from .compare.command import compare, customised

        comparison, changed = customised(self)
        return compare(comparison, self.out or Path("runs") / f"compare-{comparison.name}{changed}", self.workers)


@dataclass(frozen=True)
class Sweep:
    """Run every configuration that a function of yours returns. Finished points are never run twice."""

    target: Positional[Target]
    """FILE.py:NAME, a function that returns RunConfigs: a list, or a dict by name."""
    dry_run: bool = False
    """List the points and how long they will take."""
    shard: Word = None
    """i/n: every n-th point from the i-th, for job arrays."""
    out: Folder = None
    """The sweep's directory; by default runs/ and the function's name."""
    workers: Whole = None
    """Processes; by default one a core, or one on an accelerator."""

    def __call__(self) -> int:
        """Runs the command."""
        from .sweep import sweep
        from .targets import value

        found = value(self.target)
        out = self.out or Path("runs") / self.target.rpartition(":")[2]
        return sweep(found, out, dry_run=self.dry_run, part=self.shard, workers=self.workers)


@dataclass(frozen=True)
class Eval:
    """Evaluate a run's newest checkpoint."""

    directory: Positional[Path]
    """The run."""
    split: Literal["validation", "test"] = "validation"

    def __call__(self) -> int:
        """Runs the command."""
        from .train import evaluate_run

        for name, figure in evaluate_run(self.directory, self.split).items():
            report(f"{name} {figure:.4f}")
        return 0


@dataclass(frozen=True)
class Generate:
    """Sample text from a run on bytes or a tokenizer."""

    directory: Positional[Path]
    """The run."""
    prompt: str = "\n"
    tokens: int = 200
    temperature: float = 0.8
    """0 takes the likeliest token."""
    top_k: Whole = None
    seed: int = 0

    def __call__(self) -> int:
        """Runs the command."""
        from .sampling import sample

        report(sample(self.directory, self.prompt, self.tokens, self.temperature, self.top_k, self.seed))
        return 0


@dataclass(frozen=True)
class Export:
    """Write a run's model to one file, its ternary weights packed; `load_ternary` of experiments.export reads it."""

    directory: Positional[Path]
    """The run."""
    ternary: Annotated[Path, arg(metavar="FILE", help_behavior_hint="")]
    """The file, an .npz of arrays by name."""

    def __call__(self) -> int:
        """Runs the command."""
        from .export import export_ternary, largest_difference, load_ternary
        from .train import load_run

        lm = load_run(self.directory)[1]
        size = export_ternary(lm, self.ternary)
        bits = 8 * size.packed_bytes / size.weights
        report(f"{size.weights:,} ternary weights in {size.packed_bytes:,} bytes: {bits:.3f} bits each")
        report(f"{self.ternary}: {size.file_bytes:,} bytes; in float32 its parameters take {size.float32_bytes:,}")
        difference = largest_difference(lm, load_ternary(self.ternary))
        report(f"read back, projections by additions alone differ from the trained ones by at most {difference:g}")
        return 0


@dataclass(frozen=True)
class Report:
    """Rebuild the table, the page and the rows of a comparison."""

    directory: Positional[Path]
    """The comparison."""

    def __call__(self) -> int:
        """Runs the command."""
        from .compare.command import show

        return show(self.directory)


@dataclass(frozen=True)
class Profile:
    """Measure what architectures cost.

    `decode`: the time of a token after short and long contexts. `memory`: a gradient's temporaries and time against
    depth, for standard, checkpointed and reversible trunks. `length`: the longest sequence that trains in a memory.
    `drift`: how far gradients of a reversible trunk are from those of stored activations. `tpu`: cycles of the TPU
    kernels, for which no TPU is needed. `gpu`: ops and training steps on a GPU beside its limits, the XLA path and
    other libraries.
    """

    what: Positional[Literal["decode", "memory", "length", "drift", "tpu", "gpu"]]
    archs: Word = None
    """By comma, as `subquad compare` takes them; `memory` takes one. By default what the measurement is about."""
    contexts: Wholes = ()
    """decode: tokens read before; by default 1024 and 65536."""
    depths: Wholes = ()
    """memory, drift: numbers of blocks."""
    length: Whole = None
    """memory: tokens of the sequence, by default 2048."""
    gib: Number = None
    """length: the memory, by default 8."""
    record: File = None
    """decode, tpu, gpu: writes the figures here too, as JSON, with versions; `tpu` and `gpu` go on with such a file."""
    ops: Word = None
    """tpu, gpu: by comma, such as `gla scalar`; by default all."""
    generations: Word = None
    """tpu: by comma, of v5e, v5p and v6e; by default v6e."""
    shapes: Shapes = ()
    """tpu: tokens, heads and widths of keys and values; by default 8192,16,128,128."""
    tiny: bool = False
    """gpu: at toy size, as without a GPU."""
    markdown: bool = False
    """gpu: measures nothing; prints the newest record as in the README."""

    def __call__(self) -> int:
        """Runs the command."""
        from .profile import decode, drift, gpu, length, memory, tpu

        split = lambda names: names.split(",") if names else ()  # noqa: E731
        archs = split(self.archs)
        if self.what == "decode":
            decode.show(archs, self.contexts, self.record)
        elif self.what == "memory":
            memory.show(self.archs or "mamba2", self.depths, self.length)
        elif self.what == "length":
            length.show(archs, self.gib)
        elif self.what == "tpu":
            tpu.show(split(self.ops), split(self.generations), [tpu.size_of(s) for s in self.shapes], self.record)
        elif self.what == "gpu" and self.markdown:
            report(gpu.table())
        elif self.what == "gpu":
            gpu.show(split(self.ops), self.tiny, self.record)
        else:
            drift.show(archs, self.depths)
        return 0


@dataclass(frozen=True)
class List:
    """List layers and architectures with parameters, operations a token and state."""

    markdown: bool = False
    """As in the README."""

    def __call__(self) -> int:
        """Runs the command."""
        from .list import list_table

        report(list_table(markdown=self.markdown))
        return 0


COMMANDS = {
    command.__name__.lower(): command
    for command in (Train, Compare, Sweep, Eval, Generate, Export, Report, Profile, List)
}


def default_run(arch: str, size: str, data: Words) -> "RunConfig":
    """A preset on data by name or path, with the data's vocabulary."""
    from dataclasses import replace

    from .compare.contestants import base
    from .config import OptimConfig, RunConfig
    from .data import EmbeddedTextConfig, FilesConfig, MQARConfig, SelectiveCopyingConfig, StateTrackingConfig

    known = {
        "text": EmbeddedTextConfig("pydoc"), "stdlib": EmbeddedTextConfig("stdlib"), "mqar": MQARConfig(),
        "parity": StateTrackingConfig("parity"), "modular": StateTrackingConfig("modular"),
        "selective_copying": SelectiveCopyingConfig(),
    }  # fmt: skip
    if len(data) == 1 and data[0] not in known and not Path(data[0]).exists() and not re.search(r"[./*]", data[0]):
        raise UserError(f"there is no data {data[0]!r}, nor a file of that name: {nearest(data[0], known)}")
    config = known[data[0]] if len(data) == 1 and data[0] in known else FilesConfig(data)
    return RunConfig(replace(base(arch, size), vocab=config.build().vocab), config, OptimConfig(), save_every=200)


def report(line: str) -> None:
    """What a command answers goes to standard output."""
    print(line)
