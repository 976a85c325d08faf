// Moments and their tangents by a block of threads: bonds of a tile go through shared memory, sums stay in registers.
//
// Every warp holds a block of JB radial × QB angular moments of its tile's 32 atoms while the block walks through the
// bonds, CHUNK slots at a time. For each chunk the warps first share out the work of making the radial and angular
// factors, then all of them add the products, while what the next factors are made from is on its way from memory. A sum
// runs over the slots in order, whatever the number of warps.
#pragma once
#include "harmonics.h"
#include "problem.h"

#define SHARED_LANE_ARRAYS 184  // 47104 bytes: within the 48 kB that every device gives

#define MOMENT_WARPS 8          // of a block
#define MOMENT_SUMS 56          // most in the registers of a thread, beside JB factors twice and the next bond
#define FACTOR_PARTS 4          // pieces in which the factors of one slot are made: radial, and every third m
#define RADIAL_PART 0           // of them
#define CHUNK_SLOTS (MOMENT_WARPS / FACTOR_PARTS)  // so that a warp makes one piece

// Cuts J × Q sums into blocks JB × QB, the cheapest for the warps that share them.
template <int J, int Q> struct SumBlock {
  CONSTEXPR_FN int best(bool angular) {
    int best_jb = 1, best_qb = 1;
    double best_price = 1e9;
    for (int jb = 1; jb <= J; jb++)
      for (int qb = 1; qb <= Q && jb * qb <= MOMENT_SUMS; qb++) {
        const int blocks = (J + jb - 1) / jb * ((Q + qb - 1) / qb), rounds = (blocks + MOMENT_WARPS - 1) / MOMENT_WARPS;
        // clocks of a multiprocessor: products, loads from shared memory, and the factors, made anew in each round
        const double price = (blocks + 3) / 4 * 4.0 * jb * qb + blocks * 4.0 * (jb + qb) + 400.0 * rounds;
        if (price < best_price) { best_price = price; best_jb = jb; best_qb = qb; }
      }
    return angular ? best_qb : best_jb;
  }
};

template <int J, int L> struct BlockTiling {
  static constexpr int N_LM = (L + 1) * (L + 1);
  static constexpr int FIT = SHARED_LANE_ARRAYS / 2 - J;
  static constexpr int Q = N_LM < FIT ? N_LM : FIT;         // angular factors in shared memory at once
  static constexpr int JB = SumBlock<J, Q>::best(false), QB = SumBlock<J, Q>::best(true);
  static constexpr int NJ = (J + JB - 1) / JB, NQ = (Q + QB - 1) / QB;
  static constexpr int SLOT = 2 * (J + Q);
  static constexpr int CHUNK = SHARED_LANE_ARRAYS / SLOT < CHUNK_SLOTS ? SHARED_LANE_ARRAYS / SLOT : CHUNK_SLOTS;
  static_assert(FIT > 0, "too many radial functions for the shared memory of a block");
};

// what the factors of a slot's bonds are made from: their records and, with TANGENT, b_j of their other ends
struct BondInput {
  lanes ux, uy, uz, inverse, x, slope, env, denv;
  lanes bx, by, bz;
};
template <bool TANGENT> FN BondInput load_bond(const Problem& P, index_t slot, int atom) {
  const LanesIn bond = bond_record(P, slot);
  BondInput b;
  b.ux = bond[UX]; b.uy = bond[UY]; b.uz = bond[UZ]; b.inverse = bond[INVERSE_R];
  b.x = bond[CHEB_X]; b.slope = bond[DX_DR]; b.env = bond[ENV]; b.denv = bond[DENV_DR];
  if (TANGENT) {
    const double* row = P.residuals + ROW * (index_t)atom;
    b.bx = row[BX]; b.by = row[BY]; b.bz = row[BZ];
  }
  return b;
}

