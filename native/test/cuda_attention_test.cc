// Attention of the CUDA half, forward, backward and decoding, against plain double references and the CPU's.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "cuda/kernels.h"
#include "test/device_memory.h"
#include "test/fixtures.h"

namespace eepo::test {
namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

struct Case {
  const char* name;
  int64_t heads, kv_heads, head_dim;
  std::vector<int64_t> lengths, prefix;
  int64_t gap = 0;   // floats behind every row of qkv
  int64_t skew = 0;  // floats in front of every array: 1 takes away the alignment of vectors
  float size = 1;    // of queries and keys

  AttentionShape shape() const { return {heads, kv_heads, head_dim, (heads + 2 * kv_heads) * head_dim + gap}; }
  Segments segments() const {
    Segments s{{0}, prefix};
    for (const int64_t n : lengths) s.offsets.push_back(s.offsets.back() + n);
    return s;
  }
  int64_t tokens() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }
  int64_t ld_out() const { return heads * head_dim; }
};

// ---- the reference
// ------------------------------------------------------------------------------------------------------

// The tokens that token t of segment s sees, in order.
std::vector<int64_t> seen_by(const Segments& segments, int64_t s, int64_t t) {
  std::vector<int64_t> keys;
  const int64_t prefix = segments.prefix_of(s);
  if (prefix >= 0)
    for (int64_t k = segments.offsets[prefix]; k < segments.offsets[prefix + 1]; ++k) keys.push_back(k);
  for (int64_t k = segments.offsets[s]; k <= t; ++k) keys.push_back(k);
  return keys;
}

struct Reference {
  Doubles out, lse, d_qkv;
};

// Equations of kernels/attention.h in double; d_qkv is 0 outside the heads.
Reference reference(const Case& c, const Floats& qkv, const Floats& d_out) {
  const AttentionShape shape = c.shape();
  const Segments segments = c.segments();
  const int64_t hd = c.head_dim, group = c.heads / c.kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(hd));
  Reference r{Doubles(c.tokens() * c.ld_out()), Doubles(c.tokens() * c.heads), Doubles(c.tokens() * shape.ld)};
  const auto dot = [hd](const float* a, const float* b) {
    double sum = 0;
    for (int64_t d = 0; d < hd; ++d) sum += double{a[d]} * b[d];
    return sum;
  };
  for (int64_t s = 0; s < segments.count(); ++s)
    for (int64_t t = segments.offsets[s]; t < segments.offsets[s + 1]; ++t) {
      const auto keys = seen_by(segments, s, t);
      for (int64_t h = 0; h < c.heads; ++h) {
        const int64_t q_at = t * shape.ld + h * hd, k_head = (c.heads + h / group) * hd,
                      v_head = k_head + c.kv_heads * hd;
        const float* d_o = d_out.data() + t * c.ld_out() + h * hd;
        Doubles p;
        for (const int64_t k : keys) p.push_back(scale * dot(qkv.data() + q_at, qkv.data() + k * shape.ld + k_head));
        const double top = *std::max_element(p.begin(), p.end());
        double total = 0;
        for (double& x : p) total += x = std::exp(x - top);
        double* out = r.out.data() + t * c.ld_out() + h * hd;
        for (size_t k = 0; k < keys.size(); ++k) {
          p[k] /= total;
          for (int64_t d = 0; d < hd; ++d) out[d] += p[k] * qkv[keys[k] * shape.ld + v_head + d];
        }
        r.lse[t * c.heads + h] = top + std::log(total);
        double delta = 0;
        for (int64_t d = 0; d < hd; ++d) delta += d_o[d] * out[d];
        for (size_t k = 0; k < keys.size(); ++k) {
          const int64_t k_at = keys[k] * shape.ld + k_head, v_at = keys[k] * shape.ld + v_head;
          const double d_s = scale * p[k] * (dot(d_o, qkv.data() + v_at) - delta);
          for (int64_t d = 0; d < hd; ++d) {
            r.d_qkv[q_at + d] += d_s * qkv[k_at + d];
            r.d_qkv[k_at + d] += d_s * qkv[q_at + d];
            r.d_qkv[v_at + d] += p[k] * d_o[d];
          }
        }
      }
    }
  return r;
}

// ---- helpers
// ------------------------------------------------------------------------------------------------------------

// The largest error, in units of the largest value wanted.
template <class Want>
double relative_error(const Floats& got, const Want& want) {
  double error = got.size() == want.size() ? 0 : NAN, scale = 1e-30;
  for (size_t i = 0; i < want.size() && i < got.size(); ++i) {
    error = worse(error, difference(got[i], static_cast<double>(want[i])));
    scale = std::fmax(scale, std::fabs(static_cast<double>(want[i])));
  }
  return error / scale;
}

