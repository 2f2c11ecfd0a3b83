// Where a model's weights come from and go to: safetensors files, random numbers, another model.
#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "core/philox.h"
#include "core/utf8.h"
#include "model/safetensors.h"
#include "train/model.h"

namespace eepo {
namespace {

bool is_ignored_buffer(const std::string& name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".masked_bias");
}

using Found = std::vector<std::pair<const FileTensor*, const Parameter*>>;

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

/// A tied head that was saved as well must be the embedding again: another one would be dropped without a word.
void check_tied_head(const std::vector<std::unique_ptr<SafetensorsFile>>& files) {
  const FileTensor *head = nullptr, *embedding = nullptr;
  std::string path;
  for (const auto& file : files)
    for (const auto& [name, tensor] : file->tensors()) {
      if (name == kEmbedding) embedding = &tensor;
      if (name != kHead) continue;
      head = &tensor;
      path = file->path();
    }
  if (!head || !embedding) return;
  check(same_values(*head, *embedding), ErrorCode::InvalidFile, path, ": tensor ", kHead, " differs from ", kEmbedding,
        ", but config.json says that they are one (tie_word_embeddings): set it to false to use the saved head, or "
        "remove ",
        kHead, " from the file");
}

/// Every parameter's tensor in the files, each checked, in the order of the files' bytes.
Found find_tensors(const std::vector<std::unique_ptr<SafetensorsFile>>& files, const Layout& layout, bool tied,
                   const CancelToken& cancel) {
  Found found;
  std::unordered_set<std::string> seen;
  for (const auto& file : files)
    for (const auto& [name, tensor] : file->tensors()) {
      cancel.check();
      if (is_ignored_buffer(name)) continue;
      const std::string& path = file->path();
      // a tied head that was saved as well is the embedding again
      const bool tied_head = tied && name == kHead;
      const Parameter* parameter = layout.find(tied_head ? kEmbedding : name);
      check(parameter != nullptr, ErrorCode::InvalidFile, path, ": tensor ", printable(name),
            " does not belong to this architecture (config.json and weights disagree)");
      check(seen.insert(name).second, ErrorCode::InvalidFile, path, ": tensor ", name,
            " is in more than one file of the model");
      check(tensor.shape == parameter->shape, ErrorCode::InvalidFile, path, ": tensor ", name,
            " has a shape that config.json does not give it (", tensor.elements, " elements, expected ",
            parameter->size(), ")");
      check(is_float(tensor.dtype), ErrorCode::Unsupported, path, ": tensor ", name, " has dtype ", tensor.dtype_name,
            ", which is not supported; use float32, bfloat16 or float16");
      if (!tied_head) found.emplace_back(&tensor, parameter);
    }
  for (const Parameter& parameter : layout.parameters())
    check(seen.contains(parameter.name), ErrorCode::InvalidFile,
          files.empty() ? std::string("model") : files[0]->path(), ": tensor ", parameter.name,
          " is missing from the weights");
  if (tied) check_tied_head(files);
  std::ranges::sort(found, {}, [](const auto& entry) { return entry.first->data; });
  return found;
}

/// Every A and B once, with its shape, and nothing else.
void check_adapter(const SafetensorsFile& file, const AdapterLayout& layout) {
  const std::string& path = file.path();
  std::unordered_map<std::string, const Parameter*> wanted;
  for (const Parameter& p : layout.parameters()) wanted.emplace(p.name, &p);
  for (const auto& [name, tensor] : file.tensors()) {
    const auto it = wanted.find(name);
    check(it != wanted.end(), ErrorCode::InvalidFile, path, ": tensor ", printable(name),
          " belongs to no target of adapter_config.json in this model");
    check(tensor.shape == it->second->shape, ErrorCode::InvalidFile, path, ": tensor ", name,
          " has a shape that adapter_config.json and the model do not give it (", tensor.elements,
          " elements, expected ", it->second->size(), ")");
    check(is_float(tensor.dtype), ErrorCode::Unsupported, path, ": tensor ", name, " has dtype ", tensor.dtype_name,
          ", which is not supported; use float32, bfloat16 or float16");
  }
  for (const Parameter& p : layout.parameters())
    check(file.tensors().contains(p.name), ErrorCode::InvalidFile, path, ": tensor ", p.name,
          " is missing from the adapter");
}

}  // namespace

void Model::allocate() {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  if (trainable_) {
    master_ = FloatBuffer(ops_, layout().flat_size());
    if (dtype_ != DType::Float32) working_.reserve(ops_, layout(), dtype_, false);
    return;
  }
  working_.reserve(ops_, layout(), dtype_);
  ops_.zero(working_.matrices(), layout().matrix_size() * static_cast<int64_t>(size_of(dtype_)));
  ops_.zero(working_.vectors(), layout().vector_size() * kFloat);
}

