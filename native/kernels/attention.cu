// Attention, forward: a block computes one head of up to 64 queries, key tile by key tile, with the running maximum and
// sum of an online softmax in registers. Contract: kernels/attention.h; tables: kernels/attention_tables.cuh.
#include <algorithm>
#include <vector>

#include "kernels/attention_host.cuh"
#include "kernels/attention_tiles.cuh"

namespace eepo::cuda {
namespace {

constexpr int32_t kSeesAll = 1 << 30;  // the place of queries that see every key of a prefix
constexpr int64_t kPieceVisits = 16;   // at least, before a key tile's visits are split
constexpr int64_t kPieces = 128;       // how many pieces the work of all key tiles is cut into, about

template <class T>
void append(std::vector<int32_t>& words, const std::vector<T>& items) {
  const auto* begin = reinterpret_cast<const int32_t*>(items.data());
  words.insert(words.end(), begin, begin + items.size() * kWords<T>);
}

// add(first token, tokens, place of the first in the segment) for the tiles of segment s.
template <class Add>
void each_tile(const Segments& segments, int64_t s, Add add) {
  for (int64_t q = 0; q < segments.length(s); q += kTile)
    add(static_cast<int32_t>(segments.offsets[s] + q),
        static_cast<int32_t>(std::min<int64_t>(kTile, segments.length(s) - q)), static_cast<int32_t>(q));
}

std::vector<QueryTile> query_tiles(const Segments& segments) {
  std::vector<QueryTile> tiles;
  for (int64_t s = 0; s < segments.count(); ++s) {
    const int64_t prefix = segments.prefix_of(s);
    const auto prefix_token = static_cast<int32_t>(prefix < 0 ? 0 : segments.offsets[prefix]);
    const auto prefix_length = static_cast<int32_t>(segments.prefix_length(s));
    each_tile(segments, s, [&](int32_t token, int32_t count, int32_t position) {
      tiles.push_back({token, count, position, prefix_token, prefix_length});
    });
  }
  std::stable_sort(tiles.begin(), tiles.end(), [](const QueryTile& a, const QueryTile& b) {
    return a.position + a.prefix_length > b.position + b.prefix_length;
  });
  return tiles;
}

struct KeyPlan {
  std::vector<KeyPiece> pieces;
  std::vector<Visit> visits;
  std::vector<Merge> merges;
  int32_t slots = 0;
};

KeyPlan key_plan(const Segments& segments) {
  KeyPlan plan;
  std::vector<std::vector<int64_t>> children(segments.count());
  for (int64_t s = 0; s < segments.count(); ++s)
    if (segments.prefix_of(s) >= 0) children[segments.prefix_of(s)].push_back(s);

  std::vector<KeyPiece> whole;  // key tiles with all their visits
  int64_t work = 0;
  for (int64_t s = 0; s < segments.count(); ++s) {
    auto first = static_cast<int32_t>(plan.visits.size());
    each_tile(segments, s,
              [&](int32_t token, int32_t count, int32_t position) { plan.visits.push_back({token, count, position}); });
    for (const int64_t child : children[s])
      each_tile(segments, child,
                [&](int32_t token, int32_t count, int32_t) { plan.visits.push_back({token, count, kSeesAll}); });
    const auto end = static_cast<int32_t>(plan.visits.size());
    each_tile(segments, s, [&](int32_t token, int32_t count, int32_t position) {
      whole.push_back({token, count, position, first, end, -1});  // from the tile's own place on
      work += end - first++;
    });
  }

  const int64_t most = std::max(kPieceVisits, ceil_div(work, kPieces));
  for (const KeyPiece& tile : whole) {
    const int64_t visits = tile.visit_end - tile.visit_begin, pieces = ceil_div(visits, most);
    for (int64_t p = 0; p < pieces; ++p) {
      KeyPiece piece = tile;
      piece.visit_begin = tile.visit_begin + static_cast<int32_t>(visits * p / pieces);
      piece.visit_end = tile.visit_begin + static_cast<int32_t>(visits * (p + 1) / pieces);
      if (pieces > 1) piece.slot = plan.slots + static_cast<int32_t>(p);
      plan.pieces.push_back(piece);
    }
    if (pieces == 1) continue;
    plan.merges.push_back({tile.token, tile.count, plan.slots, plan.slots + static_cast<int32_t>(pieces)});
    plan.slots += static_cast<int32_t>(pieces);
  }
  std::stable_sort(plan.pieces.begin(), plan.pieces.end(), [](const KeyPiece& a, const KeyPiece& b) {
    return a.visit_end - a.visit_begin > b.visit_end - b.visit_begin;
  });
  return plan;
}

// Blocks that share a multiprocessor: what the registers allow.
template <int kChunks>
constexpr int kForwardBlocks = kChunks <= 2 ? 3 : 2;

// One head of one query tile. Softmax in powers of two: scores are scaled by scale * log2(e).
template <int R, int kChunks, bool kVector>
__global__ __launch_bounds__(kTileThreads<R>,
                             kForwardBlocks<kChunks>) void attention_kernel(HeadShape shape, const QueryTile* tiles,
                                                                            const float* qkv, float* out, float* lse) {
  __shared__ SharedTile shared[2];
  const TilePlace<R> at;
  const QueryTile tile = tiles[blockIdx.x / static_cast<unsigned>(shape.heads)];
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(shape.heads)), dim = shape.head_dim;
  const float* keys = qkv + static_cast<int64_t>(shape.heads + head / shape.group()) * dim;
  const float* values = keys + static_cast<int64_t>(shape.kv_heads) * dim;
  const Operand queries{qkv + int64_t{tile.token} * shape.ld + static_cast<int64_t>(head) * dim, shape.ld, tile.count};
  const float scale = shape.scale * kLog2E, infinity = __int_as_float(0x7f800000);
  float mixed[kChunks][R][4] = {}, top[R], total[R] = {};
#pragma unroll
  for (int i = 0; i < R; ++i) top[i] = -infinity;