Floats random_qkv(const Case& c, uint32_t seed) {
  Floats qkv = random_floats(c.tokens() * c.shape().ld, seed, 1);
  for (int64_t t = 0; t < c.tokens(); ++t)
    for (int64_t i = 0; i < (c.heads + c.kv_heads) * c.head_dim; ++i) qkv[t * c.shape().ld + i] *= c.size;
  return qkv;
}

Floats skewed(const Floats& values, int64_t skew) {
  Floats all(static_cast<size_t>(skew), 0.0f);
  all.insert(all.end(), values.begin(), values.end());
  return all;
}

struct Result {
  Floats out, lse, d_qkv;
};

// Forward and backward; results start as 7, so that what is not written shows.
Result run(const TestDevice& device, const Case& c, const Floats& qkv, const Floats& d_out) {
  const int64_t skew = c.skew;
  cuda::AttentionTables tables = cuda::plan_attention(c.segments());
  const DeviceArray<int32_t> words(tables.words);
  tables.device = words.data();
  const DeviceArray<float> d_in(skewed(qkv, skew)), d_d_out(skewed(d_out, skew));
  DeviceArray<float> out(skewed(Floats(d_out.size(), 7.0f), skew)), d_qkv(skewed(Floats(qkv.size(), 7.0f), skew));
  DeviceArray<float> lse(c.tokens() * c.heads);
  cuda::attention(device.context(), d_in.data() + skew, c.shape(), tables, out.data() + skew, lse.data());
  cuda::attention_backward(device.context(), d_d_out.data() + skew, d_in.data() + skew, out.data() + skew, lse.data(),
                           c.shape(), tables, d_qkv.data() + skew);
  const auto back = [&](const DeviceArray<float>& a) {
    const Floats all = a.host();
    return Floats(all.begin() + skew, all.end());
  };
  return {back(out), lse.host(), back(d_qkv)};
}

// ---- forward and backward
// -----------------------------------------------------------------------------------------------

void test_case(const TestDevice& device, const Case& c) {
  const AttentionShape shape = c.shape();
  const Floats qkv = random_qkv(c, 1), d_out = random_floats(c.tokens() * c.ld_out(), 2, 1);
  const Result got = run(device, c, qkv, d_out);
  Reference want = reference(c, qkv, d_out);
  for (int64_t t = 0; t < c.tokens(); ++t)
    for (int64_t i = shape.ld - c.gap; i < shape.ld; ++i) want.d_qkv[t * shape.ld + i] = 7;  // not the kernel's
  const std::string name = std::string("attention, ") + c.name;
  const double unit = c.size > 1 ? 5e-6 : 1e-6;  // scores of 100 and more are rounded to 1e-5
  check_at_most(name + ": out", relative_error(got.out, want.out), 2 * unit);
  check_at_most(name + ": lse", relative_error(got.lse, want.lse), unit);
  check_at_most(name + ": d_qkv", relative_error(got.d_qkv, want.d_qkv), 4 * unit);
  const Result again = run(device, c, qkv, d_out);
  check_true(name + ": the same bits twice",
             same_bits(got.out, again.out) && same_bits(got.lse, again.lse) && same_bits(got.d_qkv, again.d_qkv));

  Floats out(got.out.size()), lse(got.lse.size()), d_qkv(qkv.size(), 7.0f);
  eepo::attention(qkv.data(), shape, c.segments(), out.data(), lse.data());
  eepo::attention_backward(d_out.data(), qkv.data(), out.data(), lse.data(), shape, c.segments(), d_qkv.data());
  check_at_most(name + ": out like the CPU's", relative_error(got.out, out), 4 * unit);
  check_at_most(name + ": d_qkv like the CPU's", relative_error(got.d_qkv, d_qkv), 8 * unit);
}

// The gradient of the reference itself: finite differences of sum(d_out * out).
void test_reference() {
  const Case c{"", 4, 2, 6, {3, 2, 4}, {-1, 0, 0}};
  Floats qkv = random_qkv(c, 3);
  const Floats d_out = random_floats(c.tokens() * c.ld_out(), 4, 1);
  const Doubles gradient = reference(c, qkv, d_out).d_qkv;
  const auto value = [&] {
    const Doubles out = reference(c, qkv, d_out).out;
    return std::inner_product(out.begin(), out.end(), d_out.begin(), 0.0);
  };
  double error = 0;
  for (size_t i = 0; i < qkv.size(); i += 5) {
    const float x = qkv[i], step = 1.0f / 512;
    qkv[i] = x + step;
    const double span = qkv[i], up = value();
    qkv[i] = x - step;
    const double down = value();
    error = worse(error, std::fabs((up - down) / (span - qkv[i]) - gradient[i]));
    qkv[i] = x;
  }
  check_at_most("attention, the reference's gradient by finite differences", error, 1e-4);
}

