// Row kernels of a decoder layer (see blocks.h for the equations). Loops over a row keep a fixed order that
// depends on the row's length only, so a row's result does not depend on the batch around it.
#include "kernels/blocks_isa.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/vec.h"

namespace eepo::EEPO_ISA_NAMESPACE {
namespace {

float dot(const float* a, const float* b, int64_t n) {
  Vec s0{}, s1{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    s0 += load(a + i) * load(b + i);
    s1 += load(a + i + kLanes) * load(b + i + kLanes);
  }
  float tail = 0;
  for (; i + kLanes <= n; i += kLanes) s0 += load(a + i) * load(b + i);
  for (; i < n; ++i) tail += a[i] * b[i];
  return sum(s0 + s1) + tail;
}

float dot3(const float* a, const float* b, const float* c, int64_t n) {
  Vec s{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) s += load(a + i) * load(b + i) * load(c + i);
  float tail = 0;
  for (; i < n; ++i) tail += a[i] * b[i] * c[i];
  return sum(s) + tail;
}

// Bounded, because exp() is good to 88 only: beyond, the sigmoid is below 1e-38 all the same.
Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x > 88.0f ? splat(88.0f) : -x)); }

// Applies `body(offset, count)` to a row in vectors; the last, short one through a padded buffer.
template <class Body>
void for_vectors(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
  if (i < n) body(i, static_cast<int>(n - i));
}
}  // namespace

void rms_norm_rows(const float* x, const float* weight, float eps, const NormShape& shape, int64_t begin, int64_t end,
                   float* y, float* inv) {
  for (int64_t t = begin; t < end; ++t)
    for (int64_t g = 0; g < shape.groups; ++g) {
      const float* in = x + t * shape.ld_in + g * shape.dim;
      float* out = y + t * shape.ld_out + g * shape.dim;
      const float r = 1.0f / std::sqrt(dot(in, in, shape.dim) / static_cast<float>(shape.dim) + eps);
      if (inv) inv[t * shape.groups + g] = r;
      for_vectors(shape.dim, [&](int64_t i, int n) {
        store_part(out + i, load_part(in + i, n) * r * load_part(weight + i, n), n);
      });
    }
}

void rms_norm_backward_rows(const float* dy, const float* x, const float* weight, const float* inv,
                            const NormShape& shape, int64_t begin, int64_t end, bool accumulate, float* dx,
                            float* dweight) {
  // y = w x r, r = (mean x^2 + eps)^(-1/2)  =>  dx = r w dy - x r^3 / D sum(w dy x),  dw += dy x r
  for (int64_t t = begin; t < end; ++t)
    for (int64_t g = 0; g < shape.groups; ++g) {
      const float* in = x + t * shape.ld_in + g * shape.dim;
      const float* up = dy + t * shape.ld_out + g * shape.dim;
      float* down = dx + t * shape.ld_out + g * shape.dim;
      const float r = inv[t * shape.groups + g];
      const float c = dot3(up, in, weight, shape.dim) * r * r * r / static_cast<float>(shape.dim);
      for_vectors(shape.dim, [&](int64_t i, int n) {
        const Vec u = load_part(up + i, n), v = load_part(in + i, n);
        const Vec d = u * load_part(weight + i, n) * r - v * c;
        if (dweight) store_part(dweight + i, load_part(dweight + i, n) + u * v * r, n);
        store_part(down + i, accumulate ? load_part(down + i, n) + d : d, n);
      });
    }
}

void swiglu_rows(const float* gate_up, int64_t width, int64_t begin, int64_t end, float* out) {
  for (int64_t t = begin; t < end; ++t) {
    const float* gate = gate_up + t * 2 * width;
    const float* up = gate + width;
    for_vectors(width, [&](int64_t i, int n) {
      const Vec g = load_part(gate + i, n);
      store_part(out + t * width + i, g * sigmoid(g) * load_part(up + i, n), n);
    });
  }
}

void swiglu_backward_rows(const float* gate_up, const float* d_out, int64_t width, int64_t begin, int64_t end,
                          float* d_gate_up) {
  for (int64_t t = begin; t < end; ++t) {
    const float* gate = gate_up + t * 2 * width;
    const float* up = gate + width;
    float* d_gate = d_gate_up + t * 2 * width;
    for_vectors(width, [&](int64_t i, int n) {
      const Vec g = load_part(gate + i, n), d = load_part(d_out + t * width + i, n), s = sigmoid(g);
      store_part(d_gate + i, d * load_part(up + i, n) * s * (1.0f + g * (1.0f - s)), n);
      store_part(d_gate + width + i, d * g * s, n);
    });
  }
}

