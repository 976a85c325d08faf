"""Which inert class stands for a name in a pickle."""

from __future__ import annotations

import sys
from typing import Any

from pacehpc.dataset import pickle_classes as stand

_NUMPY = {"_reconstruct": stand.Reconstruct, "scalar": stand.Scalar}
_CONSTRAINTS = {
    "external_force": "ExternalForce",
    "fix_atoms": "FixAtoms",
    "fix_bond_lengths": "FixBondLengths FixBondLength",
    "fix_cartesian": "FixCartesian",
    "fix_com": "FixCom FixSubsetCom",
    "fix_internals": "FixInternals",
    "fix_linear_triatomic": "FixLinearTriatomic",
    "fix_parametric_relations": "FixCartesianParametricRelations FixParametricRelations FixScaledParametricRelations",
    "fix_scaled": "FixScaled",
    "fix_symmetry": "FixSymmetry",
    "fixed_line": "FixedLine",
    "fixed_mode": "FixedMode",
    "fixed_plane": "FixedPlane",
    "hookean": "Hookean",
    "mirror_force": "MirrorForce",
    "mirror_torque": "MirrorTorque",
}
CLASSES: dict[tuple[str, str], type] = {
    ("builtins", "slice"): stand.Slice,
    ("__builtin__", "slice"): stand.Slice,
    ("builtins", "getattr"): stand.Getattr,
    ("__builtin__", "getattr"): stand.Getattr,
    ("builtins", "object"): stand.Inert,
    ("__builtin__", "object"): stand.Inert,
    ("builtins", "dict"): stand.Mapping,
    ("__builtin__", "dict"): stand.Mapping,
    ("builtins", "bytes"): stand.Bytes,
    ("builtins", "bytearray"): stand.ByteArray,
    ("__builtin__", "bytearray"): stand.ByteArray,
    ("__builtin__", "bytes"): stand.Bytes,
    ("_codecs", "encode"): stand.Encode,
    ("copyreg", "_reconstructor"): stand.Reconstructor,
    ("copy_reg", "_reconstructor"): stand.Reconstructor,
    ("collections", "OrderedDict"): stand.Mapping,
    ("functools", "partial"): stand.Partial,
    ("numpy", "ndarray"): stand.ArrayClass,
    ("numpy", "matrix"): stand.ArrayClass,
    ("numpy.matrixlib.defmatrix", "matrix"): stand.ArrayClass,
    ("numpy.ma.core", "_mareconstruct"): stand.MaskedReconstruct,
    ("numpy.ma.core", "MaskedArray"): stand.ArrayClass,
    ("numpy.ma", "MaskedArray"): stand.ArrayClass,
    ("numpy", "dtype"): stand.DType,
    **{(f"numpy.{core}.multiarray", name): cls for core in ("core", "_core") for name, cls in _NUMPY.items()},
    ("numpy.core.numeric", "_frombuffer"): stand.FromBuffer,
    ("numpy._core.numeric", "_frombuffer"): stand.FromBuffer,
    ("pandas", "DataFrame"): stand.FrameState,
    ("pandas.core.frame", "DataFrame"): stand.FrameState,
    ("pyace.preparedata", "DataFrameWithMetadata"): stand.FrameState,
    ("pandas.core.internals", "BlockManager"): stand.Manager,
    ("pandas.core.internals.managers", "BlockManager"): stand.Manager,
    ("pandas.core.internals.blocks", "new_block"): stand.Block,
    ("pandas._libs.internals", "_unpickle_block"): stand.Block,
    ("pandas._libs.internals", "BlockPlacement"): stand.Placement,
    ("pandas.core.indexes.base", "_new_Index"): stand.IndexState,
    ("pandas.indexes.base", "_new_Index"): stand.IndexState,
    ("pandas", "Index"): stand.IndexClass,
    ("pandas.core.indexes.base", "Index"): stand.IndexClass,
    ("pandas.indexes.base", "Index"): stand.IndexClass,
    ("pandas", "RangeIndex"): stand.RangeIndexClass,
    ("pandas.core.indexes.range", "RangeIndex"): stand.RangeIndexClass,
    ("pandas.indexes.range", "RangeIndex"): stand.RangeIndexClass,
    ("pandas.core.indexes.numeric", "Int64Index"): stand.IndexClass,
    ("pandas.core.indexes.numeric", "UInt64Index"): stand.IndexClass,
    ("pandas.core.indexes.numeric", "Float64Index"): stand.IndexClass,
    ("pandas.indexes.numeric", "Int64Index"): stand.IndexClass,
    ("pandas.indexes.numeric", "Float64Index"): stand.IndexClass,
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): stand.Reconstructor,
    ("pandas", "StringDtype"): stand.Inert,
    ("pandas.core.arrays.string_", "StringDtype"): stand.Inert,
    ("pandas.arrays", "StringArray"): stand.Extension,
    ("pandas.core.arrays.string_", "StringArray"): stand.Extension,
    ("pandas.core.arrays.string_", "StringArrayNumpySemantics"): stand.Extension,
    **{(f"pandas{module}", f"{kind}Array"): stand.MaskedExtension
       for kind, home in (("Integer", "integer"), ("Floating", "floating"), ("Boolean", "boolean"))
       for module in (".arrays", f".core.arrays.{home}")},
    ("pandas", "Categorical"): stand.Categorical,
    ("pandas.core.arrays.categorical", "Categorical"): stand.Categorical,
    ("pandas", "CategoricalDtype"): stand.CategoricalType,
    ("pandas.core.dtypes.dtypes", "CategoricalDtype"): stand.CategoricalType,
    ("pandas.arrays", "ArrowStringArray"): stand.ArrowExtension,
    ("pandas.core.arrays.string_arrow", "ArrowStringArray"): stand.ArrowExtension,
    ("pandas.core.arrays.string_arrow", "ArrowStringArrayNumpySemantics"): stand.ArrowExtension,
    ("pandas.arrays", "ArrowExtensionArray"): stand.ArrowExtension,
    ("pandas.core.arrays.arrow.array", "ArrowExtensionArray"): stand.ArrowExtension,
    ("pyarrow.lib", "_restore_array"): stand.ArrowArray,
    ("pyarrow.lib", "chunked_array"): stand.ArrowChunks,
    ("pyarrow.lib", "type_for_alias"): stand.ArrowType,
    ("pyarrow.lib", "py_buffer"): stand.ArrowBuffer,
    ("pandas.core.arrays.numpy_", "PandasArray"): stand.Extension,
    ("pandas.core.arrays.numpy_", "NumpyExtensionArray"): stand.Extension,
    ("ase.atoms", "Atoms"): stand.AtomsState,
    ("ase", "Atoms"): stand.AtomsState,
    ("ase.cell", "Cell"): stand.CellState,
    ("ase.calculators.singlepoint", "SinglePointCalculator"): stand.CalculatorState,
    ("ase.calculators.singlepoint", "SinglePointDFTCalculator"): stand.CalculatorState,
    ("ase.calculators.singlepoint", "SinglePointKPoint"): stand.Inert,
    ("ase.calculators.calculator", "Parameters"): stand.Mapping,
    ("ase.spacegroup.spacegroup", "Spacegroup"): stand.Inert,
    **{
        (module, name): stand.Inert
        for submodule, names in _CONSTRAINTS.items()
        for name in names.split()
        for module in ("ase.constraints", f"ase.constraints.{submodule}")
    },
    ("pyace.catomicenvironment", "ACEAtomicEnvironment"): stand.Stub,
    ("pyace.atomicenvironment", "ACEAtomicEnvironment"): stand.Stub,
    ("tensorpotential.utils.utilities", "TPAtomsDataContainer"): stand.Stub,
}  # fmt: skip