// (x + i y)^m for rising m, and for one m the Legendre functions (−1)^m d^m P_l/dz^m and the next derivative, rising l
struct Legendre {
  lanes value, before, slope, slope_before;
};
CONSTEXPR_FN double diagonal_legendre(int m) {
  double product = 1;
  for (int k = 1; k <= m; k++) product *= -(2 * k - 1);
  return product;
}
FN void next_legendre(Legendre& p, int l, int m, lanes z) {
  lanes value, slope;
  if (l == m) value = diagonal_legendre(m);
  else if (l == m + 1) value = (2 * m + 1.0) * z * p.value;
  else value = ((2 * l - 1.0) / (l - m)) * z * p.value - ((l + m - 1.0) / (l - m)) * p.before;
  if (l < m + 1) slope = 0;
  else if (l == m + 1) slope = diagonal_legendre(m + 1);
  else if (l == m + 2) slope = (2 * m + 3.0) * z * p.slope;
  else slope = ((2 * l - 1.0) / (l - m - 1)) * z * p.slope - ((l + m) / (l - m - 1.0)) * p.slope_before;
  p.before = p.value; p.value = value;
  p.slope_before = p.slope; p.slope = slope;
}

// one piece of the factors of a slot's bonds: T_j, T_j' or the angular parts that go with them
template <int J, int L, bool TANGENT>
FN void make_factors(const Problem& P, const BondInput& bond, int part, int q_start, const int* atoms, const lanes* strain,
                     Lanes factors) {
  constexpr int Q = BlockTiling<J, L>::Q;
  constexpr HarmonicNorms<L> norm;
  const Lanes with_T = factors + 2 * J, with_D = with_T + Q;
  if (part == RADIAL_PART) {
    const lanes x = bond.x, twice = x + x;
    lanes T = 1, T_next = x, D = 0, D_next = 1;
    for (int j = 0; j < J; j++) {
      factors[j] = T;
      if (TANGENT) factors[J + j] = D;
      const lanes T_after = twice * T_next - T, D_after = twice * D_next + (2.0 * T_next - D);
      T = T_next; T_next = T_after; D = D_next; D_next = D_after;
    }
    return;
  }
  const lanes ux = bond.ux, uy = bond.uy, uz = bond.uz, env = bond.env;
  lanes value = env, along_x = 0, tx = 0, ty = 0, tz = 0;
  if (TANGENT) {  // ṙ = b_j − b_i (+ strain · r), split along and across the bond
    const lanes inverse = bond.inverse;
    lanes bx, by, bz;
    gather_rows(P.residuals, atoms, bx, by, bz);
    tx = bond.bx - bx; ty = bond.by - by; tz = bond.bz - bz;
#if STRESS
    const lanes r = 1 / select(inverse > 0, inverse, broadcast(1));
    tx += r * (strain[XX] * ux + strain[XY] * uy + strain[XZ] * uz);
    ty += r * (strain[XY] * ux + strain[YY] * uy + strain[YZ] * uz);
    tz += r * (strain[XZ] * ux + strain[YZ] * uy + strain[ZZ] * uz);
#endif
    const lanes along = tx * ux + ty * uy + tz * uz, scale = env * inverse;
    tx = scale * (tx - along * ux); ty = scale * (ty - along * uy); tz = scale * (tz - along * uz);
    value = bond.denv * along;
    along_x = env * bond.slope * along;
  }
  lanes re = 1, im = 0, re_before = 0, im_before = 0;
  UNROLL for (int m = 0; m <= L; m++) {
    if (m % (FACTOR_PARTS - 1) == part - 1) {
      const lanes dre = m * (re_before * tx - im_before * ty), dim = m * (re_before * ty + im_before * tx);
      Legendre p;
      UNROLL for (int l = m; l <= L; l++) {
        next_legendre(p, l, m, uz);
        const lanes Y = norm.value[l][m] * p.value, radial = value * Y - tz * norm.value[l][m] * p.slope;
        const int q = l * l + (m ? 2 * m - 1 : 0) - q_start;
        if (q >= 0 && q < Q) {
          with_T[q] = radial * re + Y * dre;
          if (TANGENT) with_D[q] = Y * (along_x * re);
        }
        if (m && q + 1 >= 0 && q + 1 < Q) {
          with_T[q + 1] = radial * im + Y * dim;
          if (TANGENT) with_D[q + 1] = Y * (along_x * im);
        }
      }
    }
    re_before = re; im_before = im;
    re = re_before * ux - im_before * uy;
    im = re_before * uy + im_before * ux;
  }
}