  const auto visit = [&](int64_t token, int count, int sees) {
    float scores[R][4];
    score_heads<R, kChunks, kVector>(scores, shared, queries, {keys + token * shape.ld, shape.ld, count}, dim);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      float most = -infinity;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int key = at.tx + 16 * j;
        const bool visible = key < count && key < sees + at.row(i);
        scores[i][j] = visible ? scores[i][j] * scale : -infinity;
        most = fmaxf(most, scores[i][j]);
      }
      // Never -inf: the first key of every tile that is visited is visible to all of its queries.
      const float next = fmaxf(top[i], row_max(most));
      const float shrink = exp2f(top[i] - next);
      float sum = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        scores[i][j] = exp2f(scores[i][j] - next);
        sum += scores[i][j];
      }
      total[i] = total[i] * shrink + row_sum(sum);
      top[i] = next;
#pragma unroll
      for (int c = 0; c < kChunks; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) mixed[c][i][e] *= shrink;
    }
    mix_heads<R, kChunks, kVector>(mixed, shared, scores, {values + token * shape.ld, shape.ld, count}, dim);
  };
  each_key_tile(tile, visit);

#pragma unroll
  for (int i = 0; i < R; ++i) {
    if (lse && at.tx == 0 && at.row(i) < tile.count)
      lse[(tile.token + int64_t{at.row(i)}) * shape.heads + head] = (top[i] + log2f(total[i])) * kLn2;
    const float inverse = 1.0f / total[i];
#pragma unroll
    for (int c = 0; c < kChunks; ++c)
#pragma unroll
      for (int e = 0; e < 4; ++e) mixed[c][i][e] *= inverse;
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    store_chunk<R, kVector>(out + int64_t{tile.token} * shape.ld_out() + static_cast<int64_t>(head) * dim,
                            shape.ld_out(), tile.count, c * kChunk, dim, mixed[c]);
}

}  // namespace

AttentionTables plan_attention(const Segments& segments) {
  AttentionTables tables;
  const auto queries = query_tiles(segments);
  const auto plan = key_plan(segments);
  tables.segments = segments.count();
  for (int64_t s = 0; s < segments.count(); ++s) tables.tokens += segments.length(s);
  tables.query_blocks = static_cast<int64_t>(queries.size());
  tables.key_blocks = static_cast<int64_t>(plan.pieces.size());
  const std::vector<PlanTotals> totals{
      {static_cast<int32_t>(plan.visits.size()), static_cast<int32_t>(plan.merges.size()), plan.slots}};
  append(tables.words, queries);
  append(tables.words, plan.pieces);
  append(tables.words, plan.visits);
  append(tables.words, plan.merges);
  append(tables.words, totals);
  return tables;
}

void attention(const Context& context, const float* qkv, const AttentionShape& shape, const AttentionTables& tables,
               float* out, float* lse) {
  if (tables.query_blocks == 0) return;
  const PlanView plan(tables, plan_totals(tables), tables.device);
  const HeadShape heads = head_shape(shape, aligned16(qkv, out));
  const auto blocks = static_cast<unsigned>(tables.query_blocks * shape.heads);
  with_layout(heads, [&](auto layout) {
    using Layout = decltype(layout);
    EEPO_LAUNCH((attention_kernel<8, Layout::chunks, Layout::vector>), blocks, kTileThreads<8>, 0, context.stream,
                heads, plan.queries, qkv, out, lse);
  });
}

}  // namespace eepo::cuda
