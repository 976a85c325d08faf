// Neighbour lists of structures whose periodic images are atoms like others.
#pragma once
#include <stdint.h>

#include <algorithm>
#include <vector>

// Lists in one array: those of centre k are atoms[starts[k]] to atoms[starts[k + 1]].
struct NeighbourLists {
  std::vector<int> atoms;
  std::vector<int64_t> starts;
};

// Atoms first to last are one structure, of which the first n_centres get lists of all others within `reach`: between two
// elements in squared[centre * n_elements + neighbour]. Bins half as wide as the largest reach, unless the structure is small.
inline void find_neighbours(const double* x, const int* elements, int64_t first, int64_t last, int64_t n_centres,
                            const double* squared, int n_elements, double reach, NeighbourLists& lists) {
  auto add = [&](int64_t i, int64_t j) {
    const double dx = x[3 * j] - x[3 * i], dy = x[3 * j + 1] - x[3 * i + 1], dz = x[3 * j + 2] - x[3 * i + 2];
    if (i != j && dx * dx + dy * dy + dz * dz < squared[elements[i] * n_elements + elements[j]]) lists.atoms.push_back(j);
  };
  if (last - first <= 100) {
    for (int64_t i = first; i < first + n_centres; i++) {
      for (int64_t j = first; j < last; j++) add(i, j);
      lists.starts.push_back(lists.atoms.size());
    }
    return;
  }
  double low[3] = {1e300, 1e300, 1e300}, high[3] = {-1e300, -1e300, -1e300};
  for (int64_t i = first; i < last; i++)
    for (int a = 0; a < 3; a++) {
      low[a] = std::min(low[a], x[3 * i + a]);
      high[a] = std::max(high[a], x[3 * i + a]);
    }
  int64_t n[3];
  for (int a = 0; a < 3; a++) n[a] = std::max<int64_t>(1, std::min<double>(2 * (high[a] - low[a]) / reach, 128));
  auto bin = [&](int64_t i, int a) {
    const double width = (high[a] - low[a]) / n[a];
    return width > 0 ? std::min<int64_t>(n[a] - 1, (x[3 * i + a] - low[a]) / width) : 0;
  };
  std::vector<int64_t> place(last - first), begin(n[0] * n[1] * n[2] + 1, 0);
  std::vector<int> order(last - first);
  for (int64_t i = first; i < last; i++) {
    place[i - first] = (bin(i, 0) * n[1] + bin(i, 1)) * n[2] + bin(i, 2);
    begin[place[i - first] + 1]++;
  }
  for (size_t k = 1; k < begin.size(); k++) begin[k] += begin[k - 1];
  std::vector<int64_t> next(begin.begin(), begin.end() - 1);
  for (int64_t i = first; i < last; i++) order[next[place[i - first]]++] = i;
  for (int64_t i = first; i < first + n_centres; i++) {
    const int64_t at[3] = {bin(i, 0), bin(i, 1), bin(i, 2)};
    for (int64_t a = std::max<int64_t>(0, at[0] - 2); a <= std::min(n[0] - 1, at[0] + 2); a++)
      for (int64_t b = std::max<int64_t>(0, at[1] - 2); b <= std::min(n[1] - 1, at[1] + 2); b++) {
        // bins along the last axis follow each other
        const int64_t row = (a * n[1] + b) * n[2];
        const int64_t from = begin[row + std::max<int64_t>(0, at[2] - 2)], to = begin[row + std::min(n[2] - 1, at[2] + 2) + 1];
        for (int64_t k = from; k < to; k++) add(i, order[k]);
      }
    lists.starts.push_back(lists.atoms.size());
  }
}
