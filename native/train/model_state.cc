// The optimizer's state in a file: what a run that goes on needs beside the weights.
#include <cmath>
#include <utility>

#include "model/safetensors.h"
#include "train/model.h"

namespace eepo {
namespace {

constexpr const char* kStep = "step";
constexpr const char* kSuffixes[] = {".exp_avg", ".exp_avg_sq"};
/// What a float32 counts exactly; PyTorch keeps its steps in one as well.
constexpr int64_t kMaxSteps = int64_t{1} << 24;

/// One tensor of the file, checked; its values are not looked at yet.
const FileTensor& tensor_of(const SafetensorsFile& file, const std::string& name, const std::vector<int64_t>& shape) {
  const auto it = file.tensors().find(name);
  check(it != file.tensors().end(), ErrorCode::InvalidFile, file.path(), ": tensor ", name,
        " is missing; is it the optimizer state of this model?");
  const FileTensor& tensor = it->second;
  check(tensor.shape == shape, ErrorCode::InvalidFile, file.path(), ": tensor ", name,
        " has another shape than its parameter; is it the optimizer state of this model?");
  check(tensor.dtype == FileDType::F32, ErrorCode::InvalidFile, file.path(), ": tensor ", name, " has dtype ",
        tensor.dtype_name, ", expected F32");
  return tensor;
}

int64_t read_step(const SafetensorsFile& file) {
  float step = 0;
  convert(tensor_of(file, kStep, {}), DType::Float32, &step);
  check(step >= 0 && step <= static_cast<float>(kMaxSteps) && step == std::floor(step), ErrorCode::InvalidFile,
        file.path(), ": step is ", step, ", expected a whole number from 0 to ", kMaxSteps);
  return static_cast<int64_t>(step);
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
  moment1_ = {};
  moment2_ = {};
  steps_ = 0;
}

void Model::save_optimizer(const std::string& path, const CancelToken& cancel) const {
  require_trainable("saveOptimizer");
  check(steps_ <= kMaxSteps, ErrorCode::Unsupported, "the optimizer has taken ", steps_,
        " steps; a file of its state counts to ", kMaxSteps);
  std::vector<NamedTensor> tensors{{kStep, {}}};
  std::vector<const float*> sources{nullptr};
  if (!moment1_.empty())
    for (const Parameter& p : trained())
      for (const int moment : {0, 1}) {
        tensors.push_back({p.name + kSuffixes[moment], p.shape});
        sources.push_back((moment == 0 ? moment1_ : moment2_).data() + trained_offset(p));
      }
  write_safetensors(
      path, tensors, DType::Float32,
      [&](size_t index, int64_t begin, int64_t count, float* host) {
        if (index == 0)
          host[0] = static_cast<float>(steps_);
        else
          ops_.download(host, sources[index] + begin, count * static_cast<int64_t>(sizeof(float)));
      },
      cancel);
}

void Model::load_optimizer(const std::string& path, const CancelToken& cancel) {
  require_trainable("loadOptimizer");
  const SafetensorsFile file(path);
  const int64_t steps = read_step(file);
  const size_t expected = steps == 0 ? 1 : 1 + 2 * trained().size();
  check(file.tensors().size() == expected, ErrorCode::InvalidFile, path, " has ", file.tensors().size(),
        " tensors, expected ", expected, "; is it the optimizer state of this model?");
  FloatBuffer moments[2];
  for (int moment = 0; moment < 2 && steps > 0; ++moment) {
    moments[moment] = FloatBuffer(ops_, trained_size());
    std::vector<float> values;
    for (const Parameter& p : trained()) {
      cancel.check();
      const std::string name = p.name + kSuffixes[moment];
      const FileTensor& tensor = tensor_of(file, name, p.shape);
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

}  // namespace eepo
