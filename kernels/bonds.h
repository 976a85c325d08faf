// From vectors r_j − r_i to bond records: the geometry and the radial functions' envelope and argument.
//
// Every radial function is g_k(r) = env(r) · (polynomial of x(r)), so a bond is its unit vector, 1/r, x, dx/dr, env and
// d env/dr; cutoffs live in env. Core repulsion has no parameters, so its energies and forces are constants of the fit;
// only the factor f_c couples it to the embedding energy: E_i = F f_c + E0_i.
#pragma once
#include "problem.h"

#define PI 3.141592653589793238462643

// as in pacehpc/physics/core.py: e²/(4πε0) in eV·Å, and c, d of φ(x) = Σ c e^{−d x}
#define COULOMB 14.399645351950543
#define SCREENING {{0.18175, 3.19980}, {0.50986, 0.94229}, {0.28022, 0.40290}, {0.02817, 0.20162}}

// smooth step, 1 at r ≤ a − Δ, 0 at r ≥ a, and its derivative
FN void smooth_step(lanes r, double a, double width, lanes& value, lanes& slope) {
  const lanes one = broadcast(1), zero = broadcast(0);
  const lanes inverse = broadcast(1 / (width > 0 ? width : 1));
  const lanes x = 1 - 2 * (1 + (r - a) * inverse), x2 = x * x;
  value = 0.5 + 3.75 * x * (0.25 - x2 * (1.0 / 6 - x2 * 0.05));
  slope = -7.5 * inverse * (0.25 - x2 * (0.5 - x2 * 0.25));
  slope = select(r <= a - width, zero, slope);
  value = select(r <= a - width, one, value);
  slope = select(r >= a, zero, slope);
  value = select(r >= a, zero, value);
}

FN void envelope(const BondType& bond, lanes r, lanes& x, lanes& dx, lanes& env, lanes& denv) {
  const lanes zero = broadcast(0), one = broadcast(1);
  const double rc = bond.rcut;
  env = one; denv = zero;
  if (bond.family == Family::ChebExpCos) {
    const double end = exp(-bond.lambda), scale = -2 / (1 - end);
    const lanes decay = lane_exp(r * (-bond.lambda / rc)), t = r * (PI / rc);
    x = 1 + scale * (decay - end);
    dx = scale * (-bond.lambda / rc) * decay;
    env = 0.5 * (1 + lane_cos(t));
    denv = (-0.5 * PI / rc) * lane_sin(t);
    if (bond.dcut > 0 && in_any_lane(r > rc - bond.dcut)) {
      const lanes s = (r - (rc - bond.dcut)) * (PI / bond.dcut);
      const lanes cut = select(s > 0, 0.5 * (1 + lane_cos(s)), one);
      const lanes dcut = select(s > 0, (-0.5 * PI / bond.dcut) * lane_sin(s), zero);
      denv = denv * cut + env * dcut;
      env = env * cut;
    }
  } else if (bond.family == Family::ChebPow) {
    lanes left = 1 - r * (1 / rc);
    left = select(left > 0, left, zero);
    const lanes power = lane_pow(left, broadcast(bond.lambda - 1));
    x = 1 - 2 * power * left;
    dx = (2 * bond.lambda / rc) * power;
  } else if (bond.family == Family::ChebLinear) {
    x = 1 - r * (1 / rc);
    dx = broadcast(-1 / rc);
  } else {  // SBessel: x = cos t, env = sin t / t, t = π r/rc
    const lanes t = r * (PI / rc), s = lane_sin(t), inverse = 1 / t;
    x = lane_cos(t);
    dx = (-PI / rc) * s;
    env = s * inverse;
    denv = (PI / rc) * inverse * (x - env);
  }
  if (bond.inner == InnerCutoff::distance) {
    lanes step, slope;
    smooth_step(r, bond.r_in, bond.delta_in, step, slope);
    denv = denv * (1 - step) - env * slope;
    env = env * (1 - step);
  }
  if (bond.inner != InnerCutoff::zbl) {
    const double start = bond.r_in - bond.delta_in;
    env = select(r <= start, zero, env);
    denv = select(r <= start, zero, denv);
  }
  env = select(r >= rc, zero, env);
  denv = select(r >= rc, zero, denv);
}