// A prompt's only answer, of which nothing is asked, must not be needed: lse may be null.
void test_without_lse(const TestDevice& device) {
  const Case c{"", 2, 1, 16, {66}, {}};
  const Floats qkv = random_qkv(c, 5);
  cuda::AttentionTables tables = cuda::plan_attention(c.segments());
  const DeviceArray<int32_t> words(tables.words);
  tables.device = words.data();
  const DeviceArray<float> d_in(qkv);
  DeviceArray<float> with(c.tokens() * c.ld_out()), without(c.tokens() * c.ld_out()), lse(c.tokens() * c.heads);
  cuda::attention(device.context(), d_in.data(), c.shape(), tables, with.data(), lse.data());
  cuda::attention(device.context(), d_in.data(), c.shape(), tables, without.data(), nullptr);
  check_true("attention without lse", same_bits(with.host(), without.host()));
}

// Every query tile once, every key tile's visits cut into pieces that cover them, no piece far above the others.
void test_plan() {
  Case c{"", 1, 1, 8, {100}, {-1}};
  for (int i = 0; i < 300; ++i) {
    c.lengths.push_back(1 + i % 130);
    c.prefix.push_back(0);
  }
  const auto tables = cuda::plan_attention(c.segments());
  int64_t tiles = 0, keys = 0;
  for (const int64_t n : c.lengths) tiles += (n + 63) / 64;
  check_true("plan_attention: a query tile per 64 tokens", tables.query_blocks == tiles);
  keys = tables.key_blocks;
  check_true("plan_attention: a prompt with many responses is cut into pieces", keys > tiles + 20 && keys < 2 * tiles,
             text("%lld pieces", static_cast<long long>(keys)));
  check_true("plan_attention: tokens", tables.tokens == c.tokens() && tables.segments == 301);
  check_true("plan_attention: nothing", cuda::plan_attention(Segments{{0}, {}}).query_blocks == 0);
}

void test_forward_backward(const TestDevice& device) {
  const Case cases[] = {
      {"one token", 2, 2, 8, {1}, {}},
      {"packed segments", 2, 1, 64, {70, 1, 130}, {}},
      {"groups of 7", 7, 1, 80, {65, 20}, {}},
      {"whole tiles", 2, 2, 64, {64, 128}, {}},
      {"a prefix shared", 2, 1, 128, {70, 5, 66, 64}, {-1, 0, 0, 0}},
      {"heads of 256", 2, 1, 256, {100, 3}, {}},
      {"heads of 160", 2, 1, 160, {30, 40}, {-1, 0}},
      {"heads of 6", 3, 1, 6, {5, 67, 9}, {-1, 0, 0}, 3},
      {"unaligned", 2, 2, 72, {40, 30, 30}, {-1, 0, -1}, 0, 1},
      {"a gap behind rows", 2, 1, 16, {90}, {}, 8},
      {"several tiles", 1, 1, 32, {333}, {}},
      {"empty segments", 1, 1, 16, {0, 20, 0, 30, 0}, {-1, 0, -1, 1, -1}},
      {"peaked scores", 2, 1, 32, {100, 50}, {-1, 0}, 0, 0, 6},
  };
  for (const Case& c : cases) test_case(device, c);
  Case many{"a prefix of many", 2, 1, 8, {68}, {-1}};  // its visits are cut into pieces
  for (int i = 0; i < 24; ++i) {
    many.lengths.push_back(i % 3 == 0 ? 65 : 10);
    many.prefix.push_back(0);
  }
  test_case(device, many);
  const Case none{"nothing", 2, 1, 8, {}, {}};
  run(device, none, {}, {});
}

// ---- decoding
// -----------------------------------------------------------------------------------------------------------

int64_t round_up(int64_t n) { return (n + 15) / 16 * 16; }

// Prompts and responses in caches, and a row for every token of every response.
struct Decoding {
  Floats prompts, own;  // the caches, filled with NaN where nothing was written
  std::vector<DecodeRow> rows;
  std::vector<int64_t> tokens;
};