Model::Place Model::place(const Parameter& p) {
  if (trainable_) return {master_.data() + layout().flat_offset(p), DType::Float32};
  if (!p.matrix()) return {working_.vectors() + p.offset, DType::Float32};
  return {static_cast<char*>(working_.matrices()) + p.offset * static_cast<int64_t>(size_of(dtype_)), dtype_};
}

void Model::load(const std::vector<std::string>& paths, const CancelToken& cancel, const LoadProgress& progress) {
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  files.reserve(paths.size());
  for (const std::string& path : paths) files.push_back(std::make_unique<SafetensorsFile>(path));
  const Found found = find_tensors(files, layout(), config().tied, cancel);
  if (!trainable_ || master_.empty()) allocate();
  int64_t done = 0, total = 0;
  for (const auto& [tensor, parameter] : found) total += tensor->bytes;
  std::vector<char> values;  // of one tensor at a time on the way to another device
  for (const auto& [tensor, parameter] : found) {
    cancel.check();
    const Place to = place(*parameter);
    if (device() == Device::Cpu) {
      convert(*tensor, to.dtype, to.data);
    } else {
      const int64_t bytes = tensor->elements * static_cast<int64_t>(size_of(to.dtype));
      values.resize(bytes);
      convert(*tensor, to.dtype, values.data());
      ops_.upload(to.data, values.data(), bytes);
    }
    release(*tensor);
    done += tensor->bytes;
    if (progress) progress(done, total);
  }
  refresh_working();
  reset_training();
}

void Model::initialize(uint64_t seed) {
  allocate();
  uint32_t index = 0;
  std::vector<float> values;
  std::vector<uint16_t> narrow;
  for (const Parameter& p : layout().parameters()) {
    values.resize(p.size());
    initialize_parameter(p, ++index, seed, values.data());
    const Place to = place(p);
    if (to.dtype == DType::Float32) {
      ops_.upload(to.data, values.data(), p.size() * static_cast<int64_t>(sizeof(float)));
      continue;
    }
    narrow.resize(p.size());
    std::ranges::transform(values, narrow.begin(), float_to_bf16);
    ops_.upload(to.data, narrow.data(), p.size() * static_cast<int64_t>(sizeof(uint16_t)));
  }
  refresh_working();
}

void Model::initialize_parameter(const Parameter& p, uint32_t index, uint64_t seed, float* w) const {
  if (!p.matrix()) {
    std::fill_n(w, p.size(), p.name.ends_with(".bias") ? 0.0f : 1.0f);
    return;
  }
  const bool residual = p.name.ends_with("o_proj.weight") || p.name.ends_with("down_proj.weight");
  const double deviation = residual ? 0.02 / std::sqrt(2.0 * static_cast<double>(config().layers)) : 0.02;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < p.size(); ++i) {  // Box-Muller
    const auto bits = philox4x32({index, static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), 0}, seed);
    const double u = (bits[0] + 0.5) * 0x1p-32, v = bits[1] * 0x1p-32;
    w[i] = static_cast<float>(deviation * std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
  }
}

void Model::refresh_working() {
  if (trainable_ && dtype_ != DType::Float32)
    ops_.cast(master_.data(), DType::Float32, working_.matrices(), dtype_, layout().matrix_size());
}

void Model::read(const Parameter& p, int64_t begin, int64_t count, float* out) const {
  const Place from = const_cast<Model*>(this)->place(p);
  const auto* data = static_cast<const char*>(from.data) + begin * static_cast<int64_t>(size_of(from.dtype));
  if (from.dtype == DType::Float32)
    ops_.copy(out, data, count * static_cast<int64_t>(sizeof(float)));
  else
    ops_.cast(data, from.dtype, out, DType::Float32, count);
}

void Model::save(const std::string& path, const std::vector<std::string>& names, DType dtype,
                 const CancelToken& cancel) const {
  std::vector<NamedTensor> tensors;
  std::vector<const Parameter*> parameters;
  for (const std::string& name : names) {
    const Parameter* p = layout().find(name);
    check(p != nullptr, ErrorCode::InvalidArgument, "names: ", name, " is no parameter of this model");
    parameters.push_back(p);
    tensors.push_back({p->name, p->shape});
  }
  std::vector<float> adapter(adapter_ ? adapter_->size() : 0);  // on the host
  if (adapter_) ops_.download(adapter.data(), master_.data(), adapter_->size() * static_cast<int64_t>(sizeof(float)));
  FloatBuffer staged;  // on another device
  write_safetensors(
      path, tensors, dtype,
      [&](size_t index, int64_t begin, int64_t count, float* host) {
        if (device() == Device::Cpu) {
          read(*parameters[index], begin, count, host);
        } else {
          read(*parameters[index], begin, count, staged.reserve(ops_, count));
          ops_.download(host, staged.data(), count * static_cast<int64_t>(sizeof(float)));
        }
        const auto* product = adapter_ ? adapter_->product(parameters[index]->name) : nullptr;
        if (product) add_product(*adapter_, adapter.data(), *product, begin, count, host);
      },
      cancel);
}

