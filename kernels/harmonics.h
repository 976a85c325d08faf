// Real spherical harmonics with their derivatives, scaled so that Y_00 = 1, Condon–Shortley phase.
//
// Component l² is Y_l0, l² + 2m − 1 and l² + 2m are √2 Re Y_lm and √2 Im Y_lm. On the unit sphere
//   √2 Y_lm = Q_lm(z) (x + i y)^m,   dQ_lm/dz = D_lm,
// so values and gradients of all components come from Q, D and the powers of x + i y.
#pragma once
#include "device.h"

CONSTEXPR_FN double square_root(double x) {
  double y = x > 1 ? x : 1;
  for (int i = 0; i < 100; i++) y = 0.5 * (y + x / y);
  return x == 0 ? 0 : y;
}

// √((2l+1)(l−m)!/(l+m)!), times √2 for m > 0
CONSTEXPR_FN double harmonic_norm(int l, int m) {
  double square = (2 * l + 1) * (m ? 2 : 1);
  for (int k = l - m + 1; k <= l + m; k++) square /= k;
  return square_root(square);
}

template <int L> struct HarmonicNorms {
  double value[L + 1][L + 1];
  CONSTEXPR_MEMBER HarmonicNorms() : value() {
    for (int l = 0; l <= L; l++)
      for (int m = 0; m <= l; m++) value[l][m] = harmonic_norm(l, m);
  }
};

template <int L> struct Harmonics {
  lanes Q[L + 1][L + 1], D[L + 1][L + 1];  // [m][l]
  lanes re[L + 1], im[L + 1];              // (x + i y)^m
};

template <int L> FN void harmonics(Harmonics<L>& y, lanes ux, lanes uy, lanes uz) {
  constexpr HarmonicNorms<L> norm;
  lanes P[L + 2][L + 1];  // [m][l]: (−1)^m d^m P_l/dz^m
  double diagonal = 1;
  UNROLL for (int m = 0; m <= L; m++) {
    if (m) diagonal *= -(2 * m - 1);
    P[m][m] = broadcast(diagonal);
    UNROLL for (int l = m + 1; l <= L; l++)
      P[m][l] = l == m + 1 ? (2.0 * m + 1) * uz * P[m][m]
                           : ((2.0 * l - 1) / (l - m)) * uz * P[m][l - 1] - ((l + m - 1.0) / (l - m)) * P[m][l - 2];
  }
  y.re[0] = broadcast(1);
  y.im[0] = broadcast(0);
  UNROLL for (int m = 1; m <= L; m++) {
    y.re[m] = y.re[m - 1] * ux - y.im[m - 1] * uy;
    y.im[m] = y.re[m - 1] * uy + y.im[m - 1] * ux;
  }
  UNROLL for (int m = 0; m <= L; m++)
    UNROLL for (int l = m; l <= L; l++) {
      y.Q[m][l] = norm.value[l][m] * P[m][l];
      y.D[m][l] = l > m ? -norm.value[l][m] * P[m + 1][l] : broadcast(0);
    }
}

// Chebyshev polynomials start T_j(x), j < J, and slope times their derivatives
template <int J> FN void chebyshev(lanes* T, lanes* D, lanes x, lanes start, lanes slope) {
  T[0] = start;
  D[0] = broadcast(0);
  if constexpr (J > 1) { T[1] = start * x; D[1] = start * slope; }
  const lanes twice = x + x, twice_slope = slope + slope;
  UNROLL for (int j = 2; j < J; j++) {
    T[j] = twice * T[j - 1] - T[j - 2];
    D[j] = twice * D[j - 1] + (twice_slope * T[j - 1] - D[j - 2]);
  }
}

template <int J> FN void chebyshev(lanes* T, lanes* D, lanes x) { chebyshev<J>(T, D, x, broadcast(1), broadcast(1)); }
