"""Small outputs of several programs, each in its own format and units, of one structure with known results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms, units

CELL = np.diag([4.0, 4.1, 4.2])
FORCES = np.array([[0.11, -0.22, 0.33], [-0.11, 0.22, -0.33]])
ENERGY = -7.25  # eV, force-consistent
STRESS = np.array([0.01, 0.02, 0.03, 0.004, 0.005, 0.006])  # eV/Å^3, xx yy zz yz xz xy, ASE's sign
QE = units.create_units("2006")


def structure() -> Atoms:
    return Atoms("AlNi", [[0, 0, 0], [2.0, 2.05, 2.1]], cell=CELL, pbc=True)


def rows(matrix, form="{:16.8f}") -> list[str]:
    return ["".join(form.format(x) for x in row) for row in np.atleast_2d(matrix)]


def tensor() -> np.ndarray:
    xx, yy, zz, yz, xz, xy = STRESS
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def vasp_xml(steps=1, nelm=60, used=12, finished=True, energy=ENERGY) -> str:
    """VASP's stress is minus ours, in kbar."""

    def varray(name, matrix):
        return f'<varray name="{name}">' + "".join(f"<v>{r}</v>" for r in rows(matrix)) + "</varray>"

    def energies(e):
        return f'<energy><i name="e_fr_energy">{e}</i><i name="e_wo_entrp">{e + 0.1}</i><i name="e_0_energy">{e + 0.05}</i></energy>'  # noqa: E501

    atoms = structure()
    place = f"<crystal>{varray('basis', CELL)}</crystal>{varray('positions', atoms.get_scaled_positions())}"
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>'
    text += '<kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>'
    text += f'<parameters><separator name="electronic"><i type="int" name="NELM">{nelm}</i></separator></parameters>'
    names = "".join(f"<rc><c>{s}</c><c>1</c></rc>" for s in atoms.get_chemical_symbols())
    text += f'<atominfo><atoms>2</atoms><array name="atoms"><set>{names}</set></array></atominfo>'
    text += f'<structure name="initialpos">{place}</structure>'
    for k in range(steps):
        e = energy + k
        scf = f"<scstep>{energies(e)}</scstep>\n" * used
        text += f"<calculation>\n{scf}<structure>{place}</structure>{varray('forces', FORCES)}"
        text += f"{varray('stress', -tensor() / (0.1 * units.GPa))}{energies(e)}</calculation>\n"
    return text + "</modeling>\n" if finished else text + "<calculation><scstep>"


def vasp_outcar(steps=1, nelm=60, used=12, finished=True) -> str:
    """Stress in the order XX YY ZZ XY YZ ZX, kbar, minus ours."""
    xx, yy, zz, yz, xz, xy = -STRESS / (0.1 * units.GPa)
    header = [" POTCAR:    PAW_PBE Al 04Jan2001", " POTCAR:    PAW_PBE Ni 02Aug2007"] * 2
    header += ["   ions per type =               1   1", "   ISPIN  =      1    spin polarized calculation?"]
    header += [f"   NELM   =     {nelm};   NELMIN=  2; NELMDL= -5     # of ELM steps"]
    header += [
        "   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=      8"
    ]
    header += [
        " k-points in reciprocal lattice and weights: K-Points",
        "   0.00000000  0.00000000  0.00000000       1.000",
    ]
    lines = header
    for k in range(steps):
        e = ENERGY + k
        for n in range(1, used + 1):
            lines.append(f"----------------- Iteration {k + 1:6d}({n:4d})  -------------------")
        if used < nelm:
            lines.append("------------------------ aborting loop because EDIFF is reached ------------------------")
        lines += ["  in kB " + "".join(f"{v:12.5f}" for v in (xx, yy, zz, xy, yz, xz))]
        lines += ["      direct lattice vectors                 reciprocal lattice vectors"]
        lines += rows(np.hstack([CELL, np.linalg.inv(CELL).T]), "{:14.9f}")
        lines += [" POSITION                                       TOTAL-FORCE (eV/Angst)", " " + "-" * 83]
        lines += rows(np.hstack([structure().positions, FORCES]), "{:13.6f}")
        lines += [" " + "-" * 83, "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)", "  " + "-" * 51]
        lines += [f"  free  energy   TOTEN  = {e:18.8f} eV", ""]
        lines += [f"  energy  without entropy= {e + 0.1:18.8f}  energy(sigma->0) = {e + 0.05:18.8f}"]
    lines += [" General timing and accounting informations for this job:"] if finished else []
    return "\n".join(lines) + "\n"