# of the standard library, beside those: what columns of dates, sets and the like name
_HARMLESS = {
    ("datetime", "datetime"), ("datetime", "date"), ("datetime", "time"), ("datetime", "timedelta"),
    ("datetime", "timezone"), ("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"),
    ("builtins", "set"), ("builtins", "frozenset"), ("builtins", "complex"), ("builtins", "list"),
    ("builtins", "range"), ("collections", "Counter"), ("collections", "defaultdict"), ("collections", "deque"),
    ("pathlib", "PosixPath"), ("pathlib", "PurePosixPath"), ("pathlib._local", "PosixPath"), ("zoneinfo", "ZoneInfo"),
}  # fmt: skip
_MISSING = {("pandas", "NA"), ("pandas._libs.missing", "NA"), ("pandas._libs.tslibs.nattype", "NaT")}


def class_for(module: str, name: str) -> Any:
    """The stand-in of a name in a pickle.

    A class of any package is accepted, as a `Foreign` that is never looked into: other atoms, calculators, columns
    that no fit uses. Nothing that does something is in the standard library alone, so what it has beside plain values
    is refused, and so are functions of the packages that data come from, although nothing would call them.

    Raises:
        Refused: names that no data frame needs.
    """
    known = CLASSES.get((module, name))
    if known is not None:
        return known
    if (module, name) in _MISSING:
        return None
    root = module.split(".")[0]
    python = root in sys.stdlib_module_names or root in ("__builtin__", "copy_reg", "nt")
    function = root in ("ase", "numpy", "pandas", "pyarrow", "scipy") and name[:1].islower()
    if "." in name or (python and (module.replace("__builtin__", "builtins"), name) not in _HARMLESS) or function:
        raise stand.Refused(f"the class {module}.{name}")
    return type(name, (stand.Foreign,), {"__slots__": (), "full_name": f"{module}.{name}"})
