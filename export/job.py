"""What `refavs-export` does, stage by stage: graphs from a run or a bundle, a lower precision, engines, and one bundle of all.

Nothing is written to where the bundle shall stand until everything is there and compared.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refavs_rt.bundle import TOKENIZER, Bundle, BundleError, EngineRecord, graph_file, write_bundle
from refavs_rt.config import ModelConfig, RunConfig
from refavs_rt.contract import GRAPHS, contract_hash, graph_specs
from refavs_rt.graph_check import GraphError, check_graph
from refavs_rt.session import Model

if TYPE_CHECKING:
    from .to_tensorrt import BuildOptions, Target

_CLIP_FRAMES = 40
"""Of the demo clip."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What is asked for. Either `run` or `bundle`."""

    out: Path
    run: Path | None = None
    """A run folder of `python -m train`."""
    bundle: Path | None = None
    """An exported bundle; it is not changed."""
    precision: str | None = None
    """None: that of the bundle; of a run, float32."""
    calibration: Path | None = None
    """A data set in the layout of Ref-AVS; None: the demo clip, which is too little for int8."""
    min_agreement: float | None = None
    sentences: tuple[int, int] | None = None
    """Smallest and largest number of sentences; None: from one to the model's limit."""
    target: Target | None = None
    """What engines are built for; None: no engines."""
    build: BuildOptions | None = None
    triton_repo: Path | None = None


@dataclass
class _Draft:
    """A bundle in the making."""

    config: ModelConfig
    files: dict[str, bytes]
    tools: dict[str, str]
    training: Mapping[str, Any]
    parity: dict[str, Any]
    precision: str
    sentences: tuple[int, int]
    engines: dict[str, EngineRecord] = field(default_factory=dict)

    def write(self, folder: Path, *, replace: bool = False) -> Bundle:
        fields = {x.name: getattr(self, x.name) for x in dataclasses.fields(self)}
        return write_bundle(folder, fields.pop("config"), fields.pop("files"), replace=replace, **fields)

    def put_graphs(self, graphs: Mapping[str, bytes]) -> None:
        self.files |= {graph_file(name): data for name, data in graphs.items()}


def make_bundle(job: Job, say: Say) -> Bundle:
    """Do the job.

    Args:
        say: told of each stage.

    Raises:
        CheckpointError, BundleError, DataError, ParityError, PrecisionError, EngineBuildError, EngineError, RepositoryError: the
            message names what stands in the way.
    """
    with tempfile.TemporaryDirectory(prefix="refavs-export-") as scratch:
        drafts = Path(scratch)
        draft = _from_run(job, drafts, say) if job.run is not None else _from_bundle(job, say)
        wanted = job.precision or draft.precision
        if wanted != draft.precision:
            _lower(job, draft, wanted, drafts, say)
        if job.target is not None:
            _build_engines(job, draft, say)
            if job.target.is_local:
                _verify_engines(draft, drafts, say)
    bundle = draft.write(job.out, replace=True)
    say(f"wrote {job.out}")
    if job.triton_repo is not None:
        from .triton_repo import write_triton_repo

        write_triton_repo(bundle, job.triton_repo, sentences=job.sentences[1] if job.sentences else 1)
        say(f"wrote the model repository {job.triton_repo}")
    return bundle


def _from_run(job: Job, drafts: Path, say: Say) -> _Draft:
    """The four graphs of a run in float32, compared with torch."""
    from refavs_rt.engines.onnx import OnnxEngine
    from refavs_rt.engines.torch import TorchEngine
    from refavs_rt.model.run_folder import load_run

    from .agreement import compare_random, compare_stream, to_json
    from .card import CARD, model_card
    from .material import read_demo
    from .to_onnx import export_graphs

    assert job.run is not None
    if job.calibration is not None:
        from refavs_rt.dataset import read_table

        read_table(job.calibration)  # what is missing there is said now, not after minutes of exporting
    say(f"reading {job.run}")
    run = load_run(job.run)
    config = run.model.config
    sentences = _sentences(job, config, (1, config.max_sentences))
    graphs = export_graphs(run.model, lambda name: say(f"exporting the {name} graph"), sentences=sentences)
    draft = _Draft(
        config=config,
        files={TOKENIZER: run.tokenizer, CARD: model_card(run).encode()},
        tools=_versions("refavs-rt", "torch", "onnx", "onnxscript", "onnxslim", "onnxruntime"),
        training=run.training,
        parity={},
        precision="fp32",
        sentences=sentences,
    )
    draft.put_graphs(graphs)
    written = draft.write(drafts / "float32")
    engine, reference = OnnxEngine(written), TorchEngine(run.model)
    say("comparing with torch on random inputs")
    random = compare_random(config, engine, reference)
    clip = read_demo(config, _CLIP_FRAMES, sentences[1])
    say(f"comparing with torch on {clip.name}")
    stream = compare_stream(Model(written, engine, RunConfig()), reference, [clip])
    for what, agreements in (("random inputs", random), (clip.name, stream)):
        for graph in GRAPHS:
            agreements[graph].check(f"{graph} graph on {what}")
    draft.parity = {"random": to_json(random), "clip": to_json(stream)}
    return draft


