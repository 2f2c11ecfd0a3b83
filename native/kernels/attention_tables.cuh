// What the attention kernels know of a batch's segments: AttentionTables::words, made by plan_attention (attention.cu).
//
//   words: [ query tiles | key pieces | visits | merges | totals ]
//
//   query tiles   QueryTile[query_blocks]: up to 64 queries of one segment; the one with most keys first, so that the
//                 last blocks to start are the short ones
//   key pieces    KeyPiece[key_blocks]: up to 64 keys of one segment and a run of the query tiles that see them;
//                 most visits first
//   visits        Visit[]: per segment its own query tiles in order, then those of every segment that has it as prefix
//   merges        Merge[]: the key tiles whose visits are more than one piece: each piece leaves its sum in a slot of
//                 scratch, the slots are added in order
//   totals        PlanTotals
//
// All of it is a function of the segments alone.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/kernels.h"

namespace eepo::cuda {

constexpr int kTile = 64;  // queries or keys of one tile

struct QueryTile {
  int32_t token, count, position;  // first token, queries, place of the first in its segment
  int32_t prefix_token, prefix_length;
};
struct KeyPiece {
  int32_t token, count, position;
  int32_t visit_begin, visit_end;
  int32_t slot;  // where the piece's sum goes; -1: it is all there is, and goes to the gradient
};
/// Queries [token, token + count) see the keys at places up to position + i of the visited segment.
struct Visit {
  int32_t token, count, position;
};
struct Merge {
  int32_t token, count, slot_begin, slot_end;
};
struct PlanTotals {
  int32_t visits, merges, slots;
};

template <class T>
constexpr int64_t kWords = sizeof(T) / sizeof(int32_t);

/// The parts of the table at `words`, on either side.
struct PlanView {
  const QueryTile* queries;
  const KeyPiece* keys;
  const Visit* visits;
  const Merge* merges;

  PlanView(const AttentionTables& tables, const PlanTotals& totals, const int32_t* words)
      : queries(reinterpret_cast<const QueryTile*>(words)),
        keys(reinterpret_cast<const KeyPiece*>(words + tables.query_blocks * kWords<QueryTile>)),
        visits(reinterpret_cast<const Visit*>(keys + tables.key_blocks)),
        merges(reinterpret_cast<const Merge*>(visits + totals.visits)) {}
};

inline PlanTotals plan_totals(const AttentionTables& tables) {
  PlanTotals totals{};
  std::memcpy(&totals, tables.words.data() + tables.words.size() - kWords<PlanTotals>, sizeof totals);
  return totals;
}

}  // namespace eepo::cuda