// Reads r_j − r_i of the tile's bonds, [slot][3]; writes bonds. A lane without a bond, whose vector is zero, and one whose
// bond is not shorter than its cutoff are unused.
STAGE void make_bonds(const Problem& P, index_t tile, LanesIn vectors) {
  const int e = P.tile_element[tile];
  FOR_BONDS(P, tile, mu, s) {
    const BondType& type = P.bond_types[e * P.n_elements + mu];
    const LanesIn vector = vectors + 3 * slots_before(P, tile, s);
    const Lanes bond = lane_array(P.bonds + s * BOND_RECORD * LANES);
    const lanes dx = vector[0], dy = vector[1], dz = vector[2], zero = broadcast(0);
    const lanes square = dx * dx + dy * dy + dz * dz;
    const auto used = (square > 0) & (square < type.rcut * type.rcut);
    const lanes r = lane_sqrt(select(used, square, broadcast(1)));
    const lanes inverse = select(used, 1 / r, zero);
    lanes x, slope, env, denv;
    envelope(type, r, x, slope, env, denv);
    bond[UX] = dx * inverse;
    bond[UY] = dy * inverse;
    bond[UZ] = select(used, dz * inverse, broadcast(1));
    bond[INVERSE_R] = inverse;
    bond[CHEB_X] = select(used, x, zero);
    bond[DX_DR] = select(used, slope, zero);
    bond[ENV] = select(used, env, zero);
    bond[DENV_DR] = select(used, denv, zero);
  }
}

#if CORE
// repulsion of one bond and its slope
FN void core_pair(const BondType& bond, lanes r, lanes& value, lanes& slope) {
  const lanes zero = broadcast(0);
  if (bond.core_kind == CoreKind::zbl) {
    const struct { double c, d; } screening[] = SCREENING;
    const lanes inverse = 1 / r;
    lanes phi = zero, dphi = zero;
    for (const auto& part : screening) {
      const lanes term = part.c * lane_exp(r * (-part.d / bond.zbl_length));
      phi += term;
      dphi -= (part.d / bond.zbl_length) * term;
    }
    lanes q = r - (bond.rcut - bond.dcut);
    q = select(q > 0, q, zero);
    const lanes screened = phi * inverse + bond.zbl_C + q * q * q * (bond.zbl_A / 3 + q * (bond.zbl_B / 4));
    const lanes dscreened = (dphi - phi * inverse) * inverse + q * q * (bond.zbl_A + q * bond.zbl_B);
    lanes step, dstep;
    smooth_step(r, bond.rcut, bond.dcut, step, dstep);
    const double scale = 0.5 * bond.core_prefactor * COULOMB * bond.charges;
    value = scale * screened * step;
    slope = scale * (dscreened * step + screened * dstep);
    return;
  }
  const double strength = bond.core_prefactor < 0 ? -bond.core_prefactor : bond.core_prefactor;
  const double decay = bond.core_lambda < 0 ? -bond.core_lambda : bond.core_lambda;
  const lanes inverse = 1 / r, exponent = decay * r * r, t = r * (PI / bond.rcut);
  const lanes bare = strength * lane_exp(-exponent) * inverse, cut = 0.5 * (1 + lane_cos(t));
  value = bare * cut;
  slope = -bare * (inverse + 2 * decay * r) * cut - bare * (0.5 * PI / bond.rcut) * lane_sin(t);
  if (bond.core_kind == CoreKind::distance) {
    lanes step, dstep;
    smooth_step(r, bond.r_in, bond.delta_in, step, dstep);
    slope = slope * step + value * dstep;
    value = value * step;
  }
  slope = select(exponent >= 50, zero, slope);
  value = select(exponent >= 50, zero, value);
}

