// Sums with the same bits in any order: integers in units of 2^-80 (see pacehpc/fixed_point.py).
#pragma once
#include "device.h"

// x to the nearest integer, which is added to *sum; |x| < 2^51: the last bits of x + 1.5 2^52 are that integer. Unlike
// rint and a conversion to integers, compilers turn this into vector instructions on every machine.
FN double take_nearest(double x, index_t* sum) {
  const double shift = 0x1.8p52;
  union {
    double number;
    index_t bits;
  } moved, zero;
  moved.number = x + shift;
  zero.number = shift;
  *sum += moved.bits - zero.bits;
  return moved.number - shift;
}

// limbs[k][i] += limb k of x[i]; returns how many x are not finite or too large (they count as 0)
FN index_t add_encoded(const double* x, index_t n, index_t* limbs, index_t stride) {
  const double high = 0x1p20, middle = 0x1p-30, low = 0x1p-80, limit = 0x1p70;
  index_t too_large = 0;
  index_t *limb0 = limbs, *limb1 = limbs + stride, *limb2 = limbs + 2 * stride;
  for (index_t i = 0; i < n; i++) {
    const double given = x[i];
    const bool fits = fabs(given) < limit;
    too_large += fits ? 0 : 1;
    const double value = fits ? given : 0;
    const double rest = value - take_nearest(value * (1 / high), limb0 + i) * high;
    const double last = rest - take_nearest(rest * (1 / middle), limb1 + i) * middle;
    take_nearest(last * (1 / low), limb2 + i);
  }
  return too_large;
}

// the same of sums that are still kept lane by lane
FN index_t add_encoded_lanes(double* x, index_t n, index_t* limbs, index_t stride) {
  for (index_t i = 0; i < n; i++) x[i] = sum_over_lanes(lane_array(x)[i]);
  return add_encoded(x, n, limbs, stride);
}