Decoding fill_caches(const TestDevice& device, const Case& c, const DeviceArray<float>& qkv) {
  const AttentionShape shape = c.shape();
  const Segments segments = c.segments();
  std::vector<CacheSlot> slots[2];
  std::vector<int64_t> at(c.lengths.size());
  int64_t floats[2] = {0, 0}, prompt_tokens = 0;
  Decoding made;
  for (int64_t s = 0; s < segments.count(); ++s) {
    const bool own = segments.prefix_of(s) >= 0;  // the case lists prompts first
    const int64_t capacity = round_up(segments.length(s)) + (own ? 16 : 0);
    at[s] = floats[own];
    floats[own] += cache_slot_floats(shape, capacity);
    if (!own) prompt_tokens += segments.length(s);
    for (int64_t i = 0; i < segments.length(s); ++i) {
      slots[own].push_back({at[s], static_cast<int32_t>(capacity), static_cast<int32_t>(i)});
      if (!own) continue;
      const int64_t prompt = segments.prefix_of(s);
      made.rows.push_back({at[prompt], at[s], static_cast<int32_t>(segments.length(prompt)),
                           static_cast<int32_t>(round_up(segments.length(prompt))), static_cast<int32_t>(i + 1),
                           static_cast<int32_t>(capacity)});
      made.tokens.push_back(segments.offsets[s] + i);
    }
  }
  for (const int own : {0, 1}) {
    DeviceArray<float> cache(Floats(static_cast<size_t>(floats[own]), kNan));
    const DeviceArray<CacheSlot> d_slots(slots[own]);
    cuda::cache_append(device.context(), qkv.data() + (own ? prompt_tokens * shape.ld : 0), shape, d_slots.data(),
                       d_slots.size(), cache.data());
    (own ? made.own : made.prompts) = cache.host();
  }
  return made;
}

Floats decode(const TestDevice& device, const AttentionShape& shape, const Floats& queries,
              const std::vector<DecodeRow>& rows, const Floats& prompts, const Floats& own) {
  const auto count = static_cast<int64_t>(rows.size());
  const DeviceArray<float> d_q(queries), d_prompts(prompts), d_own(own);
  const DeviceArray<DecodeRow> d_rows(rows);
  DeviceArray<float> out(count * shape.heads * shape.head_dim);
  cuda::attention_decode(device.context(), d_q.data(), shape, d_rows.data(), count, d_prompts.data(), d_own.data(),
                         out.data());
  return out.host();
}

// Decoding every token of the responses gives what attention over whole sequences gives; every row alone, or split over
// blocks or not, gives the same bits.
void test_decode(const TestDevice& device, const Case& c) {
  const AttentionShape shape = c.shape();
  const Floats qkv = random_qkv(c, 6), d_out(c.tokens() * c.ld_out(), 0.0f);
  const Doubles all = reference(c, qkv, d_out).out;
  const Decoding made = fill_caches(device, c, DeviceArray<float>(qkv));
  Floats queries;
  Doubles want;
  for (const int64_t t : made.tokens) {
    queries.insert(queries.end(), qkv.begin() + t * shape.ld, qkv.begin() + (t + 1) * shape.ld);
    want.insert(want.end(), all.begin() + t * c.ld_out(), all.begin() + (t + 1) * c.ld_out());
  }
  const std::string name = std::string("attention_decode, ") + c.name;
  const TestDevice small(1), large(1'000'000);
  const Floats together = decode(small, shape, queries, made.rows, made.prompts, made.own);
  check_at_most(name, relative_error(together, want), 2e-6);
  const Floats apart = decode(large, shape, queries, made.rows, made.prompts, made.own);
  check_true(name + ": the same bits from split rows", same_bits(together, apart));
  const auto last = static_cast<int64_t>(made.rows.size()) - 1;
  const Floats alone =
      decode(device, shape, {queries.end() - shape.ld, queries.end()}, {made.rows[last]}, made.prompts, made.own);
  check_true(name + ": the same bits alone", same_bits(alone, Floats(together.end() - c.ld_out(), together.end())));
}

