// Embedding F(ρ) = Σ_p w_p f(ρ_p; m_p) with its first two derivatives.
#pragma once
#include "problem.h"

// f = sign(ρ) ((a + X)^m − Y), a = |ρ|, X = q^{q/(1−q)} e^{−a}, Y = q^{1/(1−q)} e^{−a}, q = 1/m
FN void finnis_sinclair_shifted_scaled(double m, lanes rho, lanes& f, lanes& df, lanes& ddf) {
  const double q = 1 / m, scale_x = pow(q, q / (1 - q)), scale_y = pow(q, 1 / (1 - q));
  const lanes zero = broadcast(0);
  const lanes a = lane_abs(rho), decay = lane_exp(-a), X = scale_x * decay, Y = scale_y * decay, u = a + X;
  const lanes power = m == 0.5 ? lane_sqrt(u) : lane_pow(u, broadcast(m)), slope = m * power / u;
  f = power - Y;
  df = slope * (1 - X) + Y;
  ddf = (m - 1) * slope / u * (1 - X) * (1 - X) + slope * X - Y;
  f = select(rho < zero, -f, f);
  ddf = select(rho < zero, -ddf, ddf);
}

// f = sign(ρ) ((1 − h) a^m + w^{1−m} h a), h = e^{−(w a)³}, w = 1e6; f = w^{1−m} ρ for a ≤ 1e-10
FN void finnis_sinclair(double m, lanes rho, lanes& f, lanes& df, lanes& ddf) {
  const double w = 1e6, linear = pow(w, 1 - m);
  const lanes zero = broadcast(0), a = lane_abs(rho), tiny = broadcast(1e-10);
  const lanes safe = select(a > tiny, a, broadcast(1)), wa = w * safe, cube = wa * wa * wa;
  const lanes h = select(cube > 30, zero, lane_exp(-select(cube > 30, zero, cube)));
  const lanes dh = -3 * w * wa * wa * h, ddh = (9 * w * w * wa * wa * wa * wa - 6 * w * w * wa) * h;
  const lanes power = lane_pow(safe, broadcast(m)), dpower = m * power / safe, ddpower = (m - 1) * dpower / safe;
  f = (1 - h) * power + linear * h * safe;
  df = (1 - h) * dpower - dh * power + linear * (dh * safe + h);
  ddf = (1 - h) * ddpower - 2 * dh * dpower - ddh * power + linear * (ddh * safe + 2 * dh);
  f = select(rho < zero, -f, f);
  ddf = select(rho < zero, -ddf, ddf);
  f = select(a > tiny, f, linear * rho);
  df = select(a > tiny, df, broadcast(linear));
  ddf = select(a > tiny, ddf, zero);
}

// reads rho; writes F and, of each density, dF and ddF
STAGE void make_embedding(const ElementTable& element, const lanes* rho, lanes& F, lanes* dF, lanes* ddF) {
  F = broadcast(0);
  for (int p = 0; p < ND; p++) {
    const double w = element.embedding[p].w, m = element.embedding[p].m;
    lanes f = rho[p], df = broadcast(1), ddf = broadcast(0);
    if (m != 1) {
      if (element.embedding_kind == EmbeddingKind::FinnisSinclairShiftedScaled)
        finnis_sinclair_shifted_scaled(m, rho[p], f, df, ddf);
      else finnis_sinclair(m, rho[p], f, df, ddf);
    }
    F += w * f;
    dF[p] = w * df;
    ddF[p] = w * ddf;
  }
}