def _from_bundle(job: Job, say: Say) -> _Draft:
    """All of an exported bundle but its engines."""
    assert job.bundle is not None
    say(f"reading {job.bundle}")
    bundle = Bundle.open(job.bundle)
    if job.out.exists() and job.out.resolve() == bundle.path.resolve():
        raise BundleError(f"{job.out}: a bundle is never changed in place; give another folder with --out")
    if job.precision not in (None, bundle.precision) and bundle.precision != "fp32":
        raise BundleError(
            f"{bundle.path}: its graphs are {bundle.precision} already; --precision {job.precision} needs those in float32"
        )
    for graph in GRAPHS:
        try:
            check_graph(bundle.read(graph_file(graph)))
        except GraphError as error:
            raise BundleError(
                f"{bundle.path / graph_file(graph)}: not a graph of ours ({error}); export the bundle again"
            ) from error
    engines = {record.file for record in bundle.engines.values()}
    return _Draft(
        config=bundle.config,
        files={name: bundle.read(name) for name in bundle.files if name not in engines},
        tools=dict(bundle.manifest["tools"]),
        training=bundle.manifest["training"],
        parity=dict(bundle.manifest["parity"]),
        precision=bundle.precision,
        sentences=_sentences(job, bundle.config, bundle.sentences),
    )


def _lower(job: Job, draft: _Draft, precision: str, drafts: Path, say: Say) -> None:
    """Convert the graphs, and compare them with those they were made from."""
    from .agreement import compare_random, compare_stream, to_json
    from .graphs_engine import GraphsEngine
    from .material import halves, read_clips, read_demo
    from .precision import MIN_AGREEMENT, lower_precision

    if job.calibration is None:
        clips = [read_demo(draft.config, _CLIP_FRAMES, draft.sentences[1])]
    else:
        say(f"reading {job.calibration}")
        clips = read_clips(job.calibration, draft.config, draft.sentences[1])
    calibration, checked = halves(clips)
    bundle = draft.write(drafts / "before")
    bound = MIN_AGREEMENT[precision] if job.min_agreement is None else job.min_agreement
    lower = lower_precision(precision, bundle, calibration, checked, bound, say)
    exact = GraphsEngine(draft.config, {name: bundle.read(graph_file(name)) for name in GRAPHS})
    engine = GraphsEngine(draft.config, lower.graphs)
    say(f"comparing {precision} with float32")
    random = compare_random(draft.config, engine, exact)
    stream = compare_stream(Model(bundle, engine, RunConfig()), exact, checked[:1])
    draft.put_graphs(lower.graphs)
    draft.precision = precision
    draft.tools |= _versions("onnx", "onnxslim", "onnxruntime")
    draft.parity["lower_precision"] = {
        **lower.to_json(),
        "random": to_json(random),
        "clip": to_json(stream),
    }


def _build_engines(job: Job, draft: _Draft, say: Say) -> None:
    from .to_tensorrt import BuildOptions, build_engine

    assert job.target is not None
    options = dataclasses.replace(job.build or BuildOptions(), sentences=draft.sentences)
    cache = job.out.with_name(f"{job.out.name}.timing-cache")
    cache.parent.mkdir(parents=True, exist_ok=True)
    specs = graph_specs(draft.config)
    is_full = job.target.library.name == "tensorrt"
    for graph in GRAPHS:
        say(f"building the {graph} engine for {job.target}")
        built = build_engine(
            draft.files[graph_file(graph)], specs[graph], job.target, options, cache, _quarters(graph, say)
        )
        for warning in built.warnings:
            say(f"  {job.target.library.name} warns: {warning}")
        file = f"{graph}.engine"
        draft.files[file] = built.data
        draft.engines[graph] = EngineRecord(
            file=file,
            library=job.target.library.name,
            version=job.target.library.version,
            capabilities=job.target.capabilities,
            precision=draft.precision,
            contract_hash=contract_hash(draft.config),
            sentences=draft.sentences,
            profiles=tuple(built.profiles),
            weights="stripped" if built.is_stripped else "included",
            hardware_compatible=is_full and options.hardware_compatible,
            version_compatible=is_full and options.version_compatible,
        )


def _quarters(graph: str, say: Say) -> Callable[[float], None]:
    """Tells of a build's progress whenever another quarter of it is done."""
    told = 0

    def progress(share: float) -> None:
        nonlocal told
        if (quarter := int(4 * share)) > told:
            told = quarter
            if quarter < 4:
                say(f"  {graph}: {25 * quarter}%")

    return progress


def _verify_engines(draft: _Draft, drafts: Path, say: Say) -> None:
    """Run the engines on this machine's GPU beside ONNX Runtime, which raises where they differ."""
    from refavs_rt.engines.cuda import Cuda
    from refavs_rt.engines.tensorrt import TensorRTEngine

    device = Cuda().name
    say(f"comparing the engines with ONNX Runtime on {device}")
    engine = TensorRTEngine(draft.write(drafts / "engines"))
    verified = {"device": device, "largest_error": engine.largest_error}
    draft.engines = {
        graph: dataclasses.replace(record, verified=verified) for graph, record in draft.engines.items()
    }


def _sentences(job: Job, config: ModelConfig, default: tuple[int, int]) -> tuple[int, int]:
    if job.sentences is None:
        return default
    if job.sentences[1] > default[1]:
        raise BundleError(
            f"--sentences {job.sentences[0]}:{job.sentences[1]}: this {config.preset} model takes at most {default[1]} at a time"
        )
    return job.sentences


def _versions(*names: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in names}