// A row whose 16 splits have several steps each.
void test_long_row(const TestDevice& device) {
  const AttentionShape shape{2, 1, 8, 32};
  const int64_t lengths[2] = {4500, 700}, hd = shape.head_dim;
  Floats cache[2];
  for (const int own : {0, 1}) cache[own] = random_floats(cache_slot_floats(shape, round_up(lengths[own])), 7 + own, 1);
  const Floats q = random_floats(shape.ld, 9, 2);
  const DecodeRow row{0, 0, 4500, static_cast<int32_t>(round_up(4500)), 700, static_cast<int32_t>(round_up(700))};
  Doubles want(shape.heads * hd);
  for (int64_t h = 0; h < shape.heads; ++h) {
    double total = 0;
    for (const int own : {0, 1}) {
      const int64_t capacity = round_up(lengths[own]);
      for (int64_t k = 0; k < lengths[own]; ++k) {
        double score = 0;
        for (int64_t d = 0; d < hd; ++d) score += double{q[h * hd + d]} * cache[own][d * capacity + k];
        const double e = std::exp(score / std::sqrt(static_cast<double>(hd)));
        total += e;
        for (int64_t d = 0; d < hd; ++d) want[h * hd + d] += e * cache[own][(hd + d) * capacity + k];
      }
    }
    for (int64_t d = 0; d < hd; ++d) want[h * hd + d] /= total;
  }
  const TestDevice small(1), large(1'000);
  std::vector<DecodeRow> rows(9, row);
  Floats queries;
  for (int i = 0; i < 9; ++i) queries.insert(queries.end(), q.begin(), q.end());
  const Floats one = decode(large, shape, q, {row}, cache[0], cache[1]);
  check_at_most("attention_decode, a long row", relative_error(one, want), 2e-6);
  const Floats nine = decode(small, shape, queries, rows, cache[0], cache[1]);
  check_true("attention_decode, a long row: the same bits unsplit",
             same_bits(one, Floats(nine.end() - static_cast<int64_t>(one.size()), nine.end())));
  decode(device, shape, {}, {}, cache[0], cache[1]);  // no rows
}

void test_decoding(const TestDevice& device) {
  test_decode(device, {"one head per cache", 2, 2, 8, {3, 5}, {-1, 0}});
  test_decode(device, {"pairs", 4, 2, 64, {130, 3, 20, 4}, {-1, -1, 0, 1}});
  test_decode(device, {"groups of 3", 6, 2, 80, {1, 12}, {-1, 0}});
  test_decode(device, {"groups of 7", 7, 1, 128, {300, 10, 6}, {-1, 0, 0}});
  test_decode(device, {"groups of 12", 12, 1, 6, {20, 30}, {-1, 0}});
  test_decode(device, {"heads of 256", 8, 1, 256, {40, 5}, {-1, 0}, 4});
  test_decode(device, {"an empty prompt", 2, 1, 32, {0, 7}, {-1, 0}});
  test_decode(device, {"long responses", 2, 1, 16, {260, 140}, {-1, 0}, 0, 0, 3});
  test_long_row(device);
}

// The cache as the CPU fills it, tokens of different slots in any order.
void test_append(const TestDevice& device) {
  const AttentionShape shape{3, 3, 10, 95};
  const int64_t tokens = 75;
  const Floats qkv = random_floats(tokens * shape.ld, 10, 1);
  std::vector<CacheSlot> slots;
  for (int64_t t = 0; t < tokens; ++t)
    slots.push_back({(t % 2) * cache_slot_floats(shape, 48), 48, static_cast<int32_t>((t / 2 * 5) % 48)});
  Floats want(2 * cache_slot_floats(shape, 48), -1.0f);
  DeviceArray<float> cache(want);
  const DeviceArray<float> d_qkv(qkv);
  const DeviceArray<CacheSlot> d_slots(slots);
  eepo::cache_append(qkv.data(), shape, slots.data(), tokens, want.data());
  cuda::cache_append(device.context(), d_qkv.data(), shape, d_slots.data(), tokens, cache.data());
  check_true("cache_append", same_bits(cache.host(), want));
}

// Heads wider than the kernels hold are refused before anything is launched.
void test_refused(const TestDevice& device) {
  const AttentionShape shape{1, 1, 258, 774};
  cuda::AttentionTables tables = cuda::plan_attention(Segments{{0, 1}, {}});
  check_true("attention refuses heads of 258", throws(ErrorCode::Unsupported, "up to 256 wide", [&] {
               cuda::attention(device.context(), nullptr, shape, tables, nullptr, nullptr);
             }));
  check_true("attention_decode refuses heads of 258", throws(ErrorCode::Unsupported, "up to 256 wide", [&] {
               cuda::attention_decode(device.context(), nullptr, shape, nullptr, 1, nullptr, nullptr, nullptr);
             }));
}

}  // namespace

void test_cuda_attention() {
  const TestDevice device;
  test_reference();
  test_plan();
  test_forward_backward(device);
  test_without_lse(device);
  test_append(device);
  test_decoding(device);
  test_refused(device);
}

}  // namespace eepo::test
