"""Text files are UTF-8 whatever the locale: an input, data, a log and a potential with letters beyond ASCII."""

from __future__ import annotations

import os
import subprocess
import sys

INPUT = """\
cutoff: 4
metadata: {origin: "Größe λ 中文"}
data: {filename: data.xyz, reference_energy: 0}
potential:
  elements: [Cu]
  embeddings: {ALL: {npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}
  bonds: {ALL: {radbase: SBessel, radparameters: [5.25], rcut: 4, dcut: 0.01}}
  functions: {ALL: {nradmax_by_orders: [2], lmax_by_orders: [0]}}
fit: {loss: {kappa: 0.3}, maxiter: 1}
backend: {evaluator: cpu}
"""


def test_a_fit_in_a_locale_without_these_letters(tmp_path):
    """The kernels are compiled again: their sources hold such letters, too."""
    frame = '2\nProperties=species:S:1:pos:R:3:forces:R:3 energy={} config_type="Größe λ" pbc="F F F"\n'
    atoms = "Cu 0 0 0 0 0 0.{0}\nCu 0 0 2.{0} 0 0 -0.{0}\n"
    text = "".join(frame.format(-k) + atoms.format(k) for k in (1, 2, 3))
    (tmp_path / "data.xyz").write_text(text, encoding="utf-8")
    (tmp_path / "input.yaml").write_text(INPUT, encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
                                "PACEHPC_CACHE": str(tmp_path / "cache")}  # fmt: skip
    command = [sys.executable, "-c", "import locale; print(locale.getencoding())"]
    encoding = subprocess.run(command, env=environment, capture_output=True, encoding="ascii", check=True).stdout
    assert "utf" not in encoding.lower()
    command = [sys.executable, "-m", "pacehpc", "--no-predict", "input.yaml"]
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
    for name in ("output_potential.yaml", "log.txt"):
        assert "Größe λ 中文" in (tmp_path / name).read_text(encoding="utf-8")