def gpaw_text(converged=True) -> str:
    """eV and Å throughout."""
    atoms = structure()
    lines = ["  ___ ___ ___ _ _ _  ", " |   |   |_  | | | | ", "", "Total Charge: 0.000000", "", "Positions:"]
    for k, (s, r) in enumerate(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)):
        lines.append(f"{k:4d} {s:2s} {r[0]:14.6f} {r[1]:11.6f} {r[2]:11.6f}    ( 0.0000,  0.0000,  0.0000)")
    lines += ["", "Unit cell:", "           periodic     x           y           z      points  spacing"]
    for k, v in enumerate(CELL):
        lines.append(f"  {k + 1}. axis:    yes {v[0]:11.6f} {v[1]:11.6f} {v[2]:11.6f}    24     0.1700")
    lines += ["", "Converged after 12 iterations." if converged else "Did not converge!", ""]
    lines += ["Energy contributions relative to reference atoms: (reference = -1.0)", "", "Kinetic:        +20.0"]
    lines += ["-" * 26, f"Free energy: {ENERGY:14.6f}", f"Extrapolated: {ENERGY:14.6f}", "", "Forces in eV/Ang:"]
    for k, (s, f) in enumerate(zip(atoms.get_chemical_symbols(), FORCES, strict=True)):
        lines.append(f"{k:3d} {s:2s} {f[0]:12.5f} {f[1]:12.5f} {f[2]:12.5f}")
    lines += ["", "Stress tensor:", *rows(tensor(), "{:14.6f}"), ""]
    return "\n".join(lines) + "\n"


def espresso(converged=True, finished=True) -> str:
    """Rydberg and Bohr; the stress is minus ours."""
    alat = 4.0
    atoms = structure()
    lines = ["     Program PWSCF v.7.2 starts on  1Jan2024 at 12: 0: 0", ""]
    lines += ["     bravais-lattice index     =            0"]
    lines += [f"     lattice parameter (alat)  = {alat / QE['Bohr']:11.6f}  a.u."]
    lines += ["     number of atoms/cell      =            2", "     number of atomic types    =            2", ""]
    lines += [f"     celldm(1)= {alat / QE['Bohr']:10.6f}  celldm(2)=   0.000000  celldm(3)=   0.000000", ""]
    lines += ["     crystal axes: (cart. coord. in units of alat)"]
    for k, v in enumerate(CELL / alat):
        lines.append(f"               a({k + 1}) = ( {v[0]:10.6f} {v[1]:10.6f} {v[2]:10.6f} )")
    lines += ["", "     atomic species   valence    mass     pseudopotential"]
    lines += [
        "        Al             3.00    26.98154     Al( 1.00)",
        "        Ni            10.00    58.69340     Ni( 1.00)",
    ]
    lines += ["", "   Cartesian axes", "", "     site n.     atom                  positions (alat units)"]
    for k, (s, r) in enumerate(zip(atoms.get_chemical_symbols(), atoms.positions / alat, strict=True)):
        lines.append(f"         {k + 1}           {s:4s}tau( {k + 1:4d}) = ( {r[0]:11.7f} {r[1]:11.7f} {r[2]:11.7f}  )")
    low = "     Number of k-points >= 100: set verbosity='high' to print "
    lines += ["", "     number of k points=   120  gaussian smearing", "", low + "them.", ""]
    lines += [
        "",
        "     End of self-consistent calculation",
        "",
        low + "the bands.",
        "",
        "     the Fermi energy is     8.0 ev",
        "",
    ]
    if converged:
        lines += [f"!    total energy              = {ENERGY / QE['Ry']:16.8f} Ry", ""]
        lines += ["     convergence has been achieved in  12 iterations", ""]
    else:
        lines += ["     convergence NOT achieved after 100 iterations: stopping", ""]
    lines += ["     Forces acting on atoms (cartesian axes, Ry/au):", ""]
    for k, f in enumerate(FORCES / (QE["Ry"] / QE["Bohr"])):
        lines.append(f"     atom {k + 1:4d} type {k + 1:2d}   force = {f[0]:13.8f} {f[1]:13.8f} {f[2]:13.8f}")
    s = -tensor() / (QE["Ry"] / QE["Bohr"] ** 3)
    lines += ["", "     Computing stress (Cartesian axis) and pressure", ""]
    lines += ["          total   stress  (Ry/bohr**3)                   (kbar)     P=      0.00"]
    lines += ["".join(f"{x:14.8f}" for x in row) + "   " + "".join(f"{x * 147105.08:13.2f}" for x in row) for row in s]
    return "\n".join([*lines, "", "   JOB DONE." if finished else ""]) + "\n"