// Energies, forces and cutoff factors of the core repulsion of one tile: reads bonds; writes core_slope, core_cutoff,
// core_energy, core_virials; gives forces to rows: those of atoms on a host, of bonds on a GPU.
STAGE void make_core(const Problem& P, index_t tile, double* rows) {
  const int e = P.tile_element[tile];
  const int* atoms = P.tile_atoms + tile * LANES;
  const ElementTable& element = P.elements[e];
  const lanes zero = broadcast(0), one = broadcast(1);
  const bool zbl = P.bond_types[e * P.n_elements + e].core_kind == CoreKind::zbl;
  lanes density = zero, nearest = broadcast(1e300), nearest_width = one;
  FOR_BONDS(P, tile, mu, s) {
    const BondType& type = P.bond_types[e * P.n_elements + mu];
    const LanesIn bond = bond_record(P, s);
    const lanes inverse = bond[INVERSE_R], r = bond_length(bond);
    lanes value, slope;
    core_pair(type, r, value, slope);
    density += select(inverse > 0, value, zero);
    const lanes distance = select(inverse > 0, r - (type.r_in - type.delta_in), broadcast(1e300));
    nearest_width = select(distance < nearest, broadcast(type.delta_in), nearest_width);
    nearest = select(distance < nearest, distance, nearest);
  }
  // f_c of the nearest bond (zbl) or of the core density; lane by lane because the width may differ
  lanes cutoff = one, dcutoff = zero;
  if (!zbl) {
    smooth_step(density, element.rho_core_cut, element.drho_core_cut, cutoff, dcutoff);
  } else {
    const lanes width = select(nearest_width > 0, nearest_width, one), inverse = 1 / width;
    // f_c = S(Δ − d; Δ, Δ)
    const lanes x = 1 - 2 * (1 - nearest * inverse), x2 = x * x;
    cutoff = 0.5 + 3.75 * x * (0.25 - x2 * (1.0 / 6 - x2 * 0.05));
    dcutoff = 7.5 * inverse * (0.25 - x2 * (0.5 - x2 * 0.25));
    dcutoff = select(nearest >= width, zero, dcutoff);
    cutoff = select(nearest >= width, one, cutoff);
    dcutoff = select(nearest_width > 0, dcutoff, zero);
    cutoff = select(nearest_width > 0, cutoff, one);
    dcutoff = select(nearest <= 0, zero, dcutoff);
    cutoff = select(nearest <= 0, zero, cutoff);
  }
  lanes fx = zero, fy = zero, fz = zero, virial[6];
  UNROLL for (int q = 0; q < 6; q++) virial[q] = zero;
  FOR_BONDS(P, tile, mu, s) {
    const BondType& type = P.bond_types[e * P.n_elements + mu];
    const LanesIn bond = bond_record(P, s);
    const lanes inverse = bond[INVERSE_R], r = bond_length(bond);
    lanes value, slope, cutoff_slope, energy_slope;
    core_pair(type, r, value, slope);
    slope = select(inverse > 0, slope, zero);
    if (zbl) {  // the first bond at the smallest distance carries the switch
      const lanes distance = select(inverse > 0, r - (type.r_in - type.delta_in), broadcast(1e299));
      cutoff_slope = select(distance <= nearest, dcutoff, zero);
      dcutoff = select(distance <= nearest, zero, dcutoff);
      energy_slope = slope * (1 - cutoff) - density * cutoff_slope;
    } else {
      cutoff_slope = dcutoff * slope;
      energy_slope = slope;
    }
    lane_array(P.core_slope + s * LANES)[0] = cutoff_slope;
    const lanes gx = energy_slope * bond[UX], gy = energy_slope * bond[UY], gz = energy_slope * bond[UZ];
    fx += gx; fy += gy; fz += gz;
    give_to_neighbours(rows, P.bond_atoms, s, gx, gy, gz);
    add_virial(virial, bond, gx, gy, gz);
  }
  give_to_centres(rows, atoms, fx, fy, fz);
  const lanes energy = zbl ? density * (1 - cutoff) : density;
  const int count = P.tile_count[tile];
  store_to_atoms(P.core_cutoff, 1, atoms, count, cutoff);
  store_to_atoms(P.core_energy, 1, atoms, count, energy);
  for (int q = 0; q < 6; q++) store_to_atoms(P.core_virials + q, 6, atoms, count, virial[q]);
}
#endif
