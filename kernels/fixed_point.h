// Sums with the same bits in any order: integers in units of 2^-80 (see pacehpc/fixed_point.py).
#pragma once
#include "device.h"

// limbs[k][i] += limb k of x[i]; returns how many x are not finite or too large (they count as 0)
FN index_t add_encoded(const double* x, index_t n, index_t* limbs, index_t stride) {
  const double high = 0x1p20, middle = 0x1p-30, low = 0x1p-80, limit = 0x1p70;
  index_t too_large = 0;
  index_t *limb0 = limbs, *limb1 = limbs + stride, *limb2 = limbs + 2 * stride;
  for (index_t i = 0; i < n; i++) {
    const bool fits = fabs(x[i]) < limit;
    too_large += !fits;
    const double value = fits ? x[i] : 0;
    const double a = rint(value * (1 / high)), rest = value - a * high;
    const double b = rint(rest * (1 / middle)), last = rest - b * middle;
    limb0[i] += (index_t)a;
    limb1[i] += (index_t)b;
    limb2[i] += (index_t)rint(last * (1 / low));
  }
  return too_large;
}

// the same of sums that are still kept lane by lane
FN index_t add_encoded_lanes(double* x, index_t n, index_t* limbs, index_t stride) {
  for (index_t i = 0; i < n; i++) x[i] = sum_over_lanes(lane_array(x)[i]);
  return add_encoded(x, n, limbs, stride);
}
