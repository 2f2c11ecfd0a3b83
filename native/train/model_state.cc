// What a run that goes on needs beside the weights, in files: the optimizer's state, and what is remembered of theta'.
#include <cmath>
#include <utility>

#include "model/safetensors.h"
#include "train/model.h"

namespace eepo {
namespace {

constexpr const char* kStep = "step";
constexpr const char* kSuffixes[] = {".exp_avg", ".exp_avg_sq"};
constexpr const char* kIteration = "iteration";
constexpr const char* kDelta = ".delta";
constexpr const char* kOptimizer = "the optimizer state of this model";
constexpr const char* kMemory = "what this model remembers of theta'";
/// What a float32 counts exactly; PyTorch keeps its steps in one as well.
constexpr int64_t kMaxCount = int64_t{1} << 24;

/// One tensor of a file of `what`, checked; its values are not looked at yet.
const FileTensor& tensor_of(const SafetensorsFile& file, const char* what, const std::string& name,
                            const std::vector<int64_t>& shape) {
  const auto it = file.tensors().find(name);
  check(it != file.tensors().end(), ErrorCode::InvalidFile, file.path(), ": tensor ", name, " is missing; is it ", what,
        "?");
  const FileTensor& tensor = it->second;
  check(tensor.shape == shape, ErrorCode::InvalidFile, file.path(), ": tensor ", name,
        " has another shape than its parameter; is it ", what, "?");
  check(tensor.dtype == FileDType::F32, ErrorCode::InvalidFile, file.path(), ": tensor ", name, " has dtype ",
        tensor.dtype_name, ", expected F32");
  return tensor;
}

/// A whole number, kept as a float32.
int64_t read_count(const SafetensorsFile& file, const char* what, const char* name) {
  float count = 0;
  convert(tensor_of(file, what, name, {}), DType::Float32, &count);
  check(count >= 0 && count <= static_cast<float>(kMaxCount) && count == std::floor(count), ErrorCode::InvalidFile,
        file.path(), ": ", name, " is ", count, ", expected a whole number from 0 to ", kMaxCount);
  return static_cast<int64_t>(count);
}

void check_size(const SafetensorsFile& file, const char* what, size_t expected) {
  check(file.tensors().size() == expected, ErrorCode::InvalidFile, file.path(), " has ", file.tensors().size(),
        " tensors, expected ", expected, "; is it ", what, "?");
}

/// A count, then slices of flat buffers on the device (the first of `sources` is not read).
void write_state(Ops& ops, const std::string& path, const std::vector<NamedTensor>& tensors,
                 const std::vector<const float*>& sources, int64_t count, const CancelToken& cancel) {
  write_safetensors(
      path, tensors, DType::Float32,
      [&](size_t index, int64_t begin, int64_t size, float* host) {
        if (index == 0)
          host[0] = static_cast<float>(count);
        else
          ops.download(host, sources[index] + begin, size * static_cast<int64_t>(sizeof(float)));
      },
      cancel);
}

void check_moments(const SafetensorsFile& file, const std::string& name, const std::vector<float>& values,
                   bool second) {
  bool good = true;
#pragma omp parallel for schedule(static) reduction(&& : good)
  for (size_t i = 0; i < values.size(); ++i) good = good && std::isfinite(values[i]) && !(second && values[i] < 0);
  check(good, ErrorCode::InvalidFile, file.path(), ": tensor ", name, " holds values that are no moments of AdamW");
}

}  // namespace

void Model::reset_training() {
  zero_grad();
  kept_.valid = false;
  rollout_active_ = false;
  for (Displacement& displacement : displacements_) displacement = {};
  moment1_ = {};
  moment2_ = {};
  steps_ = 0;
}

void Model::save_optimizer(const std::string& path, const CancelToken& cancel) const {
  require_trainable("saveOptimizer");
  check(steps_ <= kMaxCount, ErrorCode::Unsupported, "the optimizer has taken ", steps_,
        " steps; a file of its state counts to ", kMaxCount);
  std::vector<NamedTensor> tensors{{kStep, {}}};
  std::vector<const float*> sources{nullptr};
  if (!moment1_.empty())
    for (const Parameter& p : trained())
      for (const int moment : {0, 1}) {
        tensors.push_back({p.name + kSuffixes[moment], p.shape});
        sources.push_back((moment == 0 ? moment1_ : moment2_).data() + trained_offset(p));
      }
  write_state(ops_, path, tensors, sources, steps_, cancel);
}

void Model::load_optimizer(const std::string& path, const CancelToken& cancel) {
  require_trainable("loadOptimizer");
  const SafetensorsFile file(path);
  const int64_t steps = read_count(file, kOptimizer, kStep);
  check_size(file, kOptimizer, steps == 0 ? 1 : 1 + 2 * trained().size());
  FloatBuffer moments[2];
  for (int moment = 0; moment < 2 && steps > 0; ++moment) {
    moments[moment] = FloatBuffer(ops_, trained_size());
    std::vector<float> values;
    for (const Parameter& p : trained()) {
      cancel.check();
      const std::string name = p.name + kSuffixes[moment];
      const FileTensor& tensor = tensor_of(file, kOptimizer, name, p.shape);
      values.resize(tensor.elements);
      convert(tensor, DType::Float32, values.data());
      release(tensor);
      check_moments(file, name, values, moment == 1);
      ops_.upload(moments[moment].data() + trained_offset(p), values.data(),
                  tensor.elements * static_cast<int64_t>(sizeof(float)));
    }
  }
  moment1_ = std::move(moments[0]);
  moment2_ = std::move(moments[1]);
  steps_ = steps;
}

void Model::save_memory(const std::string& path, uint32_t iteration, const CancelToken& cancel) const {
  require_trainable("saveMemory");
  const Displacement* last = displacement_before(int64_t{iteration} + 1);
  if (last && last->zero) last = nullptr;
  check(!last || last->iteration <= kMaxCount, ErrorCode::Unsupported,
        "a file of what is remembered of theta' counts to ", kMaxCount, " iterations");
  std::vector<NamedTensor> tensors{{kIteration, {}}};
  std::vector<const float*> sources{nullptr};
  if (last)
    for (const Parameter& p : trained()) {
      tensors.push_back({p.name + kDelta, p.shape});
      sources.push_back(last->values.data() + trained_offset(p));
    }
  write_state(ops_, path, tensors, sources, last ? last->iteration : 0, cancel);
}

void Model::load_memory(const std::string& path, const CancelToken& cancel) {
  require_trainable("loadMemory");
  const SafetensorsFile file(path);
  Displacement read;
  const int64_t iteration = read_count(file, kMemory, kIteration);
  if (file.tensors().size() > 1) {
    check_size(file, kMemory, 1 + trained().size());
    read = {FloatBuffer(ops_, trained_size()), iteration, false};
    std::vector<float> values;
    for (const Parameter& p : trained()) {
      cancel.check();
      const FileTensor& tensor = tensor_of(file, kMemory, p.name + kDelta, p.shape);
      values.resize(tensor.elements);
      convert(tensor, DType::Float32, values.data());
      release(tensor);
      check(cpu_ops().first_non_finite(values.data(), DType::Float32, tensor.elements) < 0, ErrorCode::InvalidFile,
            path, ": tensor ", p.name, kDelta, " holds values that are not finite");
      ops_.upload(read.values.data() + trained_offset(p), values.data(),
                  tensor.elements * static_cast<int64_t>(sizeof(float)));
    }
  }
  displacements_[0] = std::move(read);
  displacements_[1] = {};
}

}  // namespace eepo