// Scores are transposed, [keys, ld] with one query per column, so the softmax of ld queries runs in vector lanes.
// Query i of the block may see keys j <= diagonal + i; later ones are masked here. ld is a multiple of 16.
void softmax_columns(float* scores, int64_t keys, int64_t diagonal, int64_t ld, float* lse) {
  for (int64_t j = diagonal + 1; j < keys; ++j)
    for (int64_t i = 0; i < std::min(j - diagonal, ld); ++i)
      scores[j * ld + i] = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < ld; i += kLanes) {
    Vec m = load(scores + i);
    for (int64_t j = 1; j < keys; ++j) m = max(m, load(scores + j * ld + i));
    Vec total{};
    for (int64_t j = 0; j < keys; ++j) {
      const Vec e = exp(load(scores + j * ld + i) - m);
      store(scores + j * ld + i, e);
      total += e;
    }
    const Vec scale = 1.0f / total;
    for (int64_t j = 0; j < keys; ++j) store(scores + j * ld + i, load(scores + j * ld + i) * scale);
    if (lse) {
      float sums[kLanes], maxima[kLanes];
      store(sums, total);
      store(maxima, m);
      for (int l = 0; l < kLanes; ++l) lse[i + l] = maxima[l] + std::log(sums[l]);
    }
  }
}

// The same probabilities again from the saved log-sum-exp.
void probability_columns(float* scores, int64_t keys, int64_t diagonal, int64_t ld, const float* lse) {
  for (int64_t j = 0; j < keys; ++j)
    for (int64_t i = 0; i < ld; i += kLanes) store(scores + j * ld + i, exp(load(scores + j * ld + i) - load(lse + i)));
  for (int64_t j = diagonal + 1; j < keys; ++j)
    for (int64_t i = 0; i < std::min(j - diagonal, ld); ++i) scores[j * ld + i] = 0.0f;
}

// dS = P (dP - delta), delta_i = sum_j P_ij dP_ij = dO_i . O_i
void softmax_backward_columns(const float* p, float* dp, const float* delta, int64_t keys, int64_t ld) {
  for (int64_t j = 0; j < keys; ++j)
    for (int64_t i = 0; i < ld; i += kLanes)
      store(dp + j * ld + i, load(p + j * ld + i) * (load(dp + j * ld + i) - load(delta + i)));
}

// One query head against up to a few cache slices (shared prompt, own tokens). scratch: the sum over slices of
// length rounded up to 16. Capacities are multiples of 16 and slots beyond `length` hold finite numbers.
void decode_head(const float* q, int64_t head_dim, float scale, const CacheSlice* slices, int slice_count,
                 float* scratch, float* out) {
  constexpr int64_t kPad = 16;
  const auto padded = [](int64_t n) { return (n + kPad - 1) / kPad * kPad; };
  float m = -std::numeric_limits<float>::infinity();
  float* score = scratch;
  for (int s = 0; s < slice_count; ++s) {
    const CacheSlice& c = slices[s];
    const int64_t n = padded(c.length);
    for (int64_t j = 0; j < n; j += kPad) {
      Vec acc[kPad / kLanes] = {};
      for (int64_t d = 0; d < head_dim; ++d) {
        const Vec x = splat(q[d]);
        for (int v = 0; v < kPad / kLanes; ++v) acc[v] += x * load(c.keys + d * c.capacity + j + v * kLanes);
      }
      for (int v = 0; v < kPad / kLanes; ++v) store(score + j + v * kLanes, acc[v] * scale);
    }
    for (int64_t j = c.length; j < n; ++j) score[j] = -std::numeric_limits<float>::infinity();
    Vec top = splat(m);
    for (int64_t j = 0; j < n; j += kLanes) top = max(top, load(score + j));
    m = max(top);
    score += n;
  }
  const int64_t total_keys = score - scratch;
  Vec total{};
  for (int64_t j = 0; j < total_keys; j += kLanes) {
    const Vec e = exp(load(scratch + j) - m);
    store(scratch + j, e);
    total += e;
  }
  const float norm = 1.0f / sum(total);
  for (int64_t d = 0; d < head_dim; ++d) {
    Vec acc{};
    const float* p = scratch;
    for (int s = 0; s < slice_count; ++s) {
      const CacheSlice& c = slices[s];
      const int64_t n = padded(c.length);
      for (int64_t j = 0; j < n; j += kLanes) acc += load(p + j) * load(c.values + d * c.capacity + j);
      p += n;
    }
    out[d] = sum(acc) * norm;
  }
}

void adamw_range(float* param, const float* grad, float* m, float* v, int64_t begin, int64_t end, float grad_scale,
                 float lr, float beta1, float beta2, float eps, float weight_decay, float bias1, float bias2) {
  const float step = lr / bias1, root = std::sqrt(bias2), keep = 1.0f - lr * weight_decay;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float g = grad[i] * grad_scale;
    const float mi = beta1 * m[i] + (1.0f - beta1) * g;
    const float vi = beta2 * v[i] + (1.0f - beta2) * g * g;
    m[i] = mi;
    v[i] = vi;
    param[i] = param[i] * keep - step * mi / (std::sqrt(vi) / root + eps);
  }
}

double square_sum_range(const float* x, int64_t begin, int64_t end) {
  double total = 0;
  for (int64_t i = begin; i < end; i += 1024) {
    Vec s{};
    const int64_t stop = std::min(end, i + 1024);
    int64_t j = i;
    for (; j + kLanes <= stop; j += kLanes) s += load(x + j) * load(x + j);
    float tail = 0;
    for (; j < stop; ++j) tail += x[j] * x[j];
    total += static_cast<double>(sum(s)) + tail;
  }
  return total;
}

void add_range(const float* x, int64_t begin, int64_t end, float* y) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) y[i] += x[i];
}

}  // namespace eepo::EEPO_ISA_NAMESPACE