def cp2k(converged=True) -> str:
    """Hartree and Bohr; the stress is minus ours, in GPa."""
    hartree, bohr = units.Hartree, 0.529177208590000
    atoms = structure()
    lines = [" DBCSR| CPU Multiplication driver", "  **** PROGRAM STARTED AT               2024-01-01 12:00:00.000"]
    lines += [" CP2K| version string:                    CP2K version 2023.1"]
    for name, v in zip("abc", CELL, strict=True):
        lines.append(
            f" CELL| Vector {name} [angstrom]: {v[0]:14.6f} {v[1]:11.6f} {v[2]:11.6f}   |{name}| = {v.sum():11.6f}"
        )
    lines += ["", " MODULE QUICKSTEP: ATOMIC COORDINATES IN ANGSTROM", ""]
    lines += ["    Atom Kind Element         X             Y             Z       Z(eff)     Mass"]
    for k, (s, r) in enumerate(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)):
        number = {"Al": 13, "Ni": 28}[s]
        lines.append(
            f"{k + 1:8d}{k + 1:5d} {s:2s} {number:4d} {r[0]:13.6f} {r[1]:13.6f} {r[2]:13.6f}  {3:8.4f} {26.98:8.4f}"
        )
    lines += ["", "", "", " SCF PARAMETERS         Density guess:   ATOMIC", ""]
    lines += [
        "  *** SCF run converged in    12 steps ***"
        if converged
        else "  *** WARNING in qs_scf.F:598 :: SCF run NOT converged. ***"
    ]
    lines += ["", f" ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]: {ENERGY / hartree:26.15f}", ""]
    lines += [" ATOMIC FORCES in [a.u.]", "", " # Atom   Kind   Element          X              Y              Z"]
    for k, (s, f) in enumerate(zip(atoms.get_chemical_symbols(), FORCES / (hartree / bohr), strict=True)):
        lines.append(f"{k + 1:7d}{k + 1:7d}      {s:2s}     {f[0]:15.8f}{f[1]:15.8f}{f[2]:15.8f}")
    lines += [" SUM OF ATOMIC FORCES           0.00000000     0.00000000     0.00000000     0.00000000", ""]
    lines += [
        " STRESS| Analytical stress tensor [GPa]",
        " STRESS|                        x                   y                   z",
    ]
    for name, row in zip("xyz", -tensor() / units.GPa, strict=True):
        lines.append(f" STRESS|      {name} {row[0]:20.11E}{row[1]:20.11E}{row[2]:20.11E}")
    return "\n".join([*lines, "", "  **** PROGRAM ENDED AT                 2024-01-01 12:01:00.000"]) + "\n"


def write_gpw(path: Path, converged=True) -> None:
    from ase.io.trajectory import write_atoms
    from ase.io.ulm import Writer

    writer = Writer(str(path), "w", tag="GPAW")
    writer.write(version=3)
    write_atoms(writer.child("atoms"), structure())
    writer.child("results").write(energy=ENERGY, free_energy=ENERGY, forces=FORCES, stress=STRESS)
    writer.child("wave_functions").write(fermi_levels=np.zeros(1))
    writer.child("scf").write(converged=converged)
    writer.close()
