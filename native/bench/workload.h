// What `eepo bench kernels` measures: data of one shape on one device, and named pieces of work on it. A floor is what
// the device itself needs for so many bytes or FLOPs; a kernel's ratio is its time over its floor's, scaled by the
// amounts of both. Everything here runs on the device's executor thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device/ops.h"

namespace eepo::bench {

/// Largest errors against float64, by the name of what was compared: logprob and entropy in nats; oneMinusP, gradient,
/// dHidden, dHead, into, param relative.
using Errors = std::map<std::string, double>;

struct Entry {
  std::string name;
  std::vector<std::string> floors;           // other entries, of which the fastest counts; empty for a floor
  double amount = 0;                         // bytes or FLOPs of the least work that does the job
  const char* unit = "B";                    // "B" or "FLOP"
  std::function<void()> work;                // timed
  std::function<void()> prepare = nullptr;   // before every work, not timed: puts back what work overwrites
  std::function<Errors()> errors = nullptr;  // after prepare and work
};

class Workload {
 public:
  explicit Workload(Ops& ops) : ops_(&ops) {}
  virtual ~Workload() = default;
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;

  Ops& ops() const { return *ops_; }
  const std::vector<Entry>& entries() const { return entries_; }
  /// Throws InvalidArgument for a name that is not there.
  const Entry& entry(const std::string& name) const;

  /// Milliseconds of one call on the device, without `prepare`.
  double run(const std::string& name);
  /// Bytes one call needs beyond the data. CPU: of the whole process, by the kernel's own count, in a fresh thread, so
  /// that memory threads keep for the next call counts too; pages in use before are not counted. CUDA: of the
  /// allocator.
  double extra_memory(const std::string& name);
  /// Runs once more and compares.
  Errors errors(const std::string& name);

 protected:
  void add(Entry entry) { entries_.push_back(std::move(entry)); }

 private:
  Ops* ops_;
  std::vector<Entry> entries_;
};

struct RowOptions {
  int64_t rows = 256, vocab = 151936;
  DType dtype = DType::Float32;
};
/// Everything that takes logits: tokenStats, tokenGrad in place, the unlearning step's forward and backward, sample.
std::unique_ptr<Workload> logits_workload(Ops& ops, const RowOptions& options);

struct HeadOptions {
  int64_t rows = 256, dim = 2048, vocab = 151936;
  DType dtype = DType::Float32;
  double active = 0.25;  // the share of rows with a gradient in the second measurement of tokenGrad
};
/// tokenStats and tokenGrad from hidden states and a head.
std::unique_ptr<Workload> head_workload(Ops& ops, const HeadOptions& options);

/// complementaryLoss on `tokens` tokens in sequences of 512.
std::unique_ptr<Workload> loss_workload(Ops& ops, int64_t tokens);

/// ascend, its restore and AdamW on `elements` parameters in tensors of a model's sizes.
std::unique_ptr<Workload> weights_workload(Ops& ops, int64_t elements);

}  // namespace eepo::bench
