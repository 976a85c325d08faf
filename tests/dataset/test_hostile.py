"""Files that mean harm, or are merely broken: one clear error, nothing executed, no memory taken."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import struct
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from dataset_samples import make_frame

from pacehpc.dataset import Dataset, load_dataset
from pacehpc.errors import PacehpcError


def load(tmp_path, data: bytes) -> Dataset:
    (tmp_path / "x.pkl").write_bytes(data)
    return load_dataset(tmp_path / "x.pkl")


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def string(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def by_name(module: str, name: str, *args: str) -> bytes:
    """The pickle of module.name(*args), written by hand: protocol 4, where names may have dots."""
    return b"\x80\x04" + string(module) + string(name) + b"\x93(" + b"".join(map(string, args)) + b"tR."


HOSTILE = [
    ("os", "system", "touch HERE"),
    ("posix", "system", "touch HERE"),
    ("builtins", "eval", "open('HERE','w')"),
    ("builtins", "exec", "open('HERE','w')"),
    ("builtins", "__import__", "os"),
    ("builtins", "getattr", "HERE", "upper"),
    ("builtins", "open", "HERE", "w"),
    ("subprocess", "Popen", "touch HERE"),
    ("pandas", "eval", "1+1"),
    ("pandas.core.computation.eval", "eval", "1+1"),
    ("pandas", "read_pickle", "HERE"),
    ("pandas", "DataFrame.to_csv", "HERE"),
    ("pandas.core.frame", "DataFrame.eval", "HERE"),
    ("numpy", "ndarray.tofile", "HERE"),
    ("numpy", "load", "HERE"),
    ("numpy", "f2py.compile", "HERE"),
    ("numpy.core.multiarray", "_reconstruct.__globals__"),
    ("ase.atoms", "Atoms.write", "HERE"),
    ("ase.io", "read", "HERE"),
    ("ase.calculators.singlepoint", "os.system", "touch HERE"),
    ("ase.calculators.calculator", "subprocess"),
    ("functools", "partial.__class__", "HERE"),
    ("functools", "reduce"),
    ("copyreg", "__newobj__"),
    ("pickle", "loads", "HERE"),
    ("pyace.preparedata", "os.system", "touch HERE"),
    ("pyace.preparedata", "StructuresDatasetSpecification"),
    ("shutil", "rmtree", "HERE"),
    ("types", "CodeType"),
    ("operator", "attrgetter", "x"),
]


@pytest.mark.parametrize("call", HOSTILE, ids=lambda c: ".".join(c[:2]))
@pytest.mark.parametrize("protocol", [0, 4])
def test_only_listed_classes(tmp_path, call, protocol):
    mark = tmp_path / "mark"
    module, name, *args = (part.replace("HERE", str(mark)) for part in call)
    data = by_name(module, name, *args)
    if protocol == 0:
        data = f"c{module}\n{name}\n(".encode() + b"".join(f"V{a}\n".encode() for a in args) + b"tR."
    with pytest.raises(PacehpcError, match=r"refused|damaged") as error:
        load(tmp_path, data)
    assert not mark.exists()
    if (module, name) != ("builtins", "getattr"):
        assert f"{module}.{name}" in str(error.value)
    assert "x.pkl" in str(error.value)


@pytest.mark.parametrize(
    "thing",
    [
        Call(print, "x"),
        Call(getattr, np.ndarray, "tofile"),
        Call(getattr, pd.DataFrame, "eval"),
        Call(pd.eval, "1"),
        Call(slice, "a", print),
        Call(np.ndarray.__reduce__),
    ],
    ids=lambda t: t.call[0].__qualname__,
)
def test_hostile_values_inside_a_good_frame(tmp_path, thing):
    with pytest.raises(PacehpcError, match="refused"):
        load(tmp_path, pickle.dumps(make_frame(extra=[thing] * 4)))


def test_partial_and_reconstructor_make_nothing_else():
    from pacehpc.dataset.unpickle import unpickle_frame

    partial = b"\x80\x04cfunctools\npartial\n(cnumpy\nndarray\ntR(cnumpy\nndarray\n)}Ntb(K\x01K\x02tR."
    with pytest.raises(PacehpcError, match="partial"):
        unpickle_frame(partial, "p")
    rebuilt = b"\x80\x02ccopy_reg\n_reconstructor\n(c__builtin__\nslice\nc__builtin__\nobject\nNtR."
    with pytest.raises(PacehpcError):
        unpickle_frame(rebuilt, "p")


def array_pickle(shape, dtype="f8", data=b"", flags=b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"):
    """A numpy array of any claimed shape with any data."""
    size = b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in shape) + b"t"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
    kind = b"cnumpy\ndtype\n(" + string(dtype) + b"\x89\x88tR(K\x03" + string("<") + b"NNN" + flags + b"tb"
    content = b"B" + struct.pack("<I", len(data)) + data
    return b"\x80\x04" + made + b"(K\x01" + size + kind + b"\x89" + content + b"tb."


@pytest.mark.parametrize(
    "data",
    [
        array_pickle((2**40,)),
        array_pickle((2**62, 4)),
        array_pickle((-1,)),
        array_pickle((3,), data=b"\0" * 16),
        array_pickle((1,), "O8", b"\0" * 8),  # bytes as pointers to objects
        array_pickle((1,), "V8", b"\0" * 8),
        array_pickle((1,), "f8,O", b"\0" * 16),
        array_pickle((1,), "U999999999", b"\0" * 8),
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # BYTEARRAY8 that says 1 TiB
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
        b"\x80\x04B" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",  # a memo of 64 GiB
        b"\x80\x02Np99999999999\n.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
        b"\x80\x04K\x01.",
        b"\x80\x04(((((((.",
        b"\x80\x04",
        b"\x80\x05\x97.",
        b"\x80\x02Pname\n.",
        b"\x80\x04\x82\x01.",
        b"\x80\x04\xff",
    ],
)
def test_sizes_and_nonsense(tmp_path, data):
    tracemalloc.start()
    with pytest.raises(PacehpcError):
        load(tmp_path, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_a_bomb_does_not_unpack(tmp_path, monkeypatch):
    monkeypatch.setattr("pacehpc.dataset.files._SMALL", 2**22)
    bomb = gzip.compress(b"\x80\x04" + b"\0" * 2**26)
    assert len(bomb) < 2**17
    with pytest.raises(PacehpcError, match="unpacks to more than"):
        load(tmp_path, bomb)


@pytest.mark.parametrize("depth", [4_000, 20_000])
def test_nested_tuples_do_not_overflow_the_stack(tmp_path, depth):
    """Python hashes a tuple in a tuple in a tuple ..., the key of a dict, by recursion without a check."""
    with pytest.raises(PacehpcError, match="a dict where a data frame"):
        load(tmp_path, b"\x80\x02})" + b"\x85" * depth + b"Ns.")


def test_mutated_frames_end_in_an_error_or_a_frame(tmp_path):
    """Every one of many damaged files gives a Dataset or a PacehpcError."""
    random = np.random.default_rng(11)
    good = pickle.dumps(make_frame(name=list("abcd")), protocol=4)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1500):
        data = bytearray(good)
        kind = random.integers(0, 4)
        if kind == 0:
            data = data[: random.integers(0, len(data))]
        elif kind == 1:
            for k in random.integers(0, len(data), random.integers(1, 6)):
                data[k] = random.integers(0, 256)
        elif kind == 2:
            a, b = np.sort(random.integers(0, len(data), 2))
            del data[a : min(b, a + 40)]
        else:
            a, b = np.sort(random.integers(0, len(data), 2))
            data[a:a] = data[b : b + 30]
        try:
            load(tmp_path, bytes(data))
            outcomes["read"] += 1
        except PacehpcError as error:
            assert str(error)
            outcomes["refused"] += 1
    assert outcomes["refused"] > 700 and outcomes["read"] > 20


def test_the_message_names_the_class(tmp_path):
    with pytest.raises(PacehpcError, match=r"x\.pkl: refused, the pickle asks for the class random\.Random"):
        load(tmp_path, pickle.dumps(make_frame(price=[random.Random(1)] * 4)))
    buffer = io.BytesIO()
    pickle.dump(pd.Series([1, 2]), buffer)
    with pytest.raises(PacehpcError, match=r"pandas\.(core\.series\.)?Series"):
        load(tmp_path, buffer.getvalue())