template <int J, int L, bool TANGENT>
FN void block_moments_of_class(const Problem& P, index_t slot, index_t n_slots, const int* atoms, const lanes* strain,
                               double* shared, Lanes moments) {
  using B = BlockTiling<J, L>;
  const int warp = threadIdx.x / LANES, n_warps = blockDim.x / LANES;
  const index_t end = slot + n_slots;
  for (int q_start = 0; q_start < B::N_LM; q_start += B::Q)
    for (int round = 0; round < B::NJ * B::NQ; round += n_warps) {
      const bool mine = round + warp < B::NJ * B::NQ;
      const int j0 = (round + warp) % B::NJ * B::JB, q0 = (round + warp) / B::NJ * B::QB;
      lanes sum[B::JB][B::QB];
      UNROLL for (int u = 0; u < B::JB; u++) UNROLL for (int q = 0; q < B::QB; q++) sum[u][q] = 0;
      // of the warp's own slot of each chunk: the bonds of the next chunk, the other ends of those of the one after
      const int own = warp / FACTOR_PARTS;
      BondInput ahead;
      int far_end = 0;
      auto look_ahead = [&](index_t s) {
        const int end_of_bond = far_end;
        if (own < B::CHUNK && s + B::CHUNK < end) far_end = P.bond_atoms[(s + B::CHUNK) * LANES + lane()];
        if (own < B::CHUNK && s >= slot && s < end) ahead = load_bond<TANGENT>(P, s, end_of_bond);
      };
      look_ahead(slot + own - B::CHUNK);
      look_ahead(slot + own);
      for (index_t s = slot; s < end; s += B::CHUNK) {
        const int n = end - s < B::CHUNK ? end - s : B::CHUNK;
        __syncthreads();
        for (int job = warp; job < n * FACTOR_PARTS; job += n_warps) {
          const index_t t = s + job / FACTOR_PARTS;
          if (job != warp) ahead = load_bond<TANGENT>(P, t, P.bond_atoms[t * LANES + lane()]);
          make_factors<J, L, TANGENT>(P, ahead, job % FACTOR_PARTS, q_start, atoms, strain,
                                      lane_array(shared + job / FACTOR_PARTS * B::SLOT * LANES));
        }
        __syncthreads();
        look_ahead(s + own + B::CHUNK);
        if (mine)
          for (int c = 0; c < n; c++) {
            const LanesIn T = lane_array((const double*)shared + c * B::SLOT * LANES), D = T + J;
            const LanesIn with_T = D + J, with_D = with_T + B::Q;
            lanes t[B::JB], d[B::JB];
            UNROLL for (int u = 0; u < B::JB; u++) {
              const int j = j0 + u < J ? j0 + u : J - 1;
              t[u] = T[j];
              if (TANGENT) d[u] = D[j];
            }
            UNROLL for (int q = 0; q < B::QB; q++) {
              const int place = q0 + q < B::Q ? q0 + q : B::Q - 1;
              const lanes x = with_T[place], y = TANGENT ? with_D[place] : 0;
              UNROLL for (int u = 0; u < B::JB; u++) {
                sum[u][q] += t[u] * x;
                if (TANGENT) sum[u][q] += d[u] * y;
              }
            }
          }
      }
      if (mine)
        UNROLL for (int u = 0; u < B::JB; u++)
          UNROLL for (int q = 0; q < B::QB; q++)
            if (j0 + u < J && q0 + q < B::Q && q_start + q0 + q < B::N_LM)
              moments[(j0 + u) * B::N_LM + q_start + q0 + q] = sum[u][q];
    }
}

// G of a tile, or its change Ġ along the residuals: reads bonds (and residuals, strain_residuals); writes moments
template <bool TANGENT> FN void block_moments(const Problem& P, index_t tile, double* shared, Lanes moments) {
  const int* atoms = P.tile_atoms + tile * LANES;
  lanes strain[6];
#if STRESS
  if (TANGENT)
    UNROLL for (int q = 0; q < 6; q++) strain[q] = gather_from_atoms(P.strain_residuals + q, 6, atoms);
#endif
#define CASE(id, J, L, N)                                                                                       \
  case id:                                                                                                      \
    block_moments_of_class<J, L, TANGENT>(P, slot, n, atoms, strain, shared, moments + pair.moment_offset);     \
    break;
  FOR_NEIGHBOURS_OF_TILE(P, tile, CASE, )
#undef CASE
}