std::shared_ptr<Model> Model::clone() const {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  if (adapter_) {
    auto copy = std::make_shared<Model>(config(), ops_, ModelOptions{dtype_, false});
    copy->working_ = working_;  // the base is never written
    copy->adapter_ = adapter_;
    copy->master_ = FloatBuffer(ops_, adapter_->size());
    ops_.copy(copy->master_.data(), master_.data(), adapter_->size() * kFloat);
    return copy;
  }
  const bool frozen = dtype_ != DType::Float32 || !trainable_;
  auto copy = std::make_shared<Model>(config(), ops_, ModelOptions{dtype_, !frozen});
  copy->allocate();
  if (!frozen) {
    ops_.copy(copy->master_.data(), master_.data(), master_.size() * kFloat);
    return copy;
  }
  const Weights from = weights();
  ops_.copy(copy->working_.matrices(), from.matrices, layout().matrix_size() * static_cast<int64_t>(size_of(dtype_)));
  ops_.copy(copy->working_.vectors(), from.vectors, layout().vector_size() * kFloat);
  return copy;
}

void Model::allocate_adapter(const AdapterConfig& config) {
  check(!trainable_ && !adapter_, ErrorCode::Unsupported, "an adapter needs a frozen base without one");
  adapter_ = std::make_shared<AdapterLayout>(this->config(), config);
  master_ = FloatBuffer(ops_, adapter_->size());
}

void Model::attach(const AdapterConfig& config, uint64_t seed) {
  allocate_adapter(config);
  std::vector<float> values;
  uint32_t index = 0;
  for (const Parameter& p : adapter_->parameters()) {
    ++index;
    if (!p.name.ends_with(".lora_A.weight")) continue;
    const double bound = 1 / std::sqrt(static_cast<double>(p.shape[1]));
    values.resize(p.size());
    for (int64_t i = 0; i < p.size(); ++i) {
      const auto bits = philox4x32({index, static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), 1}, seed);
      values[i] = static_cast<float>(bound * (bits[0] * 0x1p-31 - 1));
    }
    ops_.upload(master_.data() + p.offset, values.data(), p.size() * static_cast<int64_t>(sizeof(float)));
  }
}

void Model::attach(const AdapterConfig& config, const std::string& path, const CancelToken& cancel) {
  const SafetensorsFile file(path);
  check_adapter(file, AdapterLayout(this->config(), config));
  allocate_adapter(config);
  read_adapter(file, cancel);
}

void Model::restore_adapter(const std::string& path, const CancelToken& cancel) {
  check(adapter_ != nullptr, ErrorCode::Unsupported, "this policy has no adapter to restore");
  const SafetensorsFile file(path);
  check_adapter(file, *adapter_);
  read_adapter(file, cancel);
  reset_training();
}

void Model::read_adapter(const SafetensorsFile& file, const CancelToken& cancel) {
  std::vector<float> values;
  for (const Parameter& p : adapter_->parameters()) {
    cancel.check();
    const FileTensor& tensor = file.tensors().at(p.name);
    values.resize(tensor.elements);
    convert(tensor, DType::Float32, values.data());
    ops_.upload(master_.data() + p.offset, values.data(), tensor.elements * static_cast<int64_t>(sizeof(float)));
  }
}

void Model::save_adapter(const std::string& path, const CancelToken& cancel) const {
  check(adapter_ != nullptr, ErrorCode::Unsupported, "this policy has no adapter to save");
  const std::vector<Parameter>& parameters = adapter_->parameters();
  std::vector<NamedTensor> tensors;
  tensors.reserve(parameters.size());
  for (const Parameter& p : parameters) tensors.push_back({p.name, p.shape});
  write_safetensors(
      path, tensors, DType::Float32,
      [&](size_t index, int64_t begin, int64_t count, float* host) {
        ops_.download(host, master_.data() + parameters[index].offset + begin,
                      count * static_cast<int64_t>(sizeof(float)));
      },
      cancel);
}

}  // namespace eepo
